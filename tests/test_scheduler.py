"""The scheduler's promises, for any tasks, edges, nodes and ends that hypothesis can think of."""

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import InputError, StateError
from db.records import Edge, Resources, Share, Task
from db.states import TERMINAL, EdgeKind, Event, TaskKind, TaskState, Verdict, dooms, releases
from db.task_table import refuse_circle
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock, Placement
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.times import Times

VERDICTS = [verdict for verdict in Verdict if verdict is not Verdict.CANCELLED]


def a_task(task_id: int, state: TaskState = TaskState.READY, **more: object) -> Task:
    return Task(task_id, TaskKind.LABEL, "qe", f"task {task_id}", state, {}, **more)  # type: ignore[arg-type]


some_resources = st.builds(
    lambda ranks, threads, gpus, memory_mb, nodes: Resources(ranks * nodes, threads, gpus, memory_mb, nodes),
    ranks=st.integers(1, 5),
    threads=st.integers(1, 2),
    gpus=st.integers(0, 1),
    memory_mb=st.sampled_from([0, 100, 900]),
    nodes=st.sampled_from([1, 1, 2, 3]),
)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Task], list[Edge]]:
    count = draw(st.integers(1, 14))
    edges = [
        Edge(child, parent, draw(st.sampled_from(EdgeKind)))
        for child in range(2, count + 1)
        for parent in draw(st.sets(st.integers(1, child - 1), max_size=3))
    ]
    held = {edge.child for edge in edges}
    tasks = [
        a_task(
            number,
            TaskState.WAITING if number in held else TaskState.READY,
            priority=draw(st.integers(0, 2)),
            resources=draw(some_resources),
            time_request_s=draw(st.sampled_from([None, 1.0, 50.0])),
        )
        for number in range(1, count + 1)
    ]
    return tasks, edges


pools = st.lists(st.tuples(st.integers(1, 10), st.sampled_from([500, 1000]), st.integers(0, 2)), min_size=1, max_size=3)


def nodes_of(drawn: Iterable[tuple[int, int, int]]) -> list[Node]:
    return [
        Node(f"n{i}", tuple(range(cores)), memory, tuple(range(gpus))) for i, (cores, memory, gpus) in enumerate(drawn)
    ]


def shares_on(reactor: Reactor, name: str) -> list[Share]:
    return [share for running in reactor.running.values() for share in running.slot.shares if share.node == name]


def check_books(reactor: Reactor, pool: list[Node]) -> None:
    """What runs on each node is what the node thinks is held, and no more than there is."""
    for node in pool:
        here = shares_on(reactor, node.name)
        cores = [core for share in here for core in share.cores]
        gpus = [gpu for share in here for gpu in share.gpus]
        assert sorted([*cores, *node.free_cores]) == list(node.cores)
        assert sorted([*gpus, *node.free_gpus]) == list(node.gpus)
        assert sum(share.memory_mb for share in here) + node.free_memory_mb == node.memory_mb
        assert node.free_memory_mb >= 0


class World:
    """A reactor with a memory of its own, by which the reactor's is checked."""

    def __init__(self, tasks: list[Task], edges: list[Edge], pool: list[Node]) -> None:
        self.reactor = Reactor()
        self.pool = pool
        self.edges = edges
        self.tasks = {task.id: task for task in tasks}
        self.states = {task.id: task.state for task in tasks}
        self.reactor.add(tasks, edges)
        for node in pool:
            self.reactor.node_joined(node)

    def follow(self, transitions: Iterable[object]) -> None:
        for transition in transitions:
            assert self.states[transition.task_id] is transition.before  # type: ignore[attr-defined]
            self.states[transition.task_id] = transition.after  # type: ignore[attr-defined]

    def start(self, now: float = 0.0, left: float | None = None) -> list[Placement]:
        placements, transitions = self.reactor.schedule(Clock(now, left))
        for placement in placements:
            for edge in self.edges:
                if edge.child == placement.task_id:
                    assert releases(edge.kind, self.states[edge.parent])
        self.follow(transitions)
        for placement in placements:
            asked = self.tasks[placement.task_id].resources
            shares = placement.slot.shares
            assert len({share.node for share in shares}) == len(shares) == asked.nodes
            assert {len(share.cores) for share in shares} == {asked.cores_per_node}
            assert {len(share.gpus) for share in shares} == {asked.gpus}
        check_books(self.reactor, self.pool)
        return placements

    def end(self, task_id: int, verdict: Verdict) -> None:
        self.follow(self.reactor.attempt_ended(task_id, verdict, "", 1.0).transitions)


