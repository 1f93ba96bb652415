"""What a report is made of, as read from the database. Pure: records, no SQL, no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from db.dataset import Generation
from db.records import Json


@dataclass(frozen=True, slots=True)
class Ran:
    """An attempt, without what is long.

    Attributes:
        kind: of its task.
        size: of its task: atoms, for labels.
        shares: node → cores that it held there.
        verdict: "" while it runs.
        resumable: it was interrupted, and what it did was gone on from.
        wall_s: s; of one that runs, None.
    """

    task: int
    kind: str
    size: int
    generation: int | None
    pilot: int
    shares: tuple[tuple[str, int], ...]
    started_at: float
    ended_at: float | None
    verdict: str
    reason: str
    resumable: bool
    wall_s: float | None

    @property
    def cores(self) -> int:
        """On all its nodes together."""
        return sum(cores for _, cores in self.shares)

    def until(self, now: float) -> float:
        """Its end, or ``now`` while it runs."""
        return now if self.ended_at is None else self.ended_at

    def core_s(self, now: float) -> float:
        """Core-seconds that it has held."""
        wall = self.wall_s if self.wall_s is not None else max(0.0, self.until(now) - self.started_at)
        return self.cores * wall


@dataclass(frozen=True, slots=True)
class Done:
    """A successful attempt of which the facts count.

    Attributes:
        id: of the attempt.
        name: of its task.
        directory, archive: where its files lie, as :class:`db.records.Attempt` has them.
    """

    id: int
    key: str
    name: str
    generation: int | None
    facts: Json
    directory: str
    archive: str
    cores: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """The labels that were made with the same settings.

    Attributes:
        name: of the settings; labels with different names do not mix.
        counts: role → labels.
        engine, table: of a task that made one; "" and {} if all were brought by the user.
        sources: engine and version, as recorded with the labels → labels.
    """

    name: str
    counts: Mapping[str, int]
    engine: str = ""
    table: Json = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Records:
    """All that the database tells a report.

    Attributes:
        now: until when what runs is counted: when this was published, s since 1970.
        generations: in their order.
        ran: all attempts, by their ids.
        explored, trained, evaluated: the successful attempts of these kinds, by task.
        pilots: rows of the pilots with ``useful_core_s``, ``failed_core_s`` and ``interrupted_core_s``, oldest first.
        labels: by settings.
        tasks: kind → state → number.
        failed: tasks that failed for good: id, kind, name, and why.
        stage_atoms: stage, from 0 → atoms of its cell.
    """

    now: float
    generations: list[Generation] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    explored: list[Done] = field(default_factory=list)
    trained: list[Done] = field(default_factory=list)
    evaluated: list[Done] = field(default_factory=list)
    pilots: list[dict[str, Any]] = field(default_factory=list)
    labels: list[LabelSettings] = field(default_factory=list)
    tasks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failed: list[tuple[int, str, str, str]] = field(default_factory=list)
    stage_atoms: Mapping[int, int] = field(default_factory=dict)
