"""Which processes belong to which attempt: sessions, orphans and marks, read from /proc.

Each attempt is started in a session of its own, and each of its processes carries PILOT_ATTEMPT in its
environment. The launcher is the reaper of all orphans below it, so whatever a task leaves behind is either in
the task's session, or below a process of it, or below a child of the launcher that carries the mark.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable, Mapping

from pilot import host
from pilot.host import Process

ATTEMPT = "PILOT_ATTEMPT"
CAMPAIGN = "PILOT_CAMPAIGN"
EPOCH = "PILOT_EPOCH"
NODE = "PILOT_NODE"

#: owner of a process that is below the launcher without a sign of the attempt that started it
UNKNOWN = -1


def listed() -> list[int]:
    """The ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def scan(pids: Iterable[int]) -> list[Process]:
    """Those of ``pids`` that live; zombies are left out: they hold nothing and cannot be ended."""
    found = (host.process(pid) for pid in pids)
    return [process for process in found if process is not None and not process.zombie]


def children(pid: int) -> list[int]:
    """The children of a process of one thread; among ours also the orphans that were handed to us."""
    try:
        return [int(child) for child in host.read(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:
        # a kernel built without that file
        return [process.pid for other in listed() if (process := host.process(other)) and process.ppid == pid]


def environment(pid: int) -> dict[str, str]:
    """The environment that ``pid`` was started with; empty when it is gone, a zombie, or somebody else's."""
    try:
        content = host.read(f"/proc/{pid}/environ").decode(errors="replace")
    except OSError:
        return {}
    pairs = (item.partition("=") for item in content.split("\0") if "=" in item)
    return {name: value for name, _, value in pairs}


def mark(pid: int) -> int | None:
    """The attempt whose mark ``pid`` carries."""
    value = environment(pid).get(ATTEMPT, "")
    return int(value) if value.isdigit() else None


def owners(
    processes: Iterable[Process], reaper: int, sessions: Mapping[int, int], orphans: Mapping[int, int]
) -> dict[int, int]:
    """The attempt of each process that belongs to one. Pure.

    Args:
        processes: what was seen.
        reaper: the launcher's own process id.
        sessions: session id → attempt.
        orphans: child of the launcher → attempt, known by its mark.

    Returns:
        pid → attempt, or :data:`UNKNOWN` for what is below the launcher and has no known attempt.
    """
    seen = {process.pid: process for process in processes}
    owner: dict[int, int | None] = {}
    for pid in seen:
        chain = []
        at: int = pid
        found: int | None = None
        while at not in owner:
            process = seen.get(at)
            if process is None or at == reaper:
                break
            chain.append(at)
            found = sessions.get(process.session, orphans.get(at))
            if found is not None:
                break
            if process.ppid == reaper:
                found = UNKNOWN
                break
            at = process.ppid
        else:
            found = owner[at]
        for link in chain:
            owner[link] = found
    return {pid: found for pid, found in owner.items() if found is not None}


def send(process: Process, number: int) -> bool:
    """Send a signal to this very process, never to another that got its number; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        # kernels before 5.3: there is a moment between the look and the signal, but no better way
        handle = -1
    try:
        if host.process_start(process.pid) != process.start:
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle >= 0:
            os.close(handle)
    return True


def marked(belongs: Callable[[Mapping[str, str]], bool], known: Mapping[int, int]) -> list[Process]:
    """The processes left over from a launcher that is dead.

    Args:
        belongs: whether an environment is that of such a process.
        known: session id → start of its leader, for sessions that are known to be such; a leader that started
            at another time is a stranger that got the same number.

    Returns:
        All processes with such an environment, and all in the session of one that is an attempt's. Never
        this process or one above it.
    """
    processes = scan(listed())
    ours = _ancestors(processes)
    starts = {process.pid: process.start for process in processes}
    sessions = {sid for sid, start in known.items() if starts.get(sid, start) == start}
    hits = set()
    for process in processes:
        found = environment(process.pid)
        if belongs(found) and process.pid not in ours:
            hits.add(process.pid)
            if ATTEMPT in found:
                sessions.add(process.session)
    sessions -= {process.session for process in processes if process.pid in ours}
    return [p for p in processes if p.pid not in ours and (p.pid in hits or p.session in sessions)]


def _ancestors(processes: Iterable[Process]) -> set[int]:
    parents = {process.pid: process.ppid for process in processes}
    at, found = os.getpid(), set[int]()
    while at and at not in found:
        found.add(at)
        at = parents.get(at, 0)
    return found


def end_marked(
    belongs: Callable[[Mapping[str, str]], bool],
    known: Mapping[int, int] | None = None,
    patience_s: float = 5.0,
) -> int:
    """SIGKILL to what :func:`marked` finds, until nothing is found; the number of processes ended.

    A process that forks while we look can escape one round, hence the rounds.
    """
    ended = 0
    deadline = host.monotonic() + patience_s
    while left := marked(belongs, known or {}):
        ended += sum(send(process, signal.SIGKILL) for process in left)
        for process in left:
            _await_end(process, max(0.0, deadline - host.monotonic()))
        if host.monotonic() >= deadline:
            break
    return ended


def _await_end(process: Process, patience_s: float) -> None:
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:
            if host.process_start(process.pid) == process.start:
                waiting = select.poll()
                waiting.register(handle, select.POLLIN)
                waiting.poll(patience_s * 1000)
        finally:
            os.close(handle)
