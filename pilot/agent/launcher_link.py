"""The agent's end of the pipe to its launcher: starts it, writes to it, reads from it, and knows when it died."""

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot import host
from pilot.agent import monitor
from pilot.agent.lines import salvaged

#: a rank ignores what SLURM sends to all at the end, and the batch script may; the launcher and its tasks do not
_DEFAULT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What a launcher is started with.

    Attributes:
        environ: the clean environment of the tasks.
        campaign_id: carried by every process as PILOT_CAMPAIGN.
        epoch: the id of the pilot, carried as PILOT_EPOCH.
        node: carried as PILOT_NODE: the node's name may be ours only, where several agents share a machine.
        journal: the file to which the launcher appends the ends.
    """

    environ: Mapping[str, str]
    campaign_id: str
    epoch: int
    node: str
    journal: Path

    def marks(self) -> dict[str, str]:
        """What every process below the launcher carries."""
        return {
            monitor.CAMPAIGN: self.campaign_id,
            monitor.EPOCH: str(self.epoch),
            monitor.NODE: self.node,
        }


class LauncherLink:
    """One launcher process, from its start to its end.

    It is started by posix_spawn, which copies no memory and runs none of our code in the child: should it have
    to be started again after MPI_Init, that is the gentlest way there is.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._outgoing: list[bytes] = []
        self._incoming = b""
        self.alive = True
        self.was_ready = False
        self._leaders: dict[int, tuple[int, int]] = {}
        settings.journal.parent.mkdir(parents=True, exist_ok=True)
        inlet, self._to = os.pipe()
        self._from, outlet = os.pipe()
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "pilot.agent.launcher", str(settings.journal)],
                {**settings.environ, **settings.marks()},
                file_actions=[(os.POSIX_SPAWN_DUP2, inlet, 0), (os.POSIX_SPAWN_DUP2, outlet, 1)],
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT,
            )
        finally:
            os.close(inlet)
            os.close(outlet)
        self._poll = select.poll()
        self._poll.register(self._from, select.POLLIN)

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell the launcher, at the next flush."""
        self._outgoing.append(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Write what was sent, in one piece; the launcher always reads, so this does not block for long."""
        data = memoryview(b"".join(self._outgoing))
        self._outgoing.clear()
        while data and self.alive:
            try:
                data = data[os.write(self._to, data) :]
            except BrokenPipeError:
                # its last words may still be in the other pipe: the end of that one is what counts
                return

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """The launcher's lines that have come within ``timeout_s``; ``alive`` is False once it has ended."""
        if not self.alive or not self._poll.poll(max(0.0, timeout_s) * 1000):
            return []
        content = os.read(self._from, 1 << 20)
        if not content:
            self._ended()
            return []
        *lines, self._incoming = (self._incoming + content).split(b"\n")
        found = []
        for line in lines:
            message = self._understood(line)
            if message["ev"] == "ready":
                self.was_ready = True
            elif message["ev"] == "started":
                self._leaders.update({entry[0]: (entry[1], entry[2]) for entry in message["leaders"]})
            else:
                self._leaders.pop(message.get("id", 0), None)
                found.append(message)
        return found

    def _understood(self, line: bytes) -> dict[str, Any]:
        """What a line says, though a task may have written into our pipe."""
        try:
            message = salvaged(line, b'{"ev":')
        except ValueError:
            # an end may be lost: with another launcher all begins anew
            os.kill(self.pid, signal.SIGKILL)
            return {"ev": "trouble", "text": "what the launcher says cannot be read: it is ended"}
        if message is None:
            return {"ev": "trouble", "text": f"something else has written into the launcher's pipe: {line[:80]!r}"}
        return message

    def fileno(self) -> int:
        """Readable when the launcher has something to say."""
        return self._from

    def end_orphans(self) -> int:
        """After the launcher died: SIGKILL to all that it had started; the number of processes ended."""
        marks = self._settings.marks().items()
        return monitor.end_marked(lambda env: marks <= env.items(), dict(self._leaders.values()))

    def close(self, patience_s: float = 10.0) -> None:
        """Close the pipe, on which the launcher ends all that runs and leaves; wait for it."""
        if not self.alive:
            return
        with contextlib.suppress(OSError):
            os.close(self._to)
        self._to = -1
        deadline = host.monotonic() + patience_s
        while self.alive and host.monotonic() < deadline:
            self.read(0.1)
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
            self._ended()

    def _ended(self) -> None:
        self.alive = False
        self._poll.unregister(self._from)
        os.close(self._from)
        if self._to >= 0:
            os.close(self._to)
        # it closes its stdout only by ending, so this does not wait for long
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
