"""What an adversary found in the runtime core, each with the least that shows it."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import command, make_folder
from sqlalchemy import select

from db.engine import open_reader, open_writer
from db.errors import StorageError
from db.records import Edge, Resources, Structure, Task
from db.schema import attempts
from db.states import EdgeKind, TaskKind, TaskState, Verdict
from db.task_table import insert_tasks, refuse_circle
from pilot import mailbox
from pilot.config import read_config
from pilot.folder import Folder
from pilot.mailbox import Request
from pilot.opening import apply_without_pilot
from pilot.requests import Answer
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.ready import Ready, Shape
from pilot.snapshot import read_snapshot
from pilot.supervisor import run_pilot

NOTHING_LEFT = "nothing is left that could run"
EMT = """
[campaign]
name = "short"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[[stages]]
repeat = [1, 1, 1]
temperatures = [300]
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
"""
_numbers = itertools.count(1)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "campaign", "[run]\ncores = 2\nsoft_stop = 1\n")


def given(*argv: str, **more: object) -> dict[str, object]:
    spec = {"argv": list(argv), "cwd": None, "env": {}, "mpi": False, "shell": False}
    return {"name": " ".join(argv)[:40], "spec": spec, **more}


def put(folder: Folder, verb: str, **arguments: object) -> Answer:
    request = Request(f"{next(_numbers):06d}-{verb}", verb, arguments)
    return apply_without_pilot(folder, read_config(folder.config), request)


def run(folder: Folder) -> str:
    return run_pilot(folder, read_config(folder.config))


def tasks_of(folder: Folder) -> dict[str, dict[str, int]]:
    seen = read_snapshot(folder)
    assert seen is not None
    return seen.tasks


def a_task(task_id: int, state: TaskState = TaskState.WAITING) -> Task:
    return Task(task_id, TaskKind.COMMAND, "command", f"task {task_id}", state, {})


def a_reactor(states: list[TaskState], holding: list[Edge]) -> Reactor:
    reactor = Reactor()
    reactor.node_joined(Node("n0", tuple(range(8)), 1000))
    reactor.add([a_task(number, state) for number, state in enumerate(states, 1)], holding)
    return reactor


def test_what_is_no_request_is_put_aside_and_the_pilot_goes_on(folder: Folder) -> None:
    put(folder, "add", tasks=[given("true")])
    (folder.inbox / "1.json").mkdir()
    (folder.inbox / "2.json").write_text("[" * 100_000)
    (folder.inbox / "3.json").write_text(json.dumps({"id": "../4", "verb": "drain", "arguments": {}}))
    assert run(folder) == NOTHING_LEFT
    assert tasks_of(folder) == {"command": {"done": 1}}
    assert len(list(folder.inbox.glob("*.refused"))) == 3


def test_a_request_that_makes_no_sense_costs_itself_only(folder: Folder) -> None:
    tasks: list[dict[str, object]] = [
        {"resources": {"ranks": 0}},
        {"key": {}},
        {"after": [10**30]},
        {"priority": "high"},
        {"time_request_s": "long"},
        {"time_limit_s": -1.0},
    ]
    senseless = [mailbox.post(folder, "add", {"tasks": [given("true", **more)]}) for more in tasks]
    senseless.append(mailbox.post(folder, "add", {"tasks": [given("true", key="a"), given("true", key="a")]}))
    senseless += [mailbox.post(folder, "cancel", {"tasks": [number]}) for number in (10**30, "first")]
    good = mailbox.post(folder, "add", {"tasks": [given("true")]})
    assert run(folder) == NOTHING_LEFT
    assert (mailbox.fetch_answer(folder, good) or {})["ok"]
    assert tasks_of(folder) == {"command": {"done": 1}}
    answers = [mailbox.fetch_answer(folder, request) for request in senseless]
    assert [answer and answer["ok"] for answer in answers] == [False] * len(senseless)


def test_structures_of_a_refused_request_are_not_known_afterwards(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, EMT)
    structures = [
        {
            "structure": Structure(
                (13,), ((0.0, 0.0, 0.0),), ((4.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 4.0))
            ).to_json(),
            "source": "x",
        }
    ]
    assert not put(folder, "add label", structures=structures, after=[999])["ok"]
    assert put(folder, "add label", structures=structures)["said"].startswith("1 structures to label")


def test_what_others_read_may_be_broken(folder: Folder) -> None:
    folder.status.write_text("")
    assert put(folder, "add", tasks=[given("true")])["ok"]
    folder.copy.unlink()
    folder.copy.mkdir()
    folder.status.unlink()
    folder.status.mkdir()
    assert run(folder) == NOTHING_LEFT
    folder.copy.rmdir()
    folder.status.rmdir()
    put(folder, "resume")
    assert tasks_of(folder) == {"command": {"done": 1}}


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 1, "campaign": null, "pilot": 5}'])
def test_a_broken_status_is_told_in_words(folder: Folder, content: str) -> None:
    folder.status.write_text(content)
    with pytest.raises(StorageError, match="status is not readable"):
        read_snapshot(folder)


def test_a_lease_that_is_a_folder_is_told_in_words(folder: Folder) -> None:
    folder.lease.mkdir()
    with pytest.raises(StorageError, match="lease file is not readable"):
        run(folder)


def test_what_can_never_run_does_not_keep_a_pilot_waiting_for_its_end(folder: Folder) -> None:
    folder.config.write_text("[run]\ncores = 2\nsoft_stop = 1\nwalltime = 300\n")
    put(folder, "add", tasks=[given("true", resources={"ranks": 99}), given("true", time_request_s=1000.0)])
    assert run(folder).startswith("nothing that is left fits into the time that is left before")


def test_no_attempt_gets_a_folder_that_is_there(folder: Folder) -> None:
    put(folder, "add", tasks=[given("true")])
    (folder.runs / "001" / "000234").mkdir(parents=True)
    (folder.runs / "notes").mkdir()
    run(folder)
    with open_reader(folder.copy) as connection:
        assert connection.execute(select(attempts.c.directory)).scalars().all() == ["runs/001/000235"]


def test_a_retry_changes_all_or_nothing(folder: Folder) -> None:
    put(folder, "add", tasks=[given("false"), given("true")])
    run(folder)
    assert not put(folder, "retry", tasks=[1, 2])["ok"]
    assert tasks_of(folder) == {"command": {"failed": 1, "done": 1}}


def test_a_parent_that_was_revived_while_its_child_ran_does_not_stop_the_pilot() -> None:
    """Its child was interrupted and is ready again: in the next pilot the edge holds, but the child does not wait."""
    reactor = a_reactor([TaskState.READY, TaskState.READY], [Edge(2, 1, EdgeKind.ENDED)])
    reactor.schedule(Clock(0.0))
    outcome = reactor.attempt_ended(1, Verdict.DONE, "", 1.0)
    assert [(t.task_id, t.after) for t in outcome.transitions] == [(1, TaskState.DONE)]
    assert reactor.attempt_ended(2, Verdict.DONE, "", 1.0).transitions[0].after is TaskState.DONE


def fail(reactor: Reactor, task_id: int) -> None:
    reactor.schedule(Clock(0.0))
    reactor.attempt_ended(task_id, Verdict.BAD_INPUT, "", 1.0)


def test_a_task_stays_doomed_while_one_of_its_parents_dooms_it() -> None:
    edges = [Edge(3, 1), Edge(3, 2), Edge(4, 3)]
    reactor = a_reactor([TaskState.READY, TaskState.READY, TaskState.WAITING, TaskState.WAITING], edges)
    fail(reactor, 1)
    fail(reactor, 2)
    reactor.revive(a_task(1, TaskState.FAILED), [], edges[:1])
    assert set(reactor.graph.doomed) == {3, 4}
    reactor.revive(a_task(2, TaskState.FAILED), [], edges[1:2])
    assert reactor.graph.doomed == {}


def test_what_waits_for_the_end_of_a_doomed_task_may_start_when_that_is_cancelled() -> None:
    edges = [Edge(2, 1), Edge(3, 2, EdgeKind.ENDED)]
    reactor = a_reactor([TaskState.READY, TaskState.WAITING, TaskState.WAITING], edges)
    fail(reactor, 1)
    assert set(reactor.graph.doomed) == {2, 3}
    reactor.cancel([2], "not wanted")
    assert reactor.graph.doomed == {}
    assert len(reactor.graph.ready) == 1


def test_a_new_task_behind_a_doomed_one_is_doomed() -> None:
    reactor = a_reactor([TaskState.READY, TaskState.WAITING], [Edge(2, 1)])
    fail(reactor, 1)
    reactor.add([a_task(3), a_task(4)], [Edge(3, 2), Edge(4, 3)])
    assert set(reactor.graph.doomed) == {2, 3, 4}


def test_the_ready_tasks_of_a_shape_are_counted_as_they_are() -> None:
    ready, shape = Ready(), Shape(0, TaskKind.LABEL, Resources())
    for number in (1, 2, 3, 2):
        ready.add(number, shape)
    ready.remove(3)
    assert ready.count(shape) == len(ready) == 2
    ready.remove(1)
    ready.remove(2)
    assert (ready.count(shape), ready.first(shape)) == (0, None)


def test_a_long_chain_is_looked_through_in_a_moment(tmp_path: Path) -> None:
    refuse_circle([Edge(number + 1, number) for number in range(1, 50_000)])
    writer = open_writer(tmp_path / "pilot.db")
    with writer.transaction() as connection:
        new = [command("a", key=f"k{n}", after=(f"k{n - 1}",) if n else ()) for n in range(2000)]
        assert len(insert_tasks(connection, new, 1.0)[1]) == 1999
    writer.close()


def test_the_clock_may_be_set_back(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published in a rhythm follows a clock that nobody sets."""
    from pilot import host

    real, seen = host.now, []
    monkeypatch.setattr(host, "now", lambda: real() - (86_400 if seen else 0))
    put(folder, "add", tasks=[given("sleep", "2.5")])
    remember: Callable[[object], None] = seen.append
    run_pilot(folder, read_config(folder.config), remember)
    # the first, at least one on the way, the last
    assert len(seen) >= 3
