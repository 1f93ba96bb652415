"""Which node is bad: a table of cases, a small model of an allocation, and what the scheduler makes of it."""

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from folders import command, make_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import NewTask, Resources
from db.states import TaskKind, Verdict
from pilot.agent.messages import Hello
from pilot.config import read_config
from pilot.node_watch import NodeWatch
from pilot.opening import begin_pilot, held_folder, open_database
from pilot.orphans import judge_orphans
from pilot.scheduler.health import IN_A_ROW, TERM_S, End, Finding, Health, Sign
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.scheduler.pool import Pool
from pilot.scheduler.ready import Ready, Shape
from pilot.scheduler.suspects import Suspects
from pilot.snapshot import Snapshot
from pilot.terms import Terms

VERDICTS = {
    "+": (Sign.WELL, Verdict.DONE),
    "-": (Sign.FAILED, Verdict.CRASHED),
    "!": (Sign.MACHINE, Verdict.INFRASTRUCTURE),
}


def a_health(*nodes: str) -> Health:
    health = Health()
    for node in nodes:
        health.joined(node)
    return health


def hear(health: Health, story: str, now: float = 0.0) -> list[Finding]:
    """A story such as "a-1 a-2 b+3": on node a the tasks 1 and 2 fail, on b task 3 ends well; "!": a refuses."""
    found = []
    for word in story.split():
        sign, verdict = VERDICTS[word[1]]
        found += health.ended(End(word[0], int(word[2:]), sign, verdict, str(verdict)), now)
    return found


@dataclass(frozen=True)
class Case:
    name: str
    nodes: str
    story: str
    closed: str
    pardoned: tuple[int, ...] = field(default=())


