"""The tasks that may start, grouped by what they ask for. Pure.

A hundred thousand labels ask for the same thing: grouped, a decision costs the number of shapes, not of tasks.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db.records import Resources
from db.states import TaskKind


@dataclass(frozen=True, slots=True)
class Shape:
    """What tasks of one group have in common.

    Attributes:
        at_least_s: so long they have run before they were interrupted, and would start over.
        piece_s: after so long an attempt that is interrupted loses nothing: the next one goes on from there. None: it
            starts over.
    """

    priority: int
    kind: TaskKind
    resources: Resources
    size: int = 0
    time_request_s: float | None = None
    at_least_s: float = 0.0
    piece_s: float | None = None


class Ready:
    """The ready tasks; within a shape the lowest id first."""

    def __init__(self) -> None:
        self._heaps: dict[Shape, list[int]] = {}
        self._shape_of: dict[int, Shape] = {}
        self._counts: Counter[Shape] = Counter()

    def __len__(self) -> int:
        return len(self._shape_of)

    def add(self, task_id: int, shape: Shape) -> None:
        """A task has become ready."""
        self.remove(task_id)
        self._shape_of[task_id] = shape
        self._counts[shape] += 1
        heapq.heappush(self._heaps.setdefault(shape, []), task_id)

    def remove(self, task_id: int) -> None:
        """A task is no longer ready; its place in the heap is skipped when it comes up."""
        shape = self._shape_of.pop(task_id, None)
        if shape is None:
            return
        self._counts[shape] -= 1
        if not self._counts[shape]:
            del self._counts[shape]

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._shape_of

    @contextmanager
    def without(self, task_ids: Iterable[int]) -> Iterator[None]:
        """For a while, as if these ready tasks were not."""
        aside = [(task_id, self._shape_of[task_id]) for task_id in task_ids]
        for task_id, _ in aside:
            self.remove(task_id)
        try:
            yield
        finally:
            for task_id, shape in aside:
                self.add(task_id, shape)
            for shape in {shape for _, shape in aside}:
                # done again and again, the places that are skipped would add up
                self._heaps[shape] = sorted({each for each in self._heaps[shape] if self._shape_of.get(each) == shape})

    def shapes(self) -> Iterator[Shape]:
        """The shapes that have a ready task."""
        return (shape for shape, _ in self.firsts())

    def firsts(self) -> Iterator[tuple[Shape, int]]:
        """The shapes that have a ready task, each with the next one."""
        for shape in list(self._heaps):
            first = self.first(shape)
            if first is not None:
                yield shape, first

    def first(self, shape: Shape) -> int | None:
        """The next task of a shape."""
        heap = self._heaps.get(shape)
        while heap:
            if self._shape_of.get(heap[0]) == shape:
                return heap[0]
            heapq.heappop(heap)
        self._heaps.pop(shape, None)
        return None

    def count(self, shape: Shape) -> int:
        """How many tasks of a shape there are."""
        return self._counts[shape]
