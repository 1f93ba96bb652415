"""The launcher's children: whose process is whose, what has ended, and what an ended attempt left behind."""

import os
import signal
from collections.abc import Iterable

from pilot import host
from pilot.agent import monitor
from pilot.agent.attempts import Running
from pilot.host import Process

#: how long a killed process may take to go before its attempt is told as ended all the same
STUCK_S = 3.0

Groups = dict[int, list[Process]]


class Reaper:
    """All attempts that run, and all children of this process."""

    def __init__(self) -> None:
        self.running: dict[int, Running] = {}
        self._leaders: dict[int, Running] = {}
        #: children that are no leaders: processes whose parent ended, handed to us by the kernel
        self._orphans: dict[int, int] = {}
        #: processes that are not ours; an old process never becomes ours, so they are looked at once
        self._strangers: set[int] = set()

    def add(self, attempt: Running) -> None:
        """An attempt was started."""
        self.running[attempt.id] = self._leaders[attempt.pid] = attempt

    def reap(self, now: float) -> bool:
        """Take the exit of all children that have ended; whether there were any."""
        reaped = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return reaped
            if pid == 0:
                return reaped
            reaped = True
            attempt = self._leaders.pop(pid, None)
            if attempt is None:
                attempt = self.running.get(self._orphans.pop(pid, 0))
            else:
                attempt.left(status, now)
            if attempt is not None:
                attempt.add(usage)

    def look(self) -> Groups:
        """The living processes of each attempt (-1: below us, of no attempt we know)."""
        return self._group(monitor.scan(monitor.listed()))

    def glance(self) -> Groups:
        """As :meth:`look`, without looking again at processes that were found to be none of ours."""
        pids = monitor.listed()
        seen = monitor.scan(pid for pid in pids if pid not in self._strangers)
        groups = self._group(seen)
        ours = {process.pid for group in groups.values() for process in group}
        self._strangers.intersection_update(pids)
        self._strangers.update(process.pid for process in seen if process.pid not in ours)
        return groups

    def settle(self, now: float, groups: Groups | None = None) -> list[Running]:
        """Take out the attempts that have ended with all their processes.

        What a leader that ended by itself left behind gets SIGKILL; after SIGTERM the others have the same time
        to end as their leader had. An attempt with such processes stays until they are gone.
        """
        ended = [attempt for attempt in self.running.values() if attempt.ended is not None]
        if not ended and self.running:
            return []
        strays = [pid for pid in monitor.children(os.getpid()) if pid not in self._leaders and not self._busy(pid)]
        finished = ended
        if strays and ended:
            found = self.look() if groups is None else groups
            finished = [attempt for attempt in ended if self._cleared(attempt, found.get(attempt.id, []), now)]
        for attempt in finished:
            del self.running[attempt.id]
        if not self.running:
            # no mark and no session tells whose they are, but all that we start ends with its attempt
            send_all((p for pid in strays if (p := host.process(pid)) is not None), signal.SIGKILL)
        return finished

    def _cleared(self, attempt: Running, left: list[Process], now: float) -> bool:
        ended = now if attempt.ended is None else attempt.ended
        if not left or now > max(ended, attempt.kill_at) + STUCK_S:
            return True
        if attempt.kill_at <= now:
            send_all(left, signal.SIGKILL)
        return False

    def _busy(self, pid: int) -> bool:
        owner = self.running.get(self._orphans.get(pid, 0))
        return owner is not None and owner.ended is None

    def _group(self, seen: list[Process]) -> Groups:
        me = os.getpid()
        sessions = {attempt.pid: attempt.id for attempt in self.running.values()}
        for process in seen:
            if process.ppid == me and process.pid not in self._leaders and process.pid not in self._orphans:
                owner = sessions.get(process.session)
                owner = monitor.mark(process.pid) if owner is None else owner
                if owner is not None:
                    self._orphans[process.pid] = owner
        owners = monitor.owners(seen, me, sessions, self._orphans)
        groups: Groups = {}
        for process in seen:
            if process.pid in owners:
                groups.setdefault(owners[process.pid], []).append(process)
        return groups


def send_all(processes: Iterable[Process], number: signal.Signals) -> None:
    """The signal to each of them that is still there."""
    for process in processes:
        monitor.send(process, number)
