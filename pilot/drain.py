"""When a pilot stops starting tasks, when it asks the running ones to stop, and when it ends them. Pure."""

from dataclasses import dataclass
from enum import StrEnum

#: After the soft stop and SIGTERM, for the last commit and the last snapshot.
RESERVE_S = 15.0
#: Between SIGTERM and SIGKILL.
TERM_S = 5.0


class Phase(StrEnum):
    """How far a drain has come."""

    FINISH = "finish"
    """Nothing new starts; what runs may finish."""
    STOP = "stop"
    """What still runs is asked to stop."""
    KILL = "kill"
    """What still runs is ended at once."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A drain that is under way.

    Attributes:
        why: its cause, for people.
        stop_at: when running tasks are asked to stop.
        at_once: do not ask, end them.
    """

    why: str
    stop_at: float
    at_once: bool = False

    def phase(self, now: float) -> Phase:
        """What to do now."""
        if self.at_once:
            return Phase.KILL
        return Phase.STOP if now >= self.stop_at else Phase.FINISH


def begin(why: str, now: float, *, ends_at: float | None, wait_s: float, soft_s: float) -> Drain:
    """A drain that lets tasks finish until the end of the allocation is near, or for ``wait_s`` where none is.

    Args:
        why: its cause.
        now: seconds.
        ends_at: when everything must be over; None if there is no such time.
        wait_s: how long tasks may go on without a known end.
        soft_s: how long a task gets to stop in its own way.
    """
    latest = now + wait_s
    if ends_at is not None:
        latest = min(latest, last_moment(ends_at, soft_s))
    return Drain(why, max(now, latest))


def last_moment(ends_at: float, soft_s: float) -> float:
    """When running tasks must be asked to stop so that all is over at ``ends_at``."""
    return ends_at - soft_s - TERM_S - RESERVE_S
