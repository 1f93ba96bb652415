"""Which ready task starts next, and where. Pure.

By priority; among equals the longest first while time is plenty, the shortest first in the tail of an
allocation. Nothing starts that would not end in time. The first task that finds no room holds a node: smaller
ones pass it only where they cannot delay it (EASY backfilling; Lifka, JSSPP 1995).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from db.records import Resources
from pilot.scheduler.nodes import Pool, Slot
from pilot.scheduler.ready import Ready, Shape
from pilot.scheduler.times import Times

#: What a task is expected to need is multiplied by this before it is compared with the time left.
MARGIN = 1.2
#: The tail of an allocation: when less than this many of the longest ready tasks would fit one after another.
TAIL = 2.0


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
class Reservation:
    """A node that is held for a task which finds no room yet."""

    node: str
    from_s: float


def choose(ready: Ready, pool: Pool, times: Times, running: Mapping[int, Running], clock: "Clock") -> list[Placement]:
    """Take tasks from ``ready`` into slots of ``pool`` until nothing more may start.

    Args:
        ready: the ready tasks; those that are placed are removed.
        pool: the nodes; the slots are taken.
        times: how long tasks need.
        running: the slots in use, by task.
        clock: now, and how long there is.
    """
    placements: list[Placement] = []
    # the usual case of a loop that is asked often: then the shapes need not be put in order
    if pool.is_full():
        return placements
    busy = dict(running)
    reservation: Reservation | None = None
    for shape in _in_order(ready, times, clock):
        expected = times.expected(shape.kind, shape.size, shape.time_request_s)
        if not clock.allows(expected):
            continue
        while (task_id := ready.first(shape)) is not None:
            slot = _slot_for(shape.resources, expected, pool, reservation, clock.now)
            if slot is None:
                break
            ready.remove(task_id)
            placements.append(Placement(task_id, slot, expected))
            busy[task_id] = Running(slot, None if expected is None else clock.now + expected)
        if ready.first(shape) is not None and reservation is None:
            reservation = _reserve(shape.resources, pool, busy, clock.now)
    return placements


@dataclass(frozen=True, slots=True)
class Clock:
    """Now, and the seconds that are left (None: no end is near)."""

    now: float
    left_s: float | None = None

    def allows(self, expected_s: float | None) -> bool:
        """Whether a task that is expected to need this may still start."""
        if self.left_s is None:
            return True
        return (expected_s or 0.0) * MARGIN <= self.left_s


def _in_order(ready: Ready, times: Times, clock: Clock) -> list[Shape]:
    shapes = [(shape, times.expected(shape.kind, shape.size, shape.time_request_s)) for shape in ready.shapes()]
    longest = max((expected or 0.0 for _, expected in shapes), default=0.0)
    in_the_tail = clock.left_s is not None and clock.left_s < TAIL * longest * MARGIN
    sign = 1.0 if in_the_tail else -1.0

    def rank(item: tuple[Shape, float | None]) -> tuple[int, float, int, int]:
        shape, expected = item
        # tasks of which nothing is known go by their width: what is hard to place goes first
        return (-shape.priority, sign * (expected or 0.0), -shape.resources.cores, ready.first(shape) or 0)

    return [shape for shape, _ in sorted(shapes, key=rank)]


def _slot_for(
    resources: Resources, expected: float | None, pool: Pool, reservation: Reservation | None, now: float
) -> Slot | None:
    if reservation is None:
        return pool.place(resources)
    ends_in_time = expected is not None and now + expected * MARGIN <= reservation.from_s
    return pool.place(resources, but=None if ends_in_time else reservation.node)


def _reserve(resources: Resources, pool: Pool, busy: Mapping[int, Running], now: float) -> Reservation | None:
    """Where a task that finds no room will find it first, and when; None if no node could ever hold it."""
    best: Reservation | None = None
    for node in pool.nodes.values():
        if not node.could_hold(resources):
            continue
        from_s = _room_from(resources, node.name, pool, busy, now)
        if best is None or from_s < best.from_s:
            best = Reservation(node.name, from_s)
    return best


def _room_from(resources: Resources, name: str, pool: Pool, busy: Mapping[int, Running], now: float) -> float:
    node = pool.nodes[name]
    cores, gpus, memory = len(node.free_cores), len(node.free_gpus), node.free_memory_mb
    here = [held for held in busy.values() if held.slot.node == name]
    # an attempt whose end nobody knows, or that is overdue, may end at any moment: it adds no time, so that
    # nothing passes on the strength of a long wait that may be short
    here.sort(key=lambda held: float("inf") if held.ends_at is None else held.ends_at)
    wanted = node.memory_of(resources)
    at = now
    for held in here:
        if resources.cores <= cores and resources.gpus <= gpus and wanted <= memory:
            break
        at = at if held.ends_at is None else max(at, held.ends_at)
        cores += len(held.slot.cores)
        gpus += len(held.slot.gpus)
        memory += held.slot.memory_mb
    return at
