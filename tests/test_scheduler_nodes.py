"""Nodes: which of them an attempt gets, what is lost with one, and what comes back."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import Resources, Task
from db.states import TaskKind, TaskState, Verdict
from pilot.scheduler.nodes import Node, Slot
from pilot.scheduler.policy import Clock
from pilot.scheduler.pool import Pool
from pilot.scheduler.reactor import Reactor

#: caches of four
QUADS = (((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)),)

some_resources = st.builds(
    lambda ranks, threads, gpus, memory_mb, nodes: Resources(ranks * nodes, threads, gpus, memory_mb, nodes),
    ranks=st.integers(1, 8),
    threads=st.sampled_from([1, 1, 2, 3]),
    gpus=st.sampled_from([0, 0, 1]),
    memory_mb=st.sampled_from([0, 0, 100, 900]),
    nodes=st.sampled_from([1, 1, 1, 2, 3]),
)
some_nodes = st.builds(
    lambda cores, memory_mb, gpus, domains: Node("", tuple(range(cores)), memory_mb, tuple(range(gpus)), domains),
    cores=st.integers(1, 16),
    memory_mb=st.sampled_from([500, 1000]),
    gpus=st.integers(0, 2),
    domains=st.sampled_from([(), QUADS]),
)


def node_like(node: Node, name: str) -> Node:
    return Node(name, node.cores, node.memory_mb, node.gpus, node.domains)


def a_task(task_id: int, resources: Resources = Resources(), **more: object) -> Task:
    return Task(task_id, TaskKind.COMMAND, "command", "", TaskState.READY, {}, resources=resources, **more)  # type: ignore[arg-type]


def a_reactor(nodes: Iterable[Node], tasks: Iterable[Task]) -> Reactor:
    reactor = Reactor()
    for node in nodes:
        reactor.node_joined(node)
    reactor.add(tasks, [])
    return reactor


def names(slot: Slot | None) -> tuple[str, ...]:
    return () if slot is None else slot.nodes


@settings(max_examples=150, deadline=None)
@given(st.lists(some_nodes, min_size=1, max_size=5), st.lists(some_resources, min_size=1, max_size=4), st.data())
def test_the_pool_says_what_a_look_at_every_node_would_say(
    kinds: list[Node], asked: list[Resources], data: st.DataObject
) -> None:
    """Through any starts, ends, losses and returns of nodes."""
    pool, held = Pool(), []
    for _ in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(["join", "join", "lose", "place", "place", "place", "end", "end"]))
        number = data.draw(st.integers(0, len(kinds) - 1))
        if what == "join" and f"n{number}" not in pool.nodes:
            pool.add(node_like(kinds[number], f"n{number}"))
        elif what == "lose":
            pool.remove(f"n{number}")
        elif what == "place":
            resources = data.draw(st.sampled_from(asked))
            fits = [(fit, name) for name, node in pool.nodes.items() if (fit := node.fit(resources)) is not None]
            best = sorted(name for _, name in sorted(fits)[: resources.nodes]) if len(fits) >= resources.nodes else []
            assert pool.has_room(resources) == bool(best)
            slot = pool.place(resources, ends_at=data.draw(st.sampled_from([None, 1.0, 2.0, 3.0])))
            assert list(names(slot)) == best
            held += [slot] if slot is not None else []
        elif held and what == "end":
            pool.give_back(held.pop(data.draw(st.integers(0, len(held) - 1))))
        check_books(pool, asked)
    for slot in held:
        pool.give_back(slot)
    check_books(pool, asked)
    assert pool.busy_cores() == 0
    for node in pool.nodes.values():
        assert node.free_cores == list(node.cores)
        assert (node.free_gpus, node.free_memory_mb) == (list(node.gpus), node.memory_mb)


def check_books(pool: Pool, asked: Iterable[Resources]) -> None:
    nodes = pool.nodes.values()
    assert pool.total_cores() == sum(len(node.cores) for node in nodes)
    assert pool.busy_cores() == sum(len(node.cores) - len(node.free_cores) for node in nodes)
    assert pool.is_full() == (not any(node.free_cores for node in nodes))
    for node in nodes:
        held = [core for one in node.held.values() for core in one.share.cores]
        assert sorted([*held, *node.free_cores]) == list(node.cores)
    for resources in asked:
        holders = [node.name for node in nodes if node.could_hold(resources)]
        assert (pool.why_never(resources) == "") == (len(holders) >= resources.nodes)
        order = pool.forecast(resources).order()
        assert sorted(order) == order
        assert [(key[0], name) for key, name in order] == [
            (pool.nodes[name].room_from(resources), name) for _, name in order
        ]
        assert sorted(name for _, name in order) == sorted(holders)


def test_a_node_where_nothing_straddles_is_preferred() -> None:
    pool = Pool([Node(name, tuple(range(16)), 16_000, domains=QUADS) for name in ("n0", "n1")])
    # on n0 two cores are left in each cache
    for _ in range(8):
        assert names(pool.place(Resources(ranks=2), but={"n1"})) == ("n0",)
    for share in [held.share for held in pool.nodes["n0"].held.values()][::2]:
        pool.give_back(Slot((share,)))
    assert sorted(pool.nodes["n0"].free_cores) == [0, 1, 4, 5, 8, 9, 12, 13]
    assert names(pool.place(Resources(ranks=4))) == ("n1",)
    # what fits everywhere goes to the fuller node
    assert names(pool.place(Resources(ranks=2))) == ("n0",)
    # and what fits nowhere else straddles
    assert names(pool.place(Resources(ranks=6), but={"n1"})) == ("n0",)


def test_a_task_of_several_nodes_gets_all_of_them_or_none() -> None:
    pool = Pool([Node(f"n{number}", tuple(range(4)), 4000, (7, 8)) for number in range(3)])
    one = pool.place(Resources(ranks=2))
    assert names(one) == ("n0",)
    assert pool.place(Resources(ranks=12, nodes=3)) is None
    assert pool.busy_cores() == 2
    two = pool.place(Resources(ranks=4, threads=2, gpus=1, memory_mb=900, nodes=2))
    assert two is not None
    assert two.nodes == ("n1", "n2")
    assert [share.cores for share in two.shares] == [(0, 1, 2, 3)] * 2
    assert [(share.gpus, share.memory_mb) for share in two.shares] == [((7,), 900)] * 2
    assert (two.node, two.gpus, two.memory_mb, len(two.cores)) == ("n1", (7,), 900, 8)
    assert one is not None
    pool.give_back(one)
    pool.give_back(two)
    assert names(pool.place(Resources(ranks=12, nodes=3))) == ("n0", "n1", "n2")


def test_with_a_node_all_tasks_are_lost_that_had_a_share_of_it() -> None:
    nodes = [Node(f"n{number}", (0, 1), 1000) for number in range(3)]
    reactor = a_reactor(nodes, [a_task(1, Resources(4, nodes=2), priority=1), a_task(2, Resources(2))])
    assert [placement.slot.nodes for placement in reactor.schedule(Clock(0.0))[0]] == [("n0", "n1"), ("n2",)]
    assert reactor.node_lost("n1") == [1]
    assert reactor.pool.busy_cores() == 4
    reactor.attempt_ended(1, Verdict.INTERRUPTED, "node lost", None)
    assert reactor.pool.busy_cores() == 2
    assert reactor.schedule(Clock(0.0))[0] == []
    # as soon as the other task has ended there are two nodes again
    reactor.attempt_ended(2, Verdict.DONE, "", 1.0)
    assert [placement.slot.nodes for placement in reactor.schedule(Clock(0.0))[0]] == [("n0", "n2")]


def test_what_no_node_that_is_left_can_hold_is_not_waited_for() -> None:
    nodes = [Node("n0", (0, 1), 1000), Node("n1", (0, 1, 2, 3), 1000)]
    reactor = a_reactor(nodes, [a_task(1, Resources(4)), a_task(2, Resources(4, nodes=2))])
    assert not reactor.idle()
    assert reactor.node_lost("n1") == []
    assert reactor.idle()
    assert reactor.why_waiting(Clock(0.0)) == {
        TaskKind.COMMAND: {
            "needs 4 cores on one node; the largest node has 2 cores": 1,
            "needs 2 nodes of 2 cores; there is 1": 1,
        }
    }
    reactor.node_joined(Node("n1", (0, 1, 2, 3), 1000))
    assert not reactor.idle()


def test_a_node_that_comes_again_owes_nothing_to_what_ran_there_before() -> None:
    reactor = a_reactor([Node("n0", (0, 1), 1000)], [a_task(1, Resources(2)), a_task(2, Resources(2))])
    assert [placement.task_id for placement in reactor.schedule(Clock(0.0))[0]] == [1]
    assert reactor.node_lost("n0") == [1]
    reactor.node_joined(Node("n0", (0, 1), 1000))
    assert [placement.task_id for placement in reactor.schedule(Clock(0.0))[0]] == [2]
    # the end of the first is heard late: the cores are the second's by now
    reactor.attempt_ended(1, Verdict.INTERRUPTED, "node lost", None)
    assert reactor.pool.busy_cores() == 2
    assert reactor.schedule(Clock(0.0))[0] == []
    reactor.attempt_ended(2, Verdict.DONE, "", 1.0)
    assert [placement.task_id for placement in reactor.schedule(Clock(0.0))[0]] == [1]


@settings(max_examples=100, deadline=None)
@given(st.lists(some_nodes, min_size=1, max_size=4), st.lists(some_resources, min_size=1, max_size=15), st.data())
def test_nodes_may_be_lost_at_any_moment(kinds: list[Node], asked: list[Resources], data: st.DataObject) -> None:
    reactor = a_reactor(
        [node_like(kind, f"n{number}") for number, kind in enumerate(kinds)],
        [a_task(number, resources) for number, resources in enumerate(asked, 1)],
    )
    lost: list[int] = []
    for now in range(data.draw(st.integers(1, 25))):
        for placement in reactor.schedule(Clock(float(now)))[0]:
            assert set(placement.slot.nodes) <= reactor.pool.nodes.keys()
        name = f"n{data.draw(st.integers(0, len(kinds) - 1))}"
        what = data.draw(st.sampled_from(["end", "end", "lose", "join", "hear of a loss"]))
        if what == "lose" and name in reactor.pool.nodes:
            ran_there = sorted(id_ for id_, held in reactor.running.items() if name in held.slot.nodes)
            assert set(reactor.node_lost(name)) == set(ran_there)
            lost += [task_id for task_id in ran_there if task_id not in lost]
        elif what == "join" and name not in reactor.pool.nodes:
            reactor.node_joined(node_like(kinds[int(name[1:])], name))
        elif what == "hear of a loss" and lost:
            reactor.attempt_ended(lost.pop(), Verdict.INTERRUPTED, "node lost", None)
        elif what == "end" and (running := sorted(reactor.running.keys() - set(lost))):
            reactor.attempt_ended(data.draw(st.sampled_from(running)), Verdict.INTERRUPTED, "", None)
        check_books(reactor.pool, asked)
    for task_id in list(reactor.running):
        reactor.attempt_ended(task_id, Verdict.INTERRUPTED, "", None)
    assert reactor.pool.busy_cores() == 0
    for number, kind in enumerate(kinds):
        if f"n{number}" not in reactor.pool.nodes:
            reactor.node_joined(node_like(kind, f"n{number}"))
    # nothing was lost with the nodes: one after another all can still run
    never = {number for number, resources in enumerate(asked, 1) if reactor.pool.why_never(resources)}
    for _ in asked:
        for placement in reactor.schedule(Clock(1000.0))[0]:
            reactor.attempt_ended(placement.task_id, Verdict.DONE, "", 1.0)
    assert reactor.graph.entries.keys() == never
    assert reactor.idle()
