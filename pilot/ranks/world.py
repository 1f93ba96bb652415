"""A world of ranks as the supervisor sees it: a process that was started, lines that come out of it, and its end."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from pilot import host
from pilot.mpi.own_ranks import start_ranks
from pilot.mpi.scrub import of_the_job, scrubbed
from pilot.mpi.search import of_the_site
from pilot.orders import Order, to_line
from pilot.slurm.parse import is_end_of_rank, unreached_nodes

_REMEMBERED = 100
_PATIENCE_S = 10.0


class World:
    """The ranks, behind the program (srun, mpiexec) that has started them.

    Args:
        argv: that program and its arguments.
        environ: its environment.

    Attributes:
        last_words: the last lines of its stderr.
        broken: one of the ranks is said there to have ended.
        unreached: the nodes of which srun has said there that they cannot be reached.
        manager: process id and start of rank 0, once it is ready and if it lives on this machine.
        step: SLURM's name of the step, once it is known; else "".
        ready: rank 0 has joined the world.
        library: the MPI that the ranks have found, once one has said so.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        # a session of its own: Ctrl-C in a terminal is for the supervisor, which orders a drain
        self._process = subprocess.Popen(
            list(argv),
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._to = self._process.stdin
        self._halves = {self._process.stdout.fileno(): b"", self._process.stderr.fileno(): b""}
        self._out = self._process.stdout.fileno()
        self._poll = select.poll()
        for descriptor in self._halves:
            self._poll.register(descriptor, select.POLLIN)
        self.last_words: deque[str] = deque(maxlen=_REMEMBERED)
        self.broken = False
        self.unreached: set[str] = set()
        self.manager: tuple[int, int] | None = None
        self.step = ""
        self.ready = False
        self.library = ""

    def tell(self, order: Order) -> None:
        """To the manager."""
        with contextlib.suppress(OSError):
            self._to.write(to_line(order))
            self._to.flush()

    def hear(self, timeout_s: float) -> list[dict[str, Any]]:
        """What the ranks have said meanwhile (see :mod:`pilot.ranks.rank`); waits at most ``timeout_s`` for it."""
        events: list[dict[str, Any]] = []
        if not self._halves:
            host.pause(timeout_s)
            return events
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            for line in self._lines(descriptor):
                event = _event(line) if descriptor == self._out else None
                if event is None:
                    self.last_words.append(line)
                    self.unreached.update(unreached_nodes(line))
                    self.broken = self.broken or is_end_of_rank(line)
                else:
                    self._note(event)
                    events.append(event)
        return events

    def _note(self, event: dict[str, Any]) -> None:
        if event["ev"] == "joining":
            self.library = event["library"]
        elif event["ev"] == "ready":
            self.ready, self.step = True, event["step"]
            if event["host"] == host.hostname():
                self.manager = (event["pid"], event["start"])

    def _lines(self, descriptor: int) -> list[str]:
        content = os.read(descriptor, 1 << 16)
        if not content:
            self._poll.unregister(descriptor)
            rest = self._halves.pop(descriptor)
            return [rest.decode(errors="replace")] if rest else []
        *lines, self._halves[descriptor] = (self._halves[descriptor] + content).split(b"\n")
        return [line.decode(errors="replace") for line in lines if line.strip()]

    def is_over(self) -> bool:
        """Whether all have gone, or rank 0, without which there is no world; or any before they have all met."""
        if self._process.poll() is not None or (self.broken and not self.ready):
            return True
        return self.manager is not None and not _lives(*self.manager)

    @property
    def left(self) -> bool:
        """Whether the program has ended by itself: then all its ranks have ended too."""
        code = self._process.poll()
        return code is not None and code >= 0

    def wait(self, patience_s: float = _PATIENCE_S) -> bool:
        """Wait until the program has ended; False if it has not in that time."""
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End rank 0 if it is here, the program and all its session, if they have not ended by themselves."""
        with contextlib.suppress(OSError):
            self._to.close()
        if self._process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                if self.wait(3.0):
                    break
        self._end_manager()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _end_manager(self, patience_s: float = 5.0) -> None:
        """Nobody may open the database before rank 0 has let go of it, and srun may be dead, or SLURM busy."""
        deadline = host.monotonic() + patience_s
        while self.manager is not None and _lives(*self.manager) and host.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.manager[0], signal.SIGKILL)
            host.pause(0.02)


def _lives(pid: int, start: int) -> bool:
    seen = host.process(pid)
    return seen is not None and not seen.zombie and seen.start == start


def start_world(
    way: str, nodes: Sequence[str], rank: Sequence[str], marks: Mapping[str, str] = {}, *, job_nodes: int = 0
) -> World:
    """Start a rank on each of the nodes, from a clean environment.

    Args:
        way, nodes, job_nodes: see :func:`pilot.mpi.own_ranks.start_ranks`.
        rank: what each rank is.
        marks: what each of its processes carries in its environment.

    Raises:
        OSError: the program that starts them is not there; ``filename`` is its name.
    """
    argv, added = start_ranks(way, nodes, rank, job_nodes=job_nodes)
    argv[0] = of_the_site(argv[0])
    return World(argv, {**scrubbed(os.environ), **of_the_job(os.environ), **added, **marks})


def _event(line: str) -> dict[str, Any] | None:
    """The event in a line; None if it is something else that was printed there."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "ev" in event else None
