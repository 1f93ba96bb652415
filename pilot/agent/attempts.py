"""What the launcher keeps: its running attempts, its timers, and the two ends of its pipe with the journal."""

import heapq
import json
import os
import resource
import select
from collections.abc import Collection, Mapping
from typing import Any

from pilot import host
from pilot.agent.lines import salvaged

# bytes in ru_maxrss's kB
_MAXRSS_MB = 1024 / host.MB
_OUT = 1


class Running:
    """One attempt from its start to its report."""

    __slots__ = (
        "again_at",
        "cause",
        "code",
        "cpu_s",
        "ended",
        "id",
        "kill_at",
        "memory_mb",
        "most_output",
        "outputs",
        "peak_mb",
        "pid",
        "signal",
        "started",
        "term_s",
        "told",
    )

    def __init__(self, attempt_id: int, started: float, memory_mb: int) -> None:
        self.id = attempt_id
        self.pid = 0
        self.started = started
        self.memory_mb = memory_mb
        #: the files it writes to, and how many bytes these may hold together; 0: as many as they like
        self.outputs: tuple[str, ...] = ()
        self.most_output = 0
        self.ended: float | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.cause: str | None = None
        self.cpu_s = 0.0
        self.peak_mb = 0.0
        self.term_s = 0.0
        #: until then its processes may end by themselves after SIGTERM; 0: no such time was given
        self.kill_at = 0.0
        #: when the next round of SIGKILL comes
        self.again_at = 0.0
        self.told = False

    def left(self, status: int, now: float) -> None:
        """Its leader has ended."""
        self.ended = now
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
        else:
            self.code = os.WEXITSTATUS(status)

    def add(self, usage: resource.struct_rusage) -> None:
        """Count what a process that was reaped has used, and those that it had waited for."""
        self.cpu_s += usage.ru_utime + usage.ru_stime
        self.peak_mb = max(self.peak_mb, usage.ru_maxrss * _MAXRSS_MB)

    def report(self, message: str) -> dict[str, Any]:
        """The line that tells its end."""
        return {
            "ev": "ended",
            "id": self.id,
            "code": self.code,
            "signal": self.signal,
            "cause": self.cause,
            "wall_s": 0.0 if self.ended is None else round(self.ended - self.started, 4),
            "cpu_s": round(self.cpu_s, 4),
            "peak_mb": round(self.peak_mb, 1),
            "message": message,
        }


class Timers:
    """What is to be done when; an entry for an attempt that is gone does no harm."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []

    def add(self, when: float, attempt_id: int, action: str) -> None:
        """Do ``action`` to the attempt at ``when`` (monotonic)."""
        heapq.heappush(self._heap, (when, attempt_id, action))

    def due(self, now: float) -> list[tuple[int, str]]:
        """Take out all that is due."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            _, attempt_id, action = heapq.heappop(self._heap)
            found.append((attempt_id, action))
        return found

    def forget_but(self, attempts: Collection[int]) -> None:
        """Drop the entries of attempts that are gone, once there are many: most time limits are never reached."""
        if len(self._heap) > 1000 + 8 * len(attempts):
            self._heap = [entry for entry in self._heap if entry[1] == 0 or entry[1] in attempts]
            heapq.heapify(self._heap)

    def timeout(self) -> float | None:
        """Seconds until the next; None: nothing to wait for."""
        return max(0.0, self._heap[0][0] - host.monotonic()) if self._heap else None


class Wire:
    """Stdin, stdout and the journal. Writing never blocks, as the agent may itself be blocked writing to us."""

    def __init__(self, journal: int, alarm: int) -> None:
        self._journal = journal
        self._unwritten = b"" if _ends_whole(journal) else b"\n"
        self._outgoing = bytearray()
        self._incoming = b""
        self._ends: list[bytes] = []
        self._disk_told = False
        self.closed = False
        os.set_blocking(_OUT, False)
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._poll.register(alarm, select.POLLIN)

    def tell(self, line: Mapping[str, Any]) -> None:
        """To the agent, at the next flush."""
        self._outgoing += _line(line)

    def end(self, line: Mapping[str, Any]) -> None:
        """To the journal and then to the agent, at the next flush."""
        self._ends.append(_line(line))

    def flush(self) -> None:
        """Append the ends to the journal with one write, then tell as much as the pipe takes."""
        if self._ends:
            self._write_journal(b"".join(self._ends))
            self._outgoing += b"".join(self._ends)
            self._ends.clear()
        if self._outgoing and not self.closed:
            try:
                del self._outgoing[: os.write(_OUT, self._outgoing)]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self.closed = True

    def _write_journal(self, lines: bytes) -> None:
        self._unwritten += lines
        try:
            self._unwritten = self._unwritten[os.write(self._journal, self._unwritten) :]
            self._disk_told = False
        except OSError as error:
            # the agent hears of the ends all the same; what was not written is tried again with the next
            if not self._disk_told:
                self._disk_told = True
                self.tell({"ev": "trouble", "text": f"cannot write the journal of ends: {error.strerror}"})

    def wait(self, timeout_s: float | None) -> Collection[int]:
        """The descriptors that have something for us (0, the alarm); empty when the time is over."""
        waiting = bool(self._outgoing) and not self.closed
        if waiting:
            self._poll.register(_OUT, select.POLLOUT)
        found = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
        if waiting:
            self._poll.unregister(_OUT)
        return {fd for fd, _ in found}

    def messages(self) -> list[dict[str, Any]]:
        """The whole lines that have come in; ``closed`` is set when no more can come, or nothing can be relied on."""
        content = os.read(0, 1 << 20)
        if not content:
            self.closed = True
            self._poll.unregister(0)
            return []
        *lines, self._incoming = (self._incoming + content).split(b"\n")
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                message = salvaged(line, b'{"op":')
            except ValueError:
                # what we were told is lost: with another launcher all begins anew
                self.closed = True
                self._poll.unregister(0)
                return found
            if message is not None:
                found.append(message)
        return found

    def finish(self) -> None:
        """Tell the rest, waiting for the agent to take it."""
        os.set_blocking(_OUT, True)
        self.flush()
        while self._outgoing and not self.closed:
            self.flush()


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _ends_whole(journal: int) -> bool:
    """Whether the journal's last line is whole; else the first new one must not be glued to it."""
    size = os.fstat(journal).st_size
    return size == 0 or os.pread(journal, 1, size - 1) == b"\n"
