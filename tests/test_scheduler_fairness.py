"""Wide tasks and small ones side by side: none starves, and nodes that wait for a wide task are used meanwhile."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import Resources, Task
from db.states import TaskKind, TaskState, Verdict
from pilot.scheduler.claim import Claim, claim
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import PATIENCE_S, Clock
from pilot.scheduler.pool import Pool
from pilot.scheduler.reactor import Reactor

NODES, CORES = 4, 8
SMALL, WIDE = Resources(ranks=2), Resources(ranks=NODES * CORES, nodes=NODES)


@dataclass
class Started:
    """A task, and when it was added and was started."""

    task: Task
    added: float
    at: float | None = None


class Simulation:
    """An allocation in simulated time. Tasks of a stream are followed by one of their like when they start."""

    def __init__(self, nodes: int = NODES) -> None:
        self.now = 0.0
        self.tasks: dict[int, Started] = {}
        self.reactor = Reactor()
        self._ends: list[tuple[float, int]] = []
        self._lasts: dict[int, Callable[[], float]] = {}
        self._streams: set[int] = set()
        for number in range(nodes):
            self.reactor.node_joined(Node(f"n{number}", tuple(range(CORES)), 8000))

    def add(
        self,
        resources: Resources,
        lasts: Callable[[], float],
        *,
        priority: int = 0,
        request: float | None = None,
        stream: bool = False,
    ) -> int:
        task_id = len(self.tasks) + 1
        task = Task(
            task_id, TaskKind.COMMAND, "command", "", TaskState.READY, {}, None, priority, resources, 0, request
        )
        self.tasks[task_id] = Started(task, self.now)
        self._lasts[task_id] = lasts
        self._streams |= {task_id} if stream else set()
        self.reactor.add([task], [])
        return task_id

    def schedule(self, left: float | None = None) -> list[int]:
        placements, _ = self.reactor.schedule(Clock(self.now, left))
        for placement in placements:
            started = self.tasks[placement.task_id]
            started.at = self.now
            heapq.heappush(self._ends, (self.now + self._lasts[placement.task_id](), placement.task_id))
            if placement.task_id in self._streams:
                task = started.task
                self.add(
                    task.resources,
                    self._lasts[task.id],
                    priority=task.priority,
                    request=task.time_request_s,
                    stream=True,
                )
        return [placement.task_id for placement in placements]

    def step(self) -> list[int]:
        """Until the next end."""
        self.now, task_id = heapq.heappop(self._ends)
        self.reactor.attempt_ended(task_id, Verdict.DONE, "", None)
        return self.schedule()

    def run_until(self, at: float) -> None:
        self.schedule()
        while self._ends and self._ends[0][0] <= at:
            self.step()

    def waited(self, task_id: int) -> float | None:
        started = self.tasks[task_id]
        return None if started.at is None else started.at - started.added


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("wide_lasts", [10.0, 1000.0])
def test_a_stream_of_small_tasks_does_not_starve_a_wide_one(known: bool, wide_lasts: float) -> None:
    chance = random.Random(1)
    simulation = Simulation()
    for _ in range(30):
        simulation.add(SMALL, lambda: chance.uniform(50.0, 100.0), request=100.0 if known else None, stream=True)
    simulation.run_until(500.0)
    wide = simulation.add(WIDE, lambda: wide_lasts, request=wide_lasts if known else None)
    simulation.run_until(5000.0)
    waited = simulation.waited(wide)
    # its patience, and until what ran then has ended
    assert waited is not None
    assert waited <= PATIENCE_S + 100.0 + 100.0
    # and the small ones go on when it is through
    assert max(started.at or 0.0 for started in simulation.tasks.values()) > 4800.0


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("small_lasts", [10.0, 1000.0])
def test_a_stream_of_wide_tasks_does_not_starve_a_small_one(known: bool, small_lasts: float) -> None:
    simulation = Simulation()
    for _ in range(3):
        simulation.add(WIDE, lambda: 300.0, request=300.0 if known else None, stream=True)
    simulation.run_until(100.0)
    small = simulation.add(SMALL, lambda: small_lasts, request=small_lasts if known else None)
    simulation.run_until(5000.0)
    waited = simulation.waited(small)
    assert waited is not None
    assert waited <= PATIENCE_S + 300.0 + 300.0
    assert max(started.at or 0.0 for started in simulation.tasks.values()) > 4500.0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Resources(1), Resources(3), Resources(2, 4), Resources(8, nodes=2), WIDE]),
            st.sampled_from([20.0, 200.0, 900.0]),
            st.booleans(),
        ),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    st.integers(0, 1000),
)
def test_of_streams_of_all_kinds_none_starves(streams: list[tuple[Resources, float, bool]], seed: int) -> None:
    chance = random.Random(seed)
    simulation = Simulation()
    last: dict[tuple[Resources, float | None], float] = {}
    for resources, seconds, known in streams:
        for _ in range(40):
            simulation.add(
                resources,
                lambda seconds=seconds: chance.uniform(0.5, 1.3) * seconds,  # type: ignore[misc]
                request=seconds if known else None,
                stream=True,
            )
        last[resources, seconds if known else None] = 0.0
    # each other stream may go first once, and what runs then may be long
    longest = (PATIENCE_S + 2 * 900.0 * 1.3) * (len(streams) + 1)
    end = 1.5 * longest
    simulation.run_until(end)
    for started in sorted(simulation.tasks.values(), key=lambda started: started.at or 0.0):
        if started.at is not None:
            key = (started.task.resources, started.task.time_request_s)
            assert started.at - last[key] <= longest, key
            last[key] = started.at
    assert all(end - at <= longest for at in last.values())


def test_small_tasks_use_the_nodes_that_wait_for_a_wide_one_if_they_end_in_time() -> None:
    simulation = Simulation()
    holder = simulation.add(Resources(ranks=1), lambda: 100.0, request=100.0, priority=2)
    assert simulation.schedule() == [holder]
    wide = simulation.add(WIDE, lambda: 10.0, request=10.0, priority=1)
    short = [simulation.add(Resources(ranks=1), lambda: 50.0, request=50.0) for _ in range(40)]
    for _ in range(40):
        simulation.add(Resources(ranks=1), lambda: 90.0, request=90.0)
    # 90 s and a margin are too long: they would keep the wide one waiting
    assert simulation.schedule() == short[:31]
    simulation.run_until(100.0)
    assert simulation.tasks[wide].at == 100.0


def test_other_nodes_than_those_that_are_kept_are_free_for_all() -> None:
    simulation = Simulation()
    for number in range(NODES):
        simulation.add(Resources(ranks=5), lambda number=number: 100.0 + number, request=100.0 + number, priority=2)  # type: ignore[misc]
    first = simulation.schedule()
    ends = {
        simulation.reactor.running[task_id].slot.node: simulation.reactor.running[task_id].ends_at for task_id in first
    }
    wide = simulation.add(Resources(ranks=16, nodes=2), lambda: 10.0, request=10.0, priority=1)
    long = [simulation.add(Resources(ranks=1), lambda: 900.0, request=900.0) for _ in range(20)]
    started = simulation.schedule()
    # three cores on each of the two nodes that will be free last
    assert started == long[:6]
    used = {simulation.reactor.running[task_id].slot.node for task_id in started}
    assert used == set(sorted(ends, key=lambda name: ends[name] or 0.0)[2:])
    simulation.run_until(200.0)
    assert simulation.tasks[wide].at == 101.0


def test_nodes_are_not_kept_for_what_could_not_end_before_the_allocation_does() -> None:
    simulation = Simulation(nodes=1)
    simulation.add(Resources(ranks=1), lambda: 100.0, request=100.0, priority=2)
    simulation.schedule()
    simulation.add(Resources(ranks=CORES), lambda: 80.0, request=80.0, priority=1)
    small = simulation.add(Resources(ranks=1), lambda: 120.0, request=120.0)
    # in 100 s the wide one could start, but only 50 s would be left
    assert simulation.schedule(left=150.0) == [small]


def test_what_has_been_kept_free_is_not_given_up_for_another_node() -> None:
    """Nobody knows how long these tasks take: the nodes of the claim stay the same until it is met."""
    pool = Pool([Node(f"n{number}", tuple(range(CORES)), 8000) for number in range(3)])
    slots = {name: pool.place(Resources(ranks=4), but=pool.nodes.keys() - {name}) for name in pool.nodes for _ in "12"}
    wide = Resources(ranks=2 * CORES, nodes=2)
    before = claim(wide, pool, 0.0)
    assert before is not None
    assert before.nodes == {"n0", "n1"}
    slot = slots["n2"]
    assert slot is not None
    pool.give_back(slot)
    assert claim(wide, pool, 1.0, before) == Claim(wide, before.nodes, 1.0)
    other = claim(wide, pool, 1.0)
    assert other is not None
    assert "n2" in other.nodes
    # a node that is gone is replaced
    pool.remove("n0")
    assert claim(wide, pool, 1.0, before) == Claim(wide, frozenset({"n1", "n2"}), 1.0)
    pool.remove("n1")
    assert claim(wide, pool, 1.0, before) is None
