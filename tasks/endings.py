"""What an ending that was not the program's own doing means; the same for all engines that label. Pure."""

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
