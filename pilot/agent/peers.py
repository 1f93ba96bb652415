"""Messages between ranks by MPI: point to point, never collective, never waiting for one rank.

So a rank that dies takes nothing with it. This is the only module that imports mpi4py, and it does so only when it
is asked to: the launcher must have been started before.
"""

import contextlib
import os
import pickle
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from db.errors import MissingError
from pilot import host
from pilot.agent.shared_memory import remove_stale, unlink_ours

_TAG = 7
#: where what is wrong with the world itself is wrong, and what helps
WORLD = "the pilot's own ranks"
CURE = (
    "unset MPI4PY_LIBMPI (srun and mpiexec start the wheel mpich), or set run.world in pilot.toml to the launcher of "
    "that MPI; `pilot doctor --allocation` tries each"
)
_FLUSH_S = 0.001


class Peers(Protocol):
    """The other ranks of a world."""

    rank: int
    size: int

    def send(self, rank: int, message: object) -> None:
        """To one rank; returns at once. What is sent to a rank that has died is lost without a word."""

    def arrived(self) -> list[tuple[int, Any]]:
        """What has come since the last call, each with the rank that sent it, in the order it was sent."""

    def flush(self, patience_s: float) -> None:
        """Wait until what was sent has left, at most so long."""


@dataclass(slots=True)
class _Incoming:
    request: Any
    buffer: bytearray


class MpiPeers:
    """The world that mpi4py has joined."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        # a communicator of our own would need a collective call
        self._comm = mpi.COMM_WORLD
        self._comm.Set_errhandler(mpi.ERRORS_RETURN)
        self.rank = int(self._comm.Get_rank())
        self.size = int(self._comm.Get_size())
        self._status = mpi.Status()
        # a buffer must live until MPI has read it: for a rank that has died, that is for ever
        self._outgoing: defaultdict[int, deque[tuple[Any, bytes]]] = defaultdict(deque)
        self._incoming: defaultdict[int, deque[_Incoming]] = defaultdict(deque)

    def send(self, rank: int, message: object) -> None:
        """See :class:`Peers`."""
        data = pickle.dumps(message)
        with contextlib.suppress(self._mpi.Exception):
            self._outgoing[rank].append((self._comm.Isend([data, self._mpi.BYTE], dest=rank, tag=_TAG), data))

    def arrived(self) -> list[tuple[int, Any]]:
        """See :class:`Peers`."""
        self._receive()
        self._forget_what_has_left()
        messages: list[tuple[int, Any]] = []
        for rank, waiting in self._incoming.items():
            while waiting and self._done(waiting[0].request):
                messages.append((rank, pickle.loads(waiting.popleft().buffer)))
        return messages

    def flush(self, patience_s: float) -> None:
        """See :class:`Peers`."""
        deadline = host.monotonic() + patience_s
        while any(self._outgoing.values()) and host.monotonic() < deadline:
            self._forget_what_has_left()
            host.pause(_FLUSH_S)

    def _receive(self) -> None:
        with contextlib.suppress(self._mpi.Exception):
            while self._comm.Iprobe(source=self._mpi.ANY_SOURCE, tag=_TAG, status=self._status):
                buffer = bytearray(self._status.Get_count(self._mpi.BYTE))
                source = self._status.Get_source()
                request = self._comm.Irecv([buffer, self._mpi.BYTE], source=source, tag=_TAG)
                self._incoming[source].append(_Incoming(request, buffer))

    def _forget_what_has_left(self) -> None:
        for waiting in self._outgoing.values():
            while waiting and self._done(waiting[0][0]):
                waiting.popleft()

    def _done(self, request: Any) -> bool:
        try:
            return bool(request.Test())
        except self._mpi.Exception:
            # the other end is gone; its silence will tell
            return False


def join_world(size: int, found: Callable[[str], None] = lambda _: None) -> MpiPeers:
    """Become a rank.

    Args:
        size: how many ranks there should be.
        found: told which MPI it is, before that is initialised: a wrong one may end this process at once.

    Raises:
        MissingError: mpi4py finds no MPI, or forms a world of another size: then it was started by the launcher of
            another MPI than the one that it uses.
    """
    try:
        import mpi4py

        # there is one rank on each node: MPICH need not look for others beside it, in shared memory
        os.environ.setdefault("MPIR_CVAR_NOLOCAL", "1")
        # finalising would wait for ranks that have died
        mpi4py.rc.finalize = False
        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MissingError(
            f"mpi4py finds no MPI: {error}",
            where=WORLD,
            next_step="`pip install mpich` into the pilot's environment; then `pilot doctor --allocation`",
        ) from error
    found(library(MPI))
    remove_stale()
    MPI.Init_thread(MPI.THREAD_FUNNELED)
    unlink_ours()
    peers = MpiPeers(MPI)
    if peers.size != size:
        raise MissingError(
            f"the pilot's ranks form a world of {peers.size}, not of {size}: mpi4py uses {library(MPI)}, and what "
            "started the ranks belongs to another MPI",
            where=WORLD,
            next_step=CURE,
        )
    return peers


def library(mpi: Any) -> str:
    """The MPI that mpi4py has loaded, in a few words."""
    return str(mpi.Get_library_version()).splitlines()[0].replace("\t", " ").strip(" \0")
