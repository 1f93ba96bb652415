"""What a decision of the scheduler costs: simulated nodes of 256 cores, 100 000 tasks, no cluster and no clock.

    python benchmarks/scheduler.py --nodes 10 30 100 300 1000 --tasks 100000

An event is the end of one attempt and all that is decided because of it: what follows in the graph, and what starts
on the cores that became free. Its cost is processor time. The time of the allocation is simulated: each task ends when
its random duration says so. Python's collector of garbage is off: its pauses belong to the program, not to an event.
An allocation is measured with small tasks only, and with a task of whole nodes (64, or
half of them) waiting before all of them; as soon as one has ended the next one waits. Such a task takes many nodes at
once, and gives them back at once, for hundreds of small tasks: these events are in the columns after "wide", all
others before.
"""

import argparse
import gc
import heapq
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from db.records import Resources, Task
from db.states import TaskKind, TaskState, Verdict
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.scheduler.reactor import Reactor

CORES = 256
CACHES = tuple(tuple(range(first, first + 16)) for first in range(0, CORES, 16))
BANKS = (tuple(range(128)), tuple(range(128, CORES)))
#: What the tasks ask for, the mean of their seconds, and how many of a hundred are like that.
SHAPES = [
    (Resources(ranks=16), 900.0, 36),
    (Resources(ranks=4, threads=4), 1000.0, 20),
    (Resources(ranks=8), 700.0, 20),
    (Resources(ranks=1), 800.0, 10),
    (Resources(ranks=1, threads=12, memory_mb=40_000), 850.0, 6),
    (Resources(ranks=32), 500.0, 5),
    (Resources(ranks=64), 400.0, 2),
    (Resources(ranks=512, nodes=2), 450.0, 1),
]
WIDE, WIDE_S = 64, 300.0


@dataclass
class Measured:
    """Milliseconds of events, and how many attempts had started when the machine was full for the first time."""

    plain: list[float] = field(default_factory=list)
    wide: list[float] = field(default_factory=list)
    blocked: int = 0
    running: int = 0
    filled_ms: float = 0.0


class Simulation:
    """An allocation in simulated time."""

    def __init__(self, nodes: int, tasks: int, *, wide: bool, known: bool) -> None:
        self._random = random.Random(nodes)
        self._reactor = Reactor()
        self._known = known
        self._wide = Resources(ranks=CORES * min(WIDE, nodes // 2), nodes=min(WIDE, nodes // 2)) if wide else None
        self._last = tasks
        self._ends: list[tuple[float, int]] = []
        self._seconds: dict[int, float] = {}
        self._wide_id = 0
        self.measured = Measured()
        shapes = self._random.choices(range(len(SHAPES)), [weight for *_, weight in SHAPES], k=tasks)
        self._add([self._task(number + 1, shape) for number, shape in enumerate(shapes)])
        for number in range(nodes):
            self._reactor.node_joined(Node(f"n{number:04d}", tuple(range(CORES)), 768_000, (), (CACHES, BANKS)))

    def _task(self, task_id: int, shape: int) -> Task:
        resources, mean, _ = SHAPES[shape]
        self._seconds[task_id] = mean * self._random.uniform(0.5, 1.5)
        request = mean * 1.4 if self._known else None
        return _a_task(task_id, resources, TaskKind.LABEL, size=shape, time_request_s=request)

    def _add(self, tasks: list[Task]) -> None:
        self._reactor.add(tasks, [])

    def run(self) -> Measured:
        """Run until nothing runs any more."""
        self.measured.filled_ms = self._timed(lambda: self._schedule(0.0))
        self.measured.running = len(self._reactor.running)
        self._add_wide()
        while self._ends:
            now, task_id = heapq.heappop(self._ends)
            waited = self._is_waiting()
            took_ms = self._timed(lambda now=now, task_id=task_id: self._event(now, task_id))  # type: ignore[misc]
            whole = task_id == self._wide_id or waited != self._is_waiting()
            (self.measured.wide if whole else self.measured.plain).append(took_ms)
            self.measured.blocked += waited
            if task_id == self._wide_id and len(self._reactor.graph.ready) > 1000:
                self._add_wide()
        return self.measured

    def _timed(self, what: Callable[[], None]) -> float:
        began = time.process_time()
        what()
        return (time.process_time() - began) * 1000

    def _event(self, now: float, task_id: int) -> None:
        self._reactor.attempt_ended(task_id, Verdict.DONE, "", self._seconds[task_id])
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        for placement in self._reactor.schedule(Clock(now))[0]:
            heapq.heappush(self._ends, (now + self._seconds[placement.task_id], placement.task_id))

    def _add_wide(self) -> None:
        if self._wide is None:
            return
        self._last += 1
        self._wide_id = self._last
        self._seconds[self._last] = WIDE_S
        request = WIDE_S if self._known else None
        self._add([_a_task(self._last, self._wide, TaskKind.COMMAND, priority=1, time_request_s=request)])

    def _is_waiting(self) -> bool:
        entry = self._reactor.graph.entries.get(self._wide_id)
        return entry is not None and entry.state is TaskState.READY


def _a_task(task_id: int, resources: Resources, kind: TaskKind, **more: float | None) -> Task:
    return Task(task_id, kind, "command", "", TaskState.READY, {}, resources=resources, **more)  # type: ignore[arg-type]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--tasks", type=int, default=100_000)
    options = parser.parse_args()
    for title, wide, known in (
        ("small tasks only", False, True),
        ("a task of whole nodes waits", True, True),
        ("the same, and nobody has said how long tasks take (they are learned)", True, False),
    ):
        print(f"\n{title}; times in ms\n")
        print(
            f"{'nodes':>6} {'running':>8} {'events':>7} {'median':>7} {'99 %':>7} {'max':>7} {'growth':>7} {'log':>5}"
            f" {'waits':>6} {'wide':>5} {'median':>7} {'max':>7} {'fill/task':>9}"
        )
        first: tuple[int, float] | None = None
        for nodes in options.nodes:
            simulation = Simulation(nodes, options.tasks, wide=wide, known=known)
            gc.collect()
            gc.disable()
            found = simulation.run()
            gc.enable()
            first = first or (nodes, statistics.fmean(found.plain))
            print_row(nodes, found, first)


def print_row(nodes: int, found: Measured, first: tuple[int, float]) -> None:
    """One allocation; ``first`` is the smallest: its number of nodes, and the mean cost of an event there."""
    plain, events = sorted(found.plain), len(found.plain) + len(found.wide)
    growth, log = statistics.fmean(plain) / first[1], math.log(nodes) / math.log(first[0])
    print(
        f"{nodes:6d} {found.running:8d} {events:7d} {statistics.median(plain):7.3f}"
        f" {plain[int(0.99 * len(plain))]:7.3f} {plain[-1]:7.3f} {growth:7.2f} {log:5.2f}"
        f" {found.blocked / events:6.0%} {len(found.wide):5d}"
        f" {statistics.median(found.wide or [math.nan]):7.2f} {max(found.wide, default=math.nan):7.2f}"
        f" {found.filled_ms / found.running:9.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