@settings(max_examples=150, deadline=None)
@given(graphs(), pools, st.data())
def test_whatever_happens_nothing_overlaps_nothing_starves_and_edges_hold(
    graph: tuple[list[Task], list[Edge]], drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    world = World(*graph, nodes_of(drawn))
    now = 0.0
    for _ in range(400):
        world.start(now)
        if not world.reactor.running:
            break
        running = sorted(world.reactor.running)
        world.end(data.draw(st.sampled_from(running)), data.draw(st.sampled_from(VERDICTS)))
        now += 1.0
    else:
        # only interruptions cost nothing: to come here they must have been drawn again and again
        return
    assert world.reactor.idle()
    for task_id, state in world.states.items():
        why_not = world.reactor.pool.why_never(world.tasks[task_id].resources)
        doomed = task_id in world.reactor.graph.doomed
        parents = [edge.parent for edge in world.edges if edge.child == task_id]
        behind_impossible = any(world.states[parent] not in TERMINAL for parent in parents)
        assert state in TERMINAL or why_not or doomed or behind_impossible
        if doomed:
            assert state is TaskState.WAITING
            assert any(
                dooms(edge.kind, world.states[edge.parent]) or edge.parent in world.reactor.graph.doomed
                for edge in world.edges
                if edge.child == task_id
            )


@settings(max_examples=50, deadline=None)
@given(graphs(), pools)
def test_a_cancelled_parent_is_seen_by_its_children(
    graph: tuple[list[Task], list[Edge]], drawn: list[tuple[int, int, int]]
) -> None:
    world = World(*graph, nodes_of(drawn))
    world.follow(world.reactor.cancel([1], "").transitions)
    for edge in world.edges:
        if edge.parent == 1:
            if edge.kind is EdgeKind.DONE:
                assert world.reactor.graph.doomed[edge.child]
            elif all(other.parent == 1 for other in world.edges if other.child == edge.child):
                assert world.states[edge.child] is TaskState.READY


def test_a_task_that_needs_the_whole_node_is_not_passed_for_ever_by_small_ones() -> None:
    small = [a_task(i, time_request_s=100.0) for i in range(1, 101)]
    large = a_task(101, resources=Resources(ranks=4), time_request_s=1.0)
    world = World([*small, large], [], [Node("n0", (0, 1, 2, 3), 1000)])
    now = 0.0
    started = [placement.task_id for placement in world.start(now)]
    while 101 not in started:
        now += 100.0
        world.end(min(world.reactor.running), Verdict.DONE)
        started += [placement.task_id for placement in world.start(now)]
        assert len(started) <= 101
    # the small ones are longer and go first; but the moment that they are through, not later
    first = a_task(201, resources=Resources(ranks=4), priority=5)
    again = World([*small, first], [], [Node("n0", (0, 1, 2, 3), 1000)])
    assert [placement.task_id for placement in again.start()] == [201]


def test_small_tasks_pass_a_waiting_large_one_only_where_they_cannot_delay_it() -> None:
    running = a_task(1, time_request_s=100.0, priority=9)
    large = a_task(2, resources=Resources(ranks=2), priority=5, time_request_s=50.0)
    short = a_task(3, time_request_s=10.0)
    long = a_task(4, time_request_s=200.0)
    world = World([running], [], [Node("n0", (0, 1), 1000)])
    world.start()
    for task in (large, short, long):
        world.reactor.add([task], [])
        world.tasks[task.id], world.states[task.id] = task, task.state
    assert [placement.task_id for placement in world.start(now=1.0)] == [3]


def test_nothing_starts_that_would_not_end_in_time() -> None:
    tasks = [a_task(1, time_request_s=100.0), a_task(2, time_request_s=10.0), a_task(3)]
    world = World(tasks, [], [Node("n0", (0, 1, 2), 1000)])
    assert {placement.task_id for placement in world.start(left=20.0)} == {2, 3}


def test_the_longest_goes_first_while_time_is_plenty_and_the_shortest_in_the_tail() -> None:
    tasks = [a_task(i, time_request_s=float(10 * i), size=i) for i in range(1, 6)]
    node = Node("n0", (0,), 1000)
    assert World(tasks, [], [node]).start(left=10_000.0)[0].task_id == 5
    assert World(tasks, [], [Node("n0", (0,), 1000)]).start(left=70.0)[0].task_id == 1


def test_times_are_learned_by_kind_and_size() -> None:
    times = Times({TaskKind.LABEL: 60.0})
    assert times.expected(TaskKind.LABEL, 4) == 60.0
    assert times.expected(TaskKind.LABEL, 4, 30.0) == 30.0
    for wall in (1.0, 2.0, 9.0):
        times.learn(TaskKind.LABEL, 4, wall)
    assert times.expected(TaskKind.LABEL, 4, 30.0) == 9.0
    assert times.expected(TaskKind.LABEL, 8, 30.0) == 30.0
    for _ in range(97):
        times.learn(TaskKind.LABEL, 4, 2.0)
    assert times.expected(TaskKind.LABEL, 4) == 2.0
    times.learn(TaskKind.COMMAND, 0, 5.0)
    assert times.expected(TaskKind.COMMAND, 0) is None


def test_a_task_larger_than_any_node_is_told_so() -> None:
    world = World([a_task(1, resources=Resources(ranks=9))], [], [Node("n0", (0, 1), 1000)])
    assert world.start() == []
    assert world.reactor.idle()
    assert world.reactor.why_waiting(Clock(0.0)) == {
        TaskKind.LABEL: {"needs 9 cores on one node; the largest node has 2 cores": 1}
    }


def test_a_task_of_more_nodes_than_there_are_is_told_so() -> None:
    nodes = [Node("n0", (0, 1), 1000), Node("n1", (0, 1), 1000), Node("n2", (0,), 1000)]
    world = World([a_task(1, resources=Resources(ranks=6, nodes=3))], [], nodes)
    assert world.start() == []
    assert world.reactor.idle()
    assert world.reactor.why_waiting(Clock(0.0)) == {TaskKind.LABEL: {"needs 3 nodes of 2 cores; there are 2": 1}}
    assert world.reactor.pool.why_never(Resources(ranks=4, nodes=2)) == ""
    assert world.reactor.pool.why_never(Resources(6, gpus=1, memory_mb=10, nodes=2)) == (
        "needs 2 nodes of 3 cores, 10 MB, 1 GPUs; there are none"
    )


@pytest.mark.parametrize(
    ("verdict", "attempts"),
    [(Verdict.CRASHED, 3), (Verdict.NOT_CONVERGED, 3), (Verdict.BAD_INPUT, 1), (Verdict.INFRASTRUCTURE, 4)],
)
def test_a_task_that_fails_is_tried_again_within_its_budget(verdict: Verdict, attempts: int) -> None:
    world = World([a_task(1)], [], [Node("n0", (0,), 1000)])
    for _ in range(attempts):
        assert world.states[1] is TaskState.READY
        world.start()
        world.end(1, verdict)
    assert world.states[1] is TaskState.FAILED


def test_an_interruption_costs_no_retry() -> None:
    world = World([a_task(1)], [], [Node("n0", (0,), 1000)])
    for _ in range(20):
        world.start()
        world.end(1, Verdict.INTERRUPTED)
    assert world.states[1] is TaskState.READY


def test_a_task_that_ran_out_of_memory_gets_twice_as_much() -> None:
    world = World([a_task(1, resources=Resources(memory_mb=300))], [], [Node("n0", (0,), 1000)])
    world.start()
    outcome = world.reactor.attempt_ended(1, Verdict.OUT_OF_MEMORY, "", 1.0)
    assert outcome.resources[1].memory_mb == 600
    assert world.reactor.schedule(Clock(0.0))[0][0].slot.memory_mb == 600


def test_of_several_nodes_each_has_to_have_the_memory() -> None:
    nodes = [Node("n0", (0, 1), 1000), Node("n1", (0, 1), 800), Node("n2", (0, 1), 500)]
    world = World([a_task(1, resources=Resources(ranks=4, memory_mb=450, nodes=2))], [], nodes)
    world.start()
    assert world.reactor.attempt_ended(1, Verdict.OUT_OF_MEMORY, "", 1.0).resources[1].memory_mb == 800
    assert [share.memory_mb for share in world.reactor.schedule(Clock(0.0))[0][0].slot.shares] == [800, 800]


def test_a_revived_task_holds_its_children_again() -> None:
    tasks = [a_task(1), a_task(2, TaskState.WAITING), a_task(3, TaskState.WAITING)]
    edges = [Edge(2, 1, EdgeKind.DONE), Edge(3, 1, EdgeKind.ENDED)]
    world = World(tasks, edges, [Node("n0", (0,), 1000)])
    world.start()
    world.end(1, Verdict.BAD_INPUT)
    assert world.reactor.graph.doomed == {2: 1}
    assert world.states[3] is TaskState.READY
    outcome = world.reactor.revive(a_task(1, TaskState.FAILED), [], edges)
    world.follow(outcome.transitions)
    assert world.states == {1: TaskState.READY, 2: TaskState.WAITING, 3: TaskState.WAITING}
    assert world.reactor.graph.doomed == {}
    world.start()
    world.end(1, Verdict.DONE)
    assert {world.states[2], world.states[3]} <= {TaskState.READY}


def test_what_has_ended_cannot_be_cancelled() -> None:
    world = World([a_task(1), a_task(2)], [], [Node("n0", (0,), 1000)])
    world.start()
    world.end(1, Verdict.DONE)
    with pytest.raises(StateError, match="task 1 has ended"):
        world.reactor.cancel([2, 1], "")
    assert world.states[2] is TaskState.READY


def test_a_released_task_starts_though_its_parents_run_on() -> None:
    tasks = [a_task(1), a_task(2), a_task(3, TaskState.WAITING)]
    world = World(tasks, [Edge(3, 1, EdgeKind.ENDED), Edge(3, 2, EdgeKind.ENDED)], [Node("n0", (0, 1, 2), 1000)])
    world.start()
    world.follow(world.reactor.graph.release(3, "enough"))
    world.edges.clear()
    assert [placement.task_id for placement in world.start()] == [3]
    world.end(1, Verdict.DONE)
    world.end(2, Verdict.DONE)
    assert world.states[3] is TaskState.RUNNING


def test_a_circle_is_refused() -> None:
    refuse_circle([Edge(2, 1), Edge(3, 2), Edge(4, 2), Edge(4, 3)])
    with pytest.raises(InputError, match="circle"):
        refuse_circle([Edge(1, 3), Edge(2, 1), Edge(3, 2)])


def test_every_event_of_the_reactor_is_in_the_table() -> None:
    world = World([a_task(1)], [], [Node("n0", (0,), 1000)])
    _, transitions = world.reactor.schedule(Clock(0.0))
    assert [transition.event for transition in transitions] == [Event.STARTED]


def test_a_hundred_thousand_waiting_tasks_fit_into_little_memory() -> None:
    tracemalloc.start()
    reactor = Reactor()
    reactor.add(
        (a_task(number, TaskState.WAITING if number > 1 else TaskState.READY) for number in range(1, 100_001)),
        (Edge(number, 1, EdgeKind.DONE) for number in range(2, 100_001)),
    )
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 80e6
    reactor.node_joined(Node("n0", (0,), 1000))
    reactor.schedule(Clock(0.0))
    assert len(reactor.attempt_ended(1, Verdict.DONE, "", 1.0).transitions) == 100_000