CASES = [
    Case("four different tasks in a row", "abc", "a-1 a-2 a-3 a-4", "a", (1, 2, 3, 4)),
    Case("three are not enough", "abc", "a-1 a-2 a-3", ""),
    Case("one task that fails four times", "abc", "a-1 a-1 a-1 a-1", ""),
    Case("a success between", "abc", "a-1 a-2 a-3 a+9 a-4", ""),
    Case("each of a task's attempts is pardoned", "ab", "a-1 a-1 a-2 a-3 a-4", "a", (1, 1, 2, 3, 4)),
    Case("what still ends there is pardoned, too", "ab", "a-1 a-2 a-3 a-4 a-5", "a", (1, 2, 3, 4, 5)),
    Case("no other node to compare with", "a", "a-1 a-2 a-3 a-4 a-5 a-6", ""),
    Case("the other one does as badly", "ab", "a-1 b-2 a-3 b-4 a-5 b-6 a-7 b-8", ""),
    Case("never more than half of the nodes", "abc", "a-1 a-2 a-3 a-4 b-5 b-6 b-7 b-8", "a", (1, 2, 3, 4)),
    Case("half of them", "abcd", "a-1 a-2 a-3 a-4 b-5 b-6 b-7 b-8", "ab", (1, 2, 3, 4, 5, 6, 7, 8)),
    Case("never the last", "ab", "a-1 a-2 a-3 a-4 b-5 b-6 b-7 b-8 b-9", "a", (1, 2, 3, 4)),
    Case("its tasks fail elsewhere, too", "ab", "a-1 a-2 a-3 a-4 b-1 b-2", "", (1, 2, 3, 4)),
    Case("then twice as many are wanted", "ab", "a-1 a-2 a-3 a-4 b-1 b-2 a-5 a-6 a-7 a-8", "", (1, 2, 3, 4)),
    Case("a bad task speaks against no node", "abc", "b-1 a-1 a-2 a-3 a-4", ""),
    Case("its tasks end well elsewhere", "ab", "a-1 a-2 a-3 a-4 b+1 b+2 b-3 b-4 a+7", "a", (1, 2, 3, 4)),
    Case("a success there before that", "ab", "a-1 a-2 a-3 a-4 b+1 a+7", "", (1, 2, 3, 4)),
    Case("the machine itself refuses: even the last", "a", "a!1 a!2 a!3 a!4", "a", (1, 2, 3, 4)),
    Case("all nodes, as their disk is full", "ab", "a!1 b!1 a!2 b!2 a!3 b!3 a!4 b!4", "ab", (1, 1, 2, 2, 3, 3, 4, 4)),
    Case("refusals between failures that are the tasks' own", "a", "a-1 a!2 a!3 a-4 a!5 a!6", ""),
    Case("only the refusals are pardoned", "a", "a-1 a-2 a-3 a-4 a-5 a!6 a!7 a!8 a!9", "a", (6, 7, 8, 9)),
    Case("room was made", "a", "a!1 a!2 a!3 a!4 a+5", "", (1, 2, 3, 4)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_node_is_closed_when_the_fault_is_its_own(case: Case) -> None:
    health = a_health(*case.nodes)
    found = hear(health, case.story)
    assert "".join(sorted(health.closed)) == case.closed
    assert tuple(sorted(task for finding in found for task, _ in finding.pardoned)) == case.pardoned


def test_it_is_named_with_what_was_seen_there() -> None:
    health = a_health("a", "b")
    hear(health, "a-1 a-2 a-3 a-17")
    assert health.closed == {"a": "4 tasks failed in a row (last: task 17, crashed)"}


def test_after_an_hour_it_is_tried_again_and_the_first_failure_closes_it_again() -> None:
    health = a_health("a", "b")
    hear(health, "a-1 a-2 a-3 a-4 b+1 b+2", now=0.0)
    assert health.tried_again(TERM_S - 1.0) == []
    (finding,) = health.tried_again(TERM_S)
    assert (finding.node, finding.closed) == ("a", False)
    hear(health, "a-9", now=TERM_S)
    assert set(health.closed) == {"a"}
    health.tried_again(2 * TERM_S)
    hear(health, "a+10 a-11 a-12 a-13", now=2 * TERM_S)
    assert health.closed == {}


def test_a_node_that_comes_back_is_remembered() -> None:
    health = a_health("a", "b")
    hear(health, "a-1 a-2 a-3 a-4")
    health.lost("a")
    health.joined("a")
    assert set(health.closed) == {"a"}
    # the nodes that are gone are none to compare with
    health.lost("a")
    hear(health, "b-5 b-6 b-7 b-8")
    assert set(health.closed) == {"a"}


@dataclass
class Model:
    """An allocation: tasks that fail wherever they run, nodes on which all fails; the rest ends well."""

    nodes: int
    bad_nodes: frozenset[int]
    tasks: int
    bad_tasks: frozenset[int]
    seed: int
    budget: int = 2

    def run(self) -> tuple[Health, dict[int, int], int]:
        """Health at the end, the failures charged to each task, and how often there was nowhere to go."""
        dice = random.Random(self.seed)
        health = a_health(*map(str, range(self.nodes)))
        charged = dict.fromkeys(range(self.tasks), 0)
        ready, stuck = list(charged), 0
        while ready:
            open_nodes = [node for node in range(self.nodes) if str(node) not in health.closed]
            if not open_nodes:
                stuck += 1
                break
            task, node = ready.pop(dice.randrange(min(8, len(ready)))), dice.choice(open_nodes)
            fails = task in self.bad_tasks or node in self.bad_nodes
            sign, verdict = VERDICTS["-" if fails else "+"]
            charged[task] += fails
            again = {task} if fails and charged[task] <= self.budget else set()
            for finding in health.ended(End(str(node), task, sign, verdict), 0.0):
                for pardoned, _ in finding.pardoned:
                    charged[pardoned] -= 1
                    again.add(pardoned)
            ready += sorted(again - set(ready))
        return health, charged, stuck


@settings(max_examples=80, deadline=None)
@given(st.integers(3, 8), st.integers(0, 3), st.integers(20, 60), st.integers(0, 10_000))
def test_no_task_pays_for_a_bad_node(nodes: int, bad: int, tasks: int, seed: int) -> None:
    bad_nodes = frozenset(range(min(bad, (nodes - 1) // 2)))
    health, charged, stuck = Model(nodes, bad_nodes, tasks, frozenset(), seed).run()
    assert not stuck
    # a bad node takes fewer tasks with it than raise the suspicion, and no good one is closed
    assert {int(name) for name in health.closed} <= bad_nodes
    assert sum(count > 2 for count in charged.values()) <= (IN_A_ROW - 1) * len(bad_nodes)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 8), st.integers(1, 200), st.floats(0.0, 1.0), st.integers(0, 10_000))
def test_bad_tasks_fail_and_take_no_node_with_them_for_long(nodes: int, tasks: int, share: float, seed: int) -> None:
    bad_tasks = frozenset(range(int(share * tasks)))
    health, charged, stuck = Model(nodes, frozenset(), tasks, bad_tasks, seed).run()
    assert not stuck
    assert all(charged[task] == (3 if task in bad_tasks else 0) for task in charged)
    assert len(health.closed) <= nodes // 2


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 10_000))
def test_a_task_that_takes_its_node_with_it_is_found_among_its_neighbours(tasks: int, cores: int, seed: int) -> None:
    """They are lost in lockstep: no neighbour ever ends before the poison does its work."""
    dice = random.Random(seed)
    poison, suspects, ready, charged = dice.randrange(tasks), Suspects(), set(range(tasks)), 0
    for _ in range(1000):
        held = suspects.held_back(ready, ())
        running = sorted(ready - set(held), key=lambda _task: dice.random())[:cores]
        assert running, "somebody may always run"
        among = suspects.among(running)
        if poison in running:
            for task in running:
                suspects.ended(task, Verdict.INTERRUPTED, lost=True)
                if among == {task}:
                    assert task == poison, "a neighbour is blamed"
                    charged += 1
        else:
            for task in running:
                suspects.ended(task, Verdict.DONE, lost=False)
            ready -= set(running)
        if charged == 4:
            ready.discard(poison)
            suspects.forget(poison)
        if not ready:
            break
    assert not ready
    assert charged == 4


def test_a_drain_neither_clears_nor_adds_and_any_other_end_clears() -> None:
    suspects = Suspects({1: 2})
    assert suspects.ended(1, Verdict.INTERRUPTED, lost=False) == 2
    assert suspects.ended(1, Verdict.INTERRUPTED, lost=True) == 3
    assert suspects.among([1, 2]) == {1}
    assert suspects.ended(1, Verdict.CRASHED, lost=False) == 0
    assert suspects.held_back({1, 2}, ()) == []


def test_who_waits_aside_is_ready_again_and_once() -> None:
    ready, shape = Ready(), Shape(0, TaskKind.COMMAND, Resources())
    for task in (1, 2, 3):
        ready.add(task, shape)
    for _ in range(5):
        with ready.without([1, 3]):
            assert ready.first(shape) == 2
            assert len(ready) == 1
    assert len(ready) == ready.count(shape) == 3
    assert sum(map(len, ready._heaps.values())) == 3


class DeadPilots:
    """A folder of which one pilot after the other dies, each in the middle of all that is ready."""

    def __init__(self, root: Path) -> None:
        self.folder = make_folder(root, "[retries]\ninfrastructure = 0\n")
        self.config = read_config(self.folder.config)

    def one(self, *new: NewTask, ends_at: float | None = None, state: str = "active") -> None:
        """Recover as a pilot does, start what may start, and die."""
        with held_folder(self.folder, "run") as lease, open_database(self.folder, self.config, lease) as opened:
            status = begin_pilot(opened)
            ledger = opened.ledger
            ledger.load()
            watch = NodeWatch(self.folder, ledger, Silent(), Terms())  # type: ignore[arg-type]
            judged = watch.orphaned(judge_orphans(self.folder.root, list(ledger.running.values())))
            watch.hear(Hello("here", (0, 1, 2, 3), 4000))
            with ledger.turn(1.0) as turn:
                turn.end_attempts(judged)
                turn.add(new)
                turn.start(Clock(1.0))
            seen = replace(status, ends_at=ends_at, state=state)
            self.folder.status.write_text(Snapshot(at=1000.0, folder="", pilot=seen).to_json())

    def attempts(self, task: int) -> list[str | None]:
        with closing(sqlite3.connect(self.folder.database)) as database:
            rows = database.execute("SELECT verdict FROM attempts WHERE task_id = ? ORDER BY id", (task,))
            return [verdict for (verdict,) in rows]


class Silent:
    """Nobody hears and nobody speaks."""

    def send(self, node: str, message: object) -> None:
        pass


def test_the_losses_of_a_task_are_counted_over_allocations(tmp_path: Path) -> None:
    pilots = DeadPilots(tmp_path)
    pilots.one(command("poison"))
    for _ in range(4):
        pilots.one()
    # three may be chance; with a budget of none the fourth is one too many
    assert pilots.attempts(1) == ["interrupted"] * 3 + ["infrastructure"]


def test_of_two_that_are_lost_together_each_time_one_waits(tmp_path: Path) -> None:
    pilots = DeadPilots(tmp_path)
    pilots.one(command("one"), command("two"))
    for _ in range(4):
        pilots.one()
    assert pilots.attempts(1) == ["interrupted"] * 3 + ["infrastructure"]
    assert pilots.attempts(2) == ["interrupted"] * 3 + [None]


@pytest.mark.parametrize("how", [{"ends_at": 1001.0}, {"state": "draining"}], ids=["its end had come", "it drained"])
def test_a_pilot_that_was_ending_anyway_is_no_loss_to_its_tasks(tmp_path: Path, how: dict[str, Any]) -> None:
    pilots = DeadPilots(tmp_path)
    pilots.one(command("long"), **how)
    for _ in range(5):
        pilots.one(**how)
    assert pilots.attempts(1) == ["interrupted"] * 5 + [None]


def a_pool(*names: str) -> Pool:
    return Pool(Node(name, (0, 1, 2, 3), 4000) for name in names)


def test_a_closed_node_gets_nothing_new_and_gives_back_what_it_had() -> None:
    pool = a_pool("a", "b")
    one = Resources()
    slot = pool.place(one, but={"b"})
    assert slot is not None
    pool.close("a", "4 tasks failed in a row")
    placed = [pool.place(one) for _ in range(5)]
    assert [slot.node for slot in placed if slot is not None] == ["b"] * 4
    assert pool.is_full()
    assert not pool.has_room(one)
    pool.give_back(slot)
    assert pool.is_full()
    assert pool.busy_cores() == 4
    assert pool.total_cores() == 8
    pool.open("a")
    assert not pool.is_full()
    again = pool.place(one)
    assert again is not None
    assert again.node == "a"


def test_what_only_closed_nodes_could_hold_is_not_waited_for_and_not_refused() -> None:
    pool = a_pool("a", "b")
    both = Resources(ranks=2, nodes=2)
    assert pool.why_not(both) == ""
    pool.close("a", "4 tasks failed in a row")
    assert pool.why_not(Resources()) == ""
    assert pool.why_never(both) == ""
    assert pool.why_not(both) == "quarantined: node a (4 tasks failed in a row)"
    assert not pool.has_room(both)
    assert list(pool.forecast(both).order()) == [(pool.forecast(both).key_of("b"), "b")]
    # it holds when the node goes and comes back
    pool.remove("a")
    assert pool.why_never(both) != ""
    pool.add(Node("a", (0, 1, 2, 3), 4000))
    assert pool.why_not(both) != ""
    assert pool.is_full() is False


def test_the_suspicion_is_raised_by_four() -> None:
    assert IN_A_ROW == 4


def test_a_machine_that_refuses_a_few_tasks_is_closed_before_they_have_spent_their_tries() -> None:
    health = Health()
    health.joined("n1")
    ends = [End("n1", task, Sign.MACHINE, Verdict.INFRASTRUCTURE, "no room") for task in (1, 2, 3, 1)]
    found = [finding for end in ends for finding in health.ended(end, 0.0)]
    assert [finding.closed for finding in found] == [True]
    assert sorted(found[0].pardoned) == [(task, Verdict.INFRASTRUCTURE) for task in (1, 1, 2, 3)]


def test_one_task_alone_that_is_refused_closes_no_node() -> None:
    health = Health()
    health.joined("n1")
    ends = [End("n1", 1, Sign.MACHINE, Verdict.INFRASTRUCTURE, "no room")] * 9
    assert [finding for end in ends for finding in health.ended(end, 0.0)] == []
