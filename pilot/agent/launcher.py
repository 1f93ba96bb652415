"""The launcher: starts, pins, watches and reaps the tasks of its node. Run as ``python -P -m pilot.agent.launcher``.

A plain process of one thread that never touches MPI, so that no rank forks. It imports little: it starts fast.
JSON lines come in on stdin and go out on stdout:

    in   {"op": "start", "id", "argv", "cwd", "dir", "env", "cores", "stdin", "stdout", "stderr",
          "memory_mb", "limit_s", "most_output"}
         {"op": "stop", "id", "cause", "after_s", "term_s"}      SIGTERM after after_s, SIGKILL term_s later
         {"op": "bye"}                                           end all, then leave
    out  {"ev": "ready"}
         {"ev": "started", "leaders": [[id, pid, start], …]}     of what has run for a while
         {"ev": "ended", "id", "code", "signal", "cause", "wall_s", "cpu_s", "peak_mb", "message"}
              (with "machine": true, when it is the machine's fault that it could not be started)
         {"ev": "trouble", "text"}

Each end is appended to the journal before it is told. When stdin closes, the agent is dead: all is ended.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pilot import host
from pilot.agent import monitor, output, shared_memory
from pilot.agent.attempts import Running, Timers, Wire
from pilot.agent.reaper import Groups, Reaper, send_all
from pilot.agent.spawn import NotStartedError, Spawner
from pilot.host import Process

#: seconds between two looks at the memory of what runs
SAMPLE_S = 0.5
#: seconds between two looks at how much has been written
OUTPUT_S = 3.0
#: seconds from SIGTERM to SIGKILL at a time limit
GRACE_S = 5.0
#: the same when we leave
LEAVE_S = 2.0
#: seconds between two rounds of SIGKILL: what forks while we look can escape one
AGAIN_S = 0.2
_SUBREAPER = 36


class Launcher:
    """The state of the launcher; :meth:`run` is its loop."""

    def __init__(self, wire: Wire, alarm: int) -> None:
        self._wire = wire
        self._alarm = alarm
        self._spawner = Spawner(os.environb)
        self._timers = Timers()
        self._reaper = Reaper()
        self._sampling = False
        self._outputs_at = float("-inf")
        #: seconds that the tasks have from SIGTERM to SIGKILL now that we leave; None: we do not leave
        self._leaving: float | None = None

    def run(self) -> None:
        """Serve until told to leave, or until nobody is left to serve."""
        self._wire.tell({"ev": "ready"})
        while self._leaving is None or self._reaper.running:
            self._wire.flush()
            events = self._wire.wait(self._timers.timeout())
            if self._alarm in events and signal.SIGTERM in os.read(self._alarm, 65536):
                self._leave("lost", LEAVE_S)
            # also without an alarm: it may have been lost in a full pipe
            if self._reaper.reap(host.monotonic()):
                self._settle(None)
                self._wire.flush()
            if 0 in events:
                for message in self._wire.messages():
                    self._handle(message)
                self._spawner.return_home()
            if self._wire.closed:
                self._leave("lost", 0.0)
            self._on_time()
        self._wire.finish()

    def _handle(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "start":
                self._start(message)
            case "stop":
                self._stop(message)
            case "bye":
                self._leave("drain", LEAVE_S)

    def _start(self, message: Mapping[str, Any]) -> None:
        attempt = Running(message["id"], host.monotonic(), message["memory_mb"])
        if self._leaving is not None:
            # it crossed our leaving on the way; no fault of the task
            attempt.cause = "lost"
            self._wire.end(attempt.report("the launcher was leaving"))
            return
        try:
            attempt.pid = self._spawner.start(message)
        except NotStartedError as error:
            attempt.cause = "not started"
            self._wire.end({**attempt.report(str(error)), "machine": error.machine})
            return
        self._reaper.add(attempt)
        attempt.most_output = message.get("most_output", 0)
        attempt.outputs = tuple({f"{message['dir']}/{message[name]}" for name in ("stdout", "stderr")})
        if message["limit_s"] is not None:
            self._timers.add(attempt.started + message["limit_s"], attempt.id, "limit")
        if not self._sampling:
            self._sampling = True
            self._timers.add(attempt.started + SAMPLE_S, 0, "sample")

    def _stop(self, message: Mapping[str, Any]) -> None:
        attempt = self._reaper.running.get(message["id"])
        if attempt is None:
            return
        if attempt.cause not in {"timeout", "memory", "output"}:
            attempt.cause = message["cause"]
        attempt.term_s = message["term_s"]
        self._timers.add(host.monotonic() + message["after_s"], attempt.id, "term")

    def _leave(self, cause: str, term_s: float) -> None:
        if self._leaving is not None and self._leaving <= term_s:
            return
        self._leaving = term_s
        for attempt in self._reaper.running.values():
            attempt.cause = attempt.cause or cause
            attempt.term_s = term_s
            self._timers.add(0.0, attempt.id, "term" if term_s else "kill")

    def _on_time(self) -> None:
        """Do all that is due, with one look at /proc for all of it."""
        now = host.monotonic()
        due = self._timers.due(now)
        signals: dict[int, signal.Signals] = {}
        for attempt_id, action in due:
            attempt = self._reaper.running.get(attempt_id)
            number = None if attempt is None else self._act(attempt, action, now)
            if number is not None and signals.get(attempt_id) != signal.SIGKILL:
                signals[attempt_id] = number
        if signals:
            groups = self._reaper.look()
            for attempt_id, number in signals.items():
                send_all(groups.get(attempt_id, ()), number)
            self._settle(groups)
        if (0, "sample") in due:
            self._sample(now)
        self._timers.forget_but(self._reaper.running)

    def _act(self, attempt: Running, action: str, now: float) -> signal.Signals | None:
        if action == "limit":
            if attempt.cause is not None:
                return None  # it is being ended already
            attempt.cause, attempt.term_s = "timeout", GRACE_S
        if action in {"limit", "term"}:
            attempt.kill_at = now + attempt.term_s
            self._timers.add(attempt.kill_at, attempt.id, "kill")
            return signal.SIGTERM
        attempt.kill_at = now
        self._again(attempt, now)
        return signal.SIGKILL

    def _again(self, attempt: Running, now: float) -> None:
        if attempt.again_at <= now:
            attempt.again_at = now + AGAIN_S
            self._timers.add(attempt.again_at, attempt.id, "kill")

    def _settle(self, groups: Groups | None) -> None:
        now = host.monotonic()
        for attempt in self._reaper.settle(now, groups):
            if attempt.cause == "output":
                for path in attempt.outputs:
                    output.shorten(path)
            self._wire.end(attempt.report(""))
        for attempt in self._reaper.running.values():
            if attempt.ended is not None and attempt.kill_at <= now:
                self._again(attempt, now)

    def _sample(self, now: float) -> None:
        running = self._reaper.running
        self._sampling = bool(running)
        if not running:
            return
        self._timers.add(now + SAMPLE_S, 0, "sample")
        groups = self._reaper.glance()
        told = []
        for attempt in running.values():
            group = groups.get(attempt.id, [])
            used = sum(process.rss_mb for process in group)
            attempt.peak_mb = max(attempt.peak_mb, used)
            if 0 < attempt.memory_mb < used and attempt.cause not in {"memory", "output"}:
                self._end_at_once(attempt, "memory", group, now)
            if not attempt.told:
                attempt.told = True
                told += [[attempt.id, p.pid, p.start] for p in group if p.pid == attempt.pid]
        if told:
            self._wire.tell({"ev": "started", "leaders": told})
        if now >= self._outputs_at:
            self._outputs_at = now + OUTPUT_S
            for attempt in running.values():
                # those that have just begun are looked at the next time: most are over then
                if attempt.started + OUTPUT_S <= now and _writes_too_much(attempt):
                    self._end_at_once(attempt, "output", groups.get(attempt.id, []), now)

    def _end_at_once(self, attempt: Running, cause: str, group: Iterable[Process], now: float) -> None:
        attempt.cause, attempt.kill_at = cause, now
        send_all(group, signal.SIGKILL)
        self._again(attempt, now)


def _writes_too_much(attempt: Running) -> bool:
    if attempt.cause is not None or not attempt.most_output:
        return False
    return output.written(attempt.outputs) > attempt.most_output


def _sweep() -> None:
    """End what a dead pilot of this campaign left on this node, and remove what nobody maps of its shared memory."""
    campaign, epoch = os.environ[monitor.CAMPAIGN], int(os.environ[monitor.EPOCH])

    def left_over(env: Mapping[str, str]) -> bool:
        # never what belongs to a later pilot: then it is we who are left over
        return env.get(monitor.CAMPAIGN) == campaign and int(env.get(monitor.EPOCH, epoch)) < epoch

    monitor.end_marked(left_over)
    with contextlib.suppress(OSError):
        shared_memory.remove_stale()


def main() -> None:
    """Entry: ``python -P -m pilot.agent.launcher JOURNAL``."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    alarm, ring = os.pipe()
    os.set_blocking(alarm, False)
    os.set_blocking(ring, False)
    # the wake-up descriptor tells which signal it was: the handlers themselves have nothing to do
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    journal = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _sweep()
    Launcher(Wire(journal, alarm), alarm).run()


if __name__ == "__main__":
    main()
