"""What a pilot may use and how it stops."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from db.states import TaskKind
from pilot import drain
from pilot.config import Config
from pilot.drain import End, Ends
from pilot.scheduler.policy import Clock

#: beyond the silence after which a node is lost: silence counts from its last word, and is looked at now and then
_SLACK_S = 6.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pilot may use and how it stops.

    Attributes:
        cores: so many of a node's cores; None for all. More than it has: its tasks share cores and are not pinned.
        memory_mb: so much of a node's memory at most; None for all.
        began_at: when the pilot began, seconds since 1970.
        starts_at: when the allocation was granted; None: when the pilot began.
        counts_from: from then on nobody has counted yet what of the allocation is reserved; None: from ``starts_at``.
        ends: when everything must be over.
        drain_wait_s: how long running tasks may go on when somebody wants the pilot to end.
        soft_stop_s: how long a task gets to stop in its own way.
        doubt_s: after so long the loss of a node is known for certain.
        limits: what ends a task that hangs (s), for those kinds of which a task says nothing itself.
        launchers: the MPI launcher of some kinds of tasks.
        launcher: that of all others.
    """

    cores: int | None = None
    memory_mb: int | None = None
    began_at: float = 0.0
    starts_at: float | None = None
    counts_from: float | None = None
    ends: Ends = field(default_factory=Ends)
    drain_wait_s: float = 600.0
    soft_stop_s: float = 20.0
    doubt_s: float = 0.0
    limits: Mapping[TaskKind, float] = field(default_factory=dict)
    launchers: Mapping[TaskKind, str] = field(default_factory=dict)
    launcher: str = "auto"

    @property
    def stop_at(self) -> float | None:
        """When running tasks must be asked to stop; None: nothing ends us."""
        if self.ends.at is None:
            return None
        return drain.last_moment(self.ends.at, self.ends.at - self._since, self.soft_stop_s)

    def uncounted_s(self, now: float) -> float:
        """How long the allocation has been held that nobody has counted yet."""
        since = self.starts_at if self.counts_from is None else self.counts_from
        return 0.0 if since is None else max(0.0, now - since)

    def clock(self, now: float) -> Clock:
        """The time that tasks have."""
        if self.stop_at is None:
            return Clock(now)
        return Clock(now, self.stop_at - now, self._whole_s)

    def ending(self, end: End, at: float | None) -> "Terms":
        """The same with an end moved; None: that end is gone."""
        return replace(self, ends=self.ends.moved(end, at))

    @property
    def _whole_s(self) -> float | None:
        """How long an allocation like this one has for tasks: a window for maintenance is none of its own length."""
        ends = [at for end, at in self.ends.moments.items() if end in {End.ALLOCATION, End.WALLTIME}]
        if not ends:
            return None
        return drain.last_moment(min(ends), min(ends) - self._since, self.soft_stop_s) - self._since

    @property
    def _since(self) -> float:
        return self.began_at if self.starts_at is None else self.starts_at


def terms_of(config: Config, *, began_at: float, starts_at: float | None, ends: Ends) -> Terms:
    """What a pilot may use.

    Args:
        config: of the campaign.
        began_at: when the pilot began.
        starts_at, ends: of its allocation; None: there is none, or nobody knows.
    """
    run = config.run
    return Terms(
        cores=run.cores,
        memory_mb=run.memory_mb,
        began_at=began_at,
        starts_at=starts_at,
        ends=ends if run.walltime is None else ends.moved(End.WALLTIME, began_at + run.walltime),
        drain_wait_s=run.drain_wait,
        soft_stop_s=run.soft_stop,
        doubt_s=run.silence + _SLACK_S,
        limits=config.resources.limits(),
        launchers=config.resources.launchers(),
        launcher=run.mpi,
    )


def ends_of(moments: Mapping[str, float]) -> Ends:
    """The inverse of what a plan holds."""
    return Ends({End(end): at for end, at in moments.items()})
