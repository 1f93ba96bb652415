"""What a pilot may use and how it stops."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from db.states import TaskKind
from pilot.config import Config

#: beyond the silence after which a node is lost: silence counts from its last word, and is looked at now and then
_SLACK_S = 6.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pilot may use and how it stops.

    Attributes:
        cores: so many of a node's cores; None for all. More than it has: its tasks share cores and are not pinned.
        memory_mb: so much of a node's memory at most; None for all.
        starts_at: when the allocation was granted, seconds since 1970; None: when the pilot began.
        ends_at: when everything must be over, seconds since 1970; None if nothing ends it.
        wished_end: the same, as the user has wished it; SLURM cannot make it later.
        drain_wait_s: how long running tasks may go on when draining without a known end.
        soft_stop_s: how long a task gets to stop in its own way.
        doubt_s: after so long the loss of a node is known for certain.
        launchers: the MPI launcher of some kinds of tasks.
        launcher: that of all others.
    """

    cores: int | None = None
    memory_mb: int | None = None
    starts_at: float | None = None
    ends_at: float | None = None
    wished_end: float | None = None
    drain_wait_s: float = 600.0
    soft_stop_s: float = 20.0
    doubt_s: float = 0.0
    launchers: Mapping[TaskKind, str] = field(default_factory=dict)
    launcher: str = "auto"


def terms_of(config: Config, *, began_at: float, starts_at: float | None, ends_at: float | None) -> Terms:
    """What a pilot may use.

    Args:
        config: of the campaign.
        began_at: when the pilot began.
        starts_at, ends_at: of its allocation; None: there is none, or nobody knows.
    """
    run = config.run
    wished_end = None if run.walltime is None else began_at + run.walltime
    return Terms(
        cores=run.cores,
        memory_mb=run.memory_mb,
        starts_at=starts_at,
        ends_at=earlier(ends_at, wished_end),
        wished_end=wished_end,
        drain_wait_s=run.drain_wait,
        soft_stop_s=run.soft_stop,
        doubt_s=run.silence + _SLACK_S,
        launchers=config.resources.launchers(),
        launcher=run.mpi,
    )


def earlier(one: float | None, other: float | None) -> float | None:
    """The earlier of two moments; None is never."""
    return min((moment for moment in (one, other) if moment is not None), default=None)
