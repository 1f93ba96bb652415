"""What an ending that was not the program's own doing means; the same for all engines that label. Pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from db.states import Verdict
from tasks.protocol import Cause, Exit

#: we ended it, or nobody saw its end
BY_US: Mapping[Cause, tuple[Verdict, str]] = MappingProxyType(
    {
        Cause.CANCEL: (Verdict.CANCELLED, "cancelled"),
        Cause.TIMEOUT: (Verdict.TIMEOUT, "it ran longer than its time limit"),
        Cause.MEMORY: (Verdict.OUT_OF_MEMORY, "it used more memory than it had asked for"),
        Cause.OUTPUT: (
            Verdict.CRASHED,
            "it wrote more to its standard output than run.max_output_mb allows; its beginning and end were kept",
        ),
        Cause.DRAIN: (Verdict.INTERRUPTED, "stopped by the drain"),
        Cause.LOST: (Verdict.INTERRUPTED, "nobody saw it end"),
    }
)
#: what a launcher, a shell or the loader says when the program is not there
NOT_THERE = re.compile(
    r"unable to find the specified executable|failed to execute \S+: No such file"
    r"|command not found|error while loading shared libraries"
)
#: what the machine is to blame for
MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|Stale file handle|Input/output error|Transport endpoint"
    r"|Read-only file system|File too large"
    r"|not enough slots available|ORTE was unable|PRTE ERROR|An ORTE daemon has unexpectedly failed"
    r"|Unable to create step|PMI2?_Init failed|PMIX ERROR"
)
#: what a launcher says when a signal has ended one of its ranks
KILLED_RANK = re.compile(r"exited on signal (\d+)")
NO_MEMORY = re.compile(
    r"not enough (space to allocate|memory)|out of memory|cannot allocate|insufficient (virtual )?memory|bad_alloc"
    r"|allocation would exceed memory limit|error allocating|error in allocation|oom.?kill|unable to allocate",
    re.IGNORECASE,
)
_NO_PROGRAM = re.compile(r"no such (file|program)|not found|permission denied|exec format|interpreter", re.IGNORECASE)
_SIGKILL = 9
#: sent by people and batch systems; a program does not send them to itself
_SENT = {1: "SIGHUP", 2: "SIGINT", 15: "SIGTERM"}


def how(end: Exit) -> str:
    """The exit code or the signal."""
    return f"signal {end.signal}" if end.signal is not None else f"exit code {end.code}"


def by_signal(signal: int | None) -> tuple[Verdict, str] | None:
    """What a signal that *we* did not send means; None where it is a failure of the program itself."""
    if signal == _SIGKILL:
        return Verdict.OUT_OF_MEMORY, "killed by SIGKILL, which we did not send: most likely for its memory"
    if signal in _SENT:
        return Verdict.INTERRUPTED, f"{_SENT[signal]} ended it, which we did not send"
    return None


def not_started(end: Exit, program: str, install: str) -> tuple[Verdict, str]:
    """What it means that it could not be started.

    Args:
        end: with the message of the operating system.
        program: what was to be started.
        install: what to do where there is no such program.
    """
    message = end.message or "it could not be started"
    # "cannot enter", "cannot write into": the folder of the attempt, not the program
    if not message.startswith("cannot") and _NO_PROGRAM.search(message):
        return Verdict.BAD_INPUT, f"{program}: {message}; {install}"
    return Verdict.INFRASTRUCTURE, f"{program}: {message}"


def signal_of(end: Exit, err: str) -> int:
    """The signal that ended it or one of its ranks; 0: none."""
    rank = KILLED_RANK.search(err)
    return end.signal or (int(rank.group(1)) if rank else 0) or max(0, (end.code or 0) - 128)
