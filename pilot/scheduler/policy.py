"""Which ready task starts next, and where. Pure.

By priority; among equals the longest first while time is plenty, the shortest first in the tail of an
allocation. Nothing starts that would not end in time. The first task that finds no room claims the nodes that will
have room first: others pass it only where they cannot delay it (EASY backfilling; Lifka, JSSPP 1995). Who was passed
for long goes first among its equals: so neither a stream of small tasks nor one of wide tasks starves the others.
"""

from collections.abc import Collection
from dataclasses import dataclass

from db.records import Resources
from pilot.scheduler.claim import Claim, claim
from pilot.scheduler.nodes import Slot
from pilot.scheduler.pool import Pool
from pilot.scheduler.ready import Ready, Shape
from pilot.scheduler.times import LONGER, Times

#: What a task is expected to need is multiplied by this before it is compared with the time left.
MARGIN = 1.2
#: The tail of an allocation: when less than this many of the longest ready tasks would fit one after another.
TAIL = 2.0
#: So long tasks of one shape let others of their priority pass, in seconds.
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Placement:
    """A task that is to start in a slot."""

    task_id: int
    slot: Slot
    expected_s: float | None


@dataclass(frozen=True, slots=True)
class Running:
    """A slot in use, and when it is expected to be free again (None: nobody knows)."""

    slot: Slot
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Clock:
    """Now, the seconds that are left, and those that an allocation like this one has in all (None: no end)."""

    now: float
    left_s: float | None = None
    whole_s: float | None = None

    def allows(self, expected_s: float | None, waits_s: float = 0.0) -> bool:
        """Whether a task that is expected to need this may still start, ``waits_s`` from now."""
        if self.left_s is None:
            return True
        return waits_s + (expected_s or 0.0) * MARGIN <= self.left_s

    def ever_allows(self, expected_s: float | None) -> bool:
        """Whether it could be done in an allocation like this one if it started at once."""
        return self.whole_s is None or (expected_s or 0.0) * MARGIN <= self.whole_s


def must_have(shape: Shape, expected_s: float | None, times: Times, clock: Clock) -> float | None:
    """The seconds without which a task of this shape does not start: what it needs, or a piece of it.

    How much more one needs that was interrupted is a guess. Where no allocation holds that, it is tried once more with
    as much as it had (and the margin): it may have begun late in the last one.
    """
    if expected_s is None:
        return None
    if shape.piece_s is not None:
        return min(expected_s, shape.piece_s)
    if not shape.at_least_s or clock.ever_allows(expected_s):
        return expected_s
    return times.expected(shape.kind, shape.size, shape.time_request_s, shape.at_least_s / LONGER)


class Policy:
    """Chooses. It remembers who waits since when, and what is claimed."""

    def __init__(self, pool: Pool, times: Times) -> None:
        self._pool = pool
        self._times = times
        self._waits_since: dict[Shape, float] = {}
        self._claim: Claim | None = None

    def choose(self, ready: Ready, clock: Clock) -> list[Placement]:
        """Take tasks from ``ready`` into slots of the pool until nothing more may start.

        Args:
            ready: the ready tasks; those that are placed are removed.
            clock: now, and how long there is.
        """
        # the usual case of a loop that is asked often: then the shapes need not be put in order
        if self._pool.is_full():
            return []
        turn = _Turn(self._pool, clock, self._claim)
        since: dict[Shape, float] = {}
        for shape, expected in self._in_order(ready, clock):
            least = must_have(shape, expected, self._times, clock)
            if not clock.allows(least) or self._pool.why_never(shape.resources):
                continue
            started = turn.start(ready, shape, expected, least)
            if ready.count(shape):
                since[shape] = clock.now if started else self._waits_since.get(shape, clock.now)
                self._pool.expect(shape.resources)
        self._pool.catch_up()
        self._waits_since = since
        # where nobody had to heed it, it was not worked out
        self._claim = turn.claim or self._claim
        return turn.placements

    def _in_order(self, ready: Ready, clock: Clock) -> list[tuple[Shape, float | None]]:
        shapes = [
            (shape, first, self._times.expected(shape.kind, shape.size, shape.time_request_s, shape.at_least_s))
            for shape, first in ready.firsts()
        ]
        longest = max((expected or 0.0 for _, _, expected in shapes), default=0.0)
        in_the_tail = clock.left_s is not None and clock.left_s < TAIL * longest * MARGIN
        sign = 1.0 if in_the_tail else -1.0

        def rank(item: tuple[Shape, int, float | None]) -> tuple[int, float, float, int, int]:
            shape, first, expected = item
            since = self._waits_since.get(shape, clock.now)
            impatient_since = since if clock.now - since >= PATIENCE_S else clock.now
            # tasks of which nothing is known go by their width: what is hard to place goes first
            return (-shape.priority, impatient_since, sign * (expected or 0.0), -shape.resources.cores, first)

        return [(shape, expected) for shape, _, expected in sorted(shapes, key=rank)]


class _Turn:
    """What is chosen at one moment.

    Attributes:
        placements: what starts.
        claim: what is held for the first task that found no room.
    """

    def __init__(self, pool: Pool, clock: Clock, before: Claim | None) -> None:
        self.placements: list[Placement] = []
        self._pool = pool
        self._clock = clock
        self._before = before
        self._blocked: list[tuple[Resources, float | None]] = []
        self.claim: Claim | None = None

    def start(self, ready: Ready, shape: Shape, expected: float | None, least: float | None) -> int:
        """Start as many tasks of a shape as there is room for, and tell how many.

        Args:
            expected: what they need.
            least: without so much time they do not start.
        """
        resources, number = shape.resources, ready.count(shape)
        ends_at = None if expected is None else self._clock.now + expected
        # a claim is worked out only when somebody could disregard it
        if self._pool.has_room(resources):
            but = self._held_back(expected)
            while (task_id := ready.first(shape)) is not None:
                slot = self._pool.place(resources, ends_at=ends_at, but=but)
                if slot is None:
                    break
                ready.remove(task_id)
                self.placements.append(Placement(task_id, slot, expected))
        left = ready.count(shape)
        if left and self.claim is None:
            self._blocked.append((resources, least))
        return number - left

    def _held_back(self, expected: float | None) -> Collection[str]:
        """The nodes on which a task that is expected to need this would delay the one that waits for them."""
        clock = self._clock
        while self.claim is None and self._blocked:
            resources, it_must_have = self._blocked.pop(0)
            found = claim(resources, self._pool, clock.now, self._before)
            # what could not end before the allocation does is not waited for
            if found is not None and clock.allows(it_must_have, found.from_s - clock.now):
                self.claim = found
        if self.claim is None:
            return frozenset()
        ends_in_time = expected is not None and clock.now + expected * MARGIN <= self.claim.from_s
        return frozenset() if ends_in_time else self.claim.nodes
