"""When everything must be over; when running tasks are asked to stop, and when they are ended. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: Between SIGTERM and SIGKILL.
TERM_S = 5.0
#: After SIGKILL, for the last commit and the last snapshot: this part of the allocation, within these bounds (s).
RESERVE, LEAST_RESERVE_S, MOST_RESERVE_S = 0.05, 15.0, 120.0
#: Whoever sends SIGTERM sends SIGKILL half a minute later as a rule (SLURM's KillWait): the soft stop is this at most.
HURRIED_SOFT_S = 10.0
#: SLURM is told to warn a few minutes before the end. A warning that comes earlier than this is none of the end that
#: we know (the job is preempted, say): then nobody knows how much time is left.
WARNED_S = 900.0


class End(StrEnum):
    """What can end the work, as people are told."""

    ALLOCATION = "the end of the allocation"
    MAINTENANCE = "maintenance"
    WALLTIME = "the end of run.walltime"
    BY = "the time of pilot drain --by"


@dataclass(frozen=True, slots=True)
class Ends:
    """When everything must be over, by what ends it (seconds since 1970)."""

    moments: Mapping[End, float] = field(default_factory=dict)

    def moved(self, end: End, at: float | None) -> "Ends":
        """The same with one of them moved; None: that one is gone."""
        others = {other: moment for other, moment in self.moments.items() if other is not end}
        return Ends(others if at is None else others | {end: at})

    @property
    def first(self) -> tuple[End, float] | None:
        """The one that comes first; None: nothing ends it."""
        return min(self.moments.items(), key=lambda item: item[1], default=None)

    @property
    def at(self) -> float | None:
        """When the first one comes."""
        return None if self.first is None else self.first[1]


class Phase(StrEnum):
    """How far a drain has come."""

    FINISH = "finish"
    """What runs may finish; what would not fit does not start."""
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
        soft_s: how long a task gets to stop in its own way.
        at_once: do not ask, end them.
        starts: tasks that will be done before the end still start.
    """

    why: str
    stop_at: float
    soft_s: float
    at_once: bool = False
    starts: bool = False

    def phase(self, now: float) -> Phase:
        """What to do now."""
        if self.at_once:
            return Phase.KILL
        return Phase.STOP if now >= self.stop_at else Phase.FINISH

    @property
    def _strictness(self) -> tuple[bool, bool, float]:
        return (self.at_once, not self.starts, -self.stop_at)

    def and_also(self, other: "Drain") -> "Drain":
        """This one, and one that was asked for later: whatever is stricter of the two."""
        return Drain(
            why=other.why if other._strictness > self._strictness else self.why,
            stop_at=min(self.stop_at, other.stop_at),
            soft_s=min(self.soft_s, other.soft_s),
            at_once=self.at_once or other.at_once,
            starts=self.starts and other.starts,
        )


class Urgency(StrEnum):
    """What whoever wants a drain knows of the time there is."""

    WISH = "wish"
    """A person wants the pilot to end: nothing starts, what runs may finish within run.drain_wait."""
    WARNING = "warning"
    """The end that is known is near: what fits may still start."""
    HURRY = "hurry"
    """What runs is asked to stop now: nobody knows how much time is left."""
    NOW = "now"
    """What runs is ended now."""


def begin(why: str, urgency: Urgency, now: float, *, stop_at: float | None, wait_s: float, soft_s: float) -> Drain:
    """The drain that is wanted.

    Args:
        why: its cause.
        urgency: how much time there is.
        now: seconds.
        stop_at: when running tasks must be asked to stop in any case; None if no end is known.
        wait_s: how long tasks may go on when a person wants it.
        soft_s: how long a task gets to stop in its own way.
    """
    if urgency is Urgency.WARNING and (stop_at is None or stop_at - now > WARNED_S):
        urgency = Urgency.HURRY
    latest = float("inf") if stop_at is None else stop_at
    match urgency:
        case Urgency.WISH:
            return Drain(why, max(now, min(latest, now + wait_s)), soft_s)
        case Urgency.WARNING:
            return Drain(why, max(now, latest), soft_s, starts=True)
        case Urgency.HURRY:
            return Drain(why, now, min(soft_s, HURRIED_SOFT_S))
        case Urgency.NOW:
            return Drain(why, now, soft_s, at_once=True)


def reserve(span_s: float) -> float:
    """What is kept free at the end of an allocation that lasts ``span_s``, for the last commit and snapshot (s)."""
    return min(MOST_RESERVE_S, max(LEAST_RESERVE_S, RESERVE * span_s))


def last_moment(ends_at: float, span_s: float, soft_s: float) -> float:
    """When running tasks must be asked to stop so that all is over at ``ends_at``, ``span_s`` after the start."""
    return ends_at - soft_s - TERM_S - reserve(span_s)
