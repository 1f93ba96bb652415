"""Which attempts are packed together, and when. Pure.

The newest attempts stay as they are, as people look into their folders. A generation is packed when it is over; what
gathers otherwise (plain commands, a generation with thousands of labels), when there is much of it. So of however many
attempts at most ``KEEP + GATHERED`` that could be packed lie in folders of their own.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: So many of the newest attempts keep their folders.
KEEP = 100
#: So many older ones may gather.
GATHERED = 400
#: One archive takes no more than this: one that is given up on the way, as the pilot ends, is begun anew by the next,
#: which must come further than that on the slowest disk.
MOST_ATTEMPTS = 500
MOST_BYTES = 2_000_000_000
#: What belongs to no generation.
NO_GENERATION = "tasks"


@dataclass(frozen=True, slots=True)
class Packable:
    """An attempt that nothing needs any more, older than the newest ``KEEP``.

    Attributes:
        directory: relative to the campaign folder.
        bytes: what its folder held when it ended.
        generation: the id of its generation.
        place: stage and number of that, from 0.
    """

    id: int
    directory: str
    bytes: int
    generation: int | None = None
    place: tuple[int, int] = (0, 0)

    @property
    def group(self) -> str:
        """What its archive is called after."""
        return NO_GENERATION if self.generation is None else f"s{self.place[0] + 1}g{self.place[1]:02d}"


@dataclass(frozen=True, slots=True)
class Lot:
    """Attempts for one archive, called after ``group``."""

    group: str
    attempts: tuple[Packable, ...]


def choose(packable: Sequence[Packable], busy: Collection[int]) -> Lot | None:
    """What to pack now; None: nothing.

    Args:
        packable: the oldest first.
        busy: generations that still have open tasks, or attempts among the newest.
    """
    groups: dict[int | None, list[Packable]] = {}
    for attempt in packable:
        groups.setdefault(attempt.generation, []).append(attempt)
    over = [group for generation, group in groups.items() if generation is not None and generation not in busy]
    if over:
        return _lot(over[0])
    if len(packable) < GATHERED:
        return None
    return _lot(max(groups.values(), key=len))


def _lot(group: Sequence[Packable]) -> Lot:
    taken: list[Packable] = []
    size = 0
    for attempt in group[:MOST_ATTEMPTS]:
        size += attempt.bytes
        if taken and size > MOST_BYTES:
            break
        taken.append(attempt)
    return Lot(taken[0].group, tuple(taken))


def archive_name(group: str, number: int) -> str:
    """The name of the ``number``-th archive of a group, from 1."""
    return f"{group}.zip" if number == 1 else f"{group}-{number}.zip"
