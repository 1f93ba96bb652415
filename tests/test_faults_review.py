"""What an adversary found between the rooms of time, drain and faults, each with the least that shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from folders import command, make_folder
from sqlalchemy import select

from db import attempt_table, task_table
from db.records import Attempt, Label, NewTask, Resources, Task
from db.schema import tasks as task_rows
from db.states import TaskKind, TaskState, Verdict
from pilot import host
from pilot.agent.journal import ends_file, put_away, read_earlier
from pilot.agent.losses import marked_lost
from pilot.agent.messages import Ended
from pilot.config import read_config
from pilot.drain import End, Ends, Urgency
from pilot.ending import Ending
from pilot.folder import Folder
from pilot.lease import restarts
from pilot.mailbox import Request
from pilot.memory import Running
from pilot.opening import Opened, apply_without_pilot, begin_pilot, held_folder, open_database
from pilot.orders import DrainOrder, EndOrder
from pilot.orphans import judge_orphans
from pilot.requests import Answer, Steering, apply
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.supervisor import run_pilot
from pilot.terms import Terms
from tasks.engines.command import CommandEngine
from tasks.engines.python_step import PythonStep
from tasks.formats.cfg import Configuration, format_cfg
from tasks.protocol import Exit, Judgement, Work

HOUR = 3600.0
CAMPAIGN = """
[campaign]
name = "test"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 6
holdout = 1
eos_points = 0
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[label]
engine = "ase"
max_failed = 0.2
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
"""
NO_END = Clock(1.0)


@contextmanager
def opened_as_pilot(folder: Folder) -> Iterator[Opened]:
    """The folder as a new pilot has it, with nothing recovered yet."""
    config = read_config(folder.config)
    with held_folder(folder, "run") as lease, open_database(folder, config, lease) as opened:
        begin_pilot(opened)
        opened.ledger.load()
        yield opened


def join(opened: Opened, *names: str, cores: int = 4) -> None:
    for name in names:
        opened.ledger.node_joined(Node(name, tuple(range(cores)), 4000))


def add(opened: Opened, *new: NewTask) -> None:
    with opened.ledger.turn(1.0) as turn:
        turn.add(new)


def start(opened: Opened, clock: Clock = NO_END) -> list[int]:
    """Start what may start; the tasks."""
    with opened.ledger.turn(clock.now) as turn:
        turn.start(clock)
    return sorted(entry.task.id for entry in turn.actions.start)


def end(opened: Opened, *judged: tuple[int, Judgement], lost: bool = False) -> None:
    """The running attempts of these tasks have ended."""
    by_task = {entry.task.id: entry.attempt.id for entry in opened.ledger.running.values()}
    told = [Ended(by_task[task_id], Exit(code=0, wall_s=1.0), judgement) for task_id, judgement in judged]
    with opened.ledger.turn(2.0) as turn:
        turn.end_attempts(marked_lost(told, "its node was lost") if lost else told)


def states(opened: Opened, *ids: int) -> list[TaskState]:
    with opened.writer.reading() as connection:
        found = task_table.states_of(connection, ids)
    return [found[task_id] for task_id in ids]


INTERRUPTED = Judgement(Verdict.INTERRUPTED, "lost")
WIDE = Resources(ranks=3, nodes=3)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "campaign")


def test_who_can_not_start_holds_no_other_suspect_back(folder: Folder) -> None:
    with opened_as_pilot(folder) as opened:
        join(opened, "n1", "n2", "n3")
        add(opened, command("wide", resources=WIDE), command("small"), command("long", time_request_s=1e4))
        for losses in range(4):
            assert start(opened, Clock(1.0, 1e5, 1e5)) == ([1, 2, 3] if losses < 3 else [1])
            end(opened, *[(task, INTERRUPTED) for task in ((1, 2, 3) if losses < 3 else (1,))], lost=True)
        # one of the three nodes is gone for good: the worst suspect can never start here
        opened.ledger.node_lost("n3", "silent")
        assert start(opened, Clock(1.0, 100.0, 1e5)) == [2]


def test_what_was_interrupted_needs_more_than_it_had_in_the_next_allocation_too(folder: Folder) -> None:
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        add(opened, command("long", time_request_s=10.0))
        assert start(opened) == [1]
        (entry,) = opened.ledger.running.values()
        with opened.ledger.turn(2.0) as turn:
            turn.end_attempts([Ended(entry.attempt.id, Exit(wall_s=100.0), INTERRUPTED)])
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        assert start(opened, Clock(1.0, 100.0, 1e5)) == []
        assert start(opened, Clock(1.0, 200.0, 1e5)) == [1]


class NobodyLooks:
    """In place of a publisher."""

    def set_state(self, *_: object) -> None: ...

    def set_end(self, _: object) -> None: ...


@contextmanager
def ending_of(folder: Folder, terms: Terms) -> Iterator[tuple[Opened, Ending]]:
    with opened_as_pilot(folder) as opened:
        yield opened, Ending(terms, opened.writer, NobodyLooks())  # type: ignore[arg-type]


def something_runs(opened: Opened) -> dict[int, Running]:
    join(opened, "n1")
    add(opened, command("sleep"), command("next"))
    with opened.ledger.turn(1.0) as turn:
        turn.start(Clock(1.0))
    return opened.ledger.running


def test_when_the_end_moves_while_tasks_are_stopped_none_is_started_to_be_stopped_at_once(folder: Folder) -> None:
    with ending_of(folder, Terms(began_at=host.now() - 1000.0)) as (opened, ending):
        running = something_runs(opened)
        ending.end_by(host.now() + 5.0)
        assert next(soft for _ in range(100) for _, soft in ending.to_be_stopped(running))
        with opened.writer.transaction() as connection:
            assert not ending.resume(connection, running)
        assert ending.draining
        assert not ending.starts


def test_after_a_warning_nothing_starts_that_would_be_stopped_though_the_end_moves(folder: Folder) -> None:
    now = host.now()
    with ending_of(folder, Terms(began_at=now).ending(End.ALLOCATION, now + 300.0)) as (_, ending):
        ending.obey(DrainOrder("SIGUSR1", Urgency.WARNING))
        assert ending.starts
        ending.obey(EndOrder(End.ALLOCATION, now + 80000.0))
        left = ending.clock().left_s
        assert left is not None
        assert left < 300.0


def test_a_resume_that_comes_too_late_says_so(folder: Folder) -> None:
    with ending_of(folder, Terms(began_at=host.now())) as (opened, ending):
        running = something_runs(opened)
        steering = Steering(ending.begin, ending.end_by, partial(ending.resume, running=running), lambda: ending.why)

        def ask(verb: str, **arguments: object) -> Answer:
            with opened.ledger.turn(host.now()) as turn:
                return apply(Request(f"{verb}-{len(arguments)}", verb, arguments), opened.ledger, turn, steering)

        assert ask("drain", now=True)["ok"]
        assert list(ending.to_be_stopped(running))
        answer = ask("resume")
        assert not answer["ok"]
        assert "told to stop (pilot drain)" in answer["said"]
        assert ending.draining


def test_where_no_allocation_holds_half_as_much_again_a_fifth_more_has_to_do(folder: Folder) -> None:
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        add(opened, command("20 hours"), command("24 hours"))
        assert start(opened, Clock(0.0, 16 * HOUR, 24 * HOUR)) == [1, 2]
        by_task = {entry.task.id: entry.attempt.id for entry in opened.ledger.running.values()}
        had = {1: 16 * HOUR, 2: 24 * HOUR}
        with opened.ledger.turn(2.0) as turn:
            turn.end_attempts(Ended(by_task[task], Exit(wall_s=had[task]), INTERRUPTED) for task in had)
        # the second has had all that there is
        assert start(opened, Clock(3.0, 16 * HOUR, 24 * HOUR)) == []
        assert start(opened, Clock(3.0, 23.9 * HOUR, 24 * HOUR)) == [1]


def test_what_an_attempt_went_on_from_is_removed_when_it_leaves_something_better(folder: Folder) -> None:
    resumable = replace(INTERRUPTED, resumable=True)
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        add(opened, command("long"))
        discarded = []
        for _ in range(3):
            start(opened)
            ((attempt_id, entry),) = opened.ledger.running.items()
            with opened.ledger.turn(2.0) as turn:
                turn.end_attempts([Ended(attempt_id, Exit(), resumable)])
            discarded.append(turn.actions.discard)
            folder_of_the_last = entry.attempt.directory
        assert discarded == [[], ["runs/000/000001"], ["runs/000/000002"]]
        with opened.ledger.turn(3.0) as turn:
            turn.cancel([1], "not wanted")
        assert turn.actions.discard == [folder_of_the_last]
        # a new life begins afresh
        with opened.ledger.turn(4.0) as turn:
            turn.retry([1])
            turn.start(NO_END)
        assert [entry.previous for entry in turn.actions.start] == [""]


@contextmanager
def learning(root: Path) -> Iterator[Opened]:
    """A campaign that has begun, on a node with room for all."""
    folder = make_folder(root / "campaign", CAMPAIGN)
    with opened_as_pilot(folder) as opened:
        join(opened, "n1", cores=100)
        with opened.ledger.turn(1.0) as turn:
            turn.begin_campaign()
        yield opened


def of_key(opened: Opened, key: str) -> Task:
    with opened.writer.reading() as connection:
        id_ = connection.execute(select(task_rows.c.id).where(task_rows.c.key == key)).scalar_one()
        return task_table.read_tasks(connection, [id_])[id_]


def labelled(opened: Opened) -> None:
    """All labels that run are done."""
    running = [entry.task for entry in opened.ledger.running.values()]
    for task in running:
        atoms = len(task.spec["structure"]["numbers"])
        label = Label(1.0, ((0.0, 0.0, 0.0),) * atoms)
        end(opened, (task.id, Judgement(Verdict.DONE, label=label)))


def test_what_a_task_has_left_broken_costs_that_task_only(tmp_path: Path) -> None:
    with learning(tmp_path) as opened:
        start(opened)
        labelled(opened)
        train, root = of_key(opened, "s0g0-train"), opened.folder.root
        published = root / "potentials" / "s1g00"
        # its engine says that it is done, but there is no potential
        assert start(opened) == [train.id]
        end(opened, (train.id, Judgement(Verdict.DONE)))
        assert of_key(opened, train.key or "").tries == {Verdict.CRASHED: 1}
        assert start(opened) == [train.id]
        (entry,) = opened.ledger.running.values()
        made = root / entry.attempt.directory
        made.mkdir(parents=True)
        for name in ("pot.mtp", "active.npz"):
            (made / name).write_text(name)
        # somebody has laid a link there
        published.parent.mkdir()
        published.symlink_to(tmp_path)
        end(opened, (train.id, Judgement(Verdict.DONE)))
        assert states(opened, train.id) == [TaskState.DONE]
        assert not published.is_symlink()
        assert (published / "pot.mtp").read_text() == "pot.mtp"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["campaign"]

        explore, choose = of_key(opened, "s0g1-explore-300-1-0"), of_key(opened, "s0g1-select")
        start(opened)
        end(opened, (explore.id, Judgement(Verdict.DONE)))
        end(opened, (of_key(opened, "s0g0-evaluate").id, Judgement(Verdict.DONE)))
        start(opened)
        entry = next(entry for entry in opened.ledger.running.values() if entry.task.id == choose.id)
        where = root / entry.attempt.directory
        where.mkdir(parents=True)
        one = Configuration(np.zeros(1, int), np.zeros((1, 3)), np.eye(3) * 4, features=(("MV_grade", "2x"),))
        cfg = format_cfg(one)
        (where / "selected.cfg").write_text(cfg)
        end(opened, (choose.id, Judgement(Verdict.DONE)))
        assert states(opened, choose.id) == [TaskState.READY]
        with opened.writer.reading() as connection:
            last = attempt_table.read_attempts(connection, choose.id)[-1]
        assert last.verdict is Verdict.CRASHED
        assert "cannot be used" in last.reason


def test_a_training_that_was_called_off_for_a_bad_node_is_called_again(tmp_path: Path) -> None:
    with learning(tmp_path) as opened:
        ran = start(opened)
        train = of_key(opened, "s0g0-train")
        no_program = Judgement(Verdict.BAD_INPUT, "no such program")
        end(opened, *[(task_id, no_program) for task_id in ran[:3]])
        assert states(opened, train.id, *ran[:3]) == [TaskState.CANCELLED] + [TaskState.FAILED] * 3
        with opened.ledger.turn(3.0) as turn:
            turn.pardon([(task_id, Verdict.BAD_INPUT) for task_id in ran[:3]])
        assert states(opened, train.id, *ran[:3]) == [TaskState.WAITING] + [TaskState.READY] * 3
        # what a user has cancelled stays cancelled
        with opened.ledger.turn(4.0) as turn:
            turn.cancel([train.id], "cancelled by the user")
        end(opened, (ran[3], no_program))
        with opened.ledger.turn(5.0) as turn:
            turn.pardon([(ran[3], Verdict.BAD_INPUT)])
        assert states(opened, train.id) == [TaskState.CANCELLED]


def test_a_remedy_that_fails_costs_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("mixing")

    monkeypatch.setattr(CommandEngine, "soften", fails)
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        add(opened, command("false"))
        start(opened)
        end(opened, (1, Judgement(Verdict.CRASHED, "exit code 1")))
        assert states(opened, 1) == [TaskState.READY]


def test_what_launchers_saw_is_known_when_an_older_database_is_put_in_place(folder: Folder) -> None:
    attempt = an_attempt(7, pilot=3)
    line = {"id": 7, "code": 0, "signal": None, "cause": None, "wall_s": 1, "cpu_s": 1, "peak_mb": 1, "message": ""}
    journal = ends_file(folder.root, 3, "n1")
    journal.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    for epoch in (4, 5):
        ends_file(folder.root, epoch, "n1").write_text(json.dumps(line | {"code": epoch}) + "\n")
    put_away(folder.root, 5)
    assert sorted(path.name for path in folder.ends.iterdir()) == ["5.n1.jsonl", "earlier.jsonl"]
    put_away(folder.root, 6)
    assert [path.name for path in folder.ends.iterdir()] == ["earlier.jsonl"]
    command_task = Task(1, TaskKind.COMMAND, "command", "x", TaskState.RUNNING, dict(command("true").spec))
    (judged,) = judge_orphans(folder.root, [Running(attempt, command_task)])
    assert judged.judgement.verdict is Verdict.DONE
    (judged,) = judge_orphans(folder.root, [Running(replace(attempt, pilot_id=2), command_task)])
    assert judged.judgement.verdict is Verdict.INTERRUPTED


def test_of_what_launchers_saw_long_ago_only_so_much_is_kept(folder: Folder) -> None:
    line = {"id": 7, "code": 0, "signal": None, "cause": None, "wall_s": 1, "cpu_s": 1, "peak_mb": 1, "message": ""}
    for epoch in range(1, 50):
        ends_file(folder.root, epoch, "n1").write_text(json.dumps(line) + "\n")
        put_away(folder.root, epoch + 1, most=1000)
    kept = read_earlier(folder.root)
    assert (folder.ends / "earlier.jsonl").stat().st_size <= 1000
    assert (49, 7) in kept
    assert 5 < len(kept) < 15


def an_attempt(number: int, pilot: int) -> Attempt:
    return Attempt(
        id=number,
        task_id=1,
        pilot_id=pilot,
        number=1,
        node="n1",
        cores=(0,),
        gpus=(),
        directory=f"runs/000/{number:06d}",
        started_at=1.0,
    )


@pytest.mark.parametrize(("said", "times"), [("2", 2), ("", 0), ("twice", 0), ("-1", 0), ("²", 0)])
def test_how_often_a_job_was_queued_again_is_believed_only_if_it_is_a_number(
    said: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", said)
    assert restarts() == times


def test_a_second_world_knows_how_long_its_allocation_is() -> None:
    first = Terms(began_at=10.0, starts_at=0.0, ends=Ends({End.ALLOCATION: 24 * HOUR}))
    second = replace(first, began_at=20 * HOUR, counts_from=20 * HOUR)
    assert second.clock(20 * HOUR).whole_s == first.clock(10.0).whole_s
    assert (first.uncounted_s(20.0), second.uncounted_s(20 * HOUR + 5.0)) == (20.0, 5.0)


def test_a_whole_result_counts_however_the_process_ended(tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path, 3, {})
    (tmp_path / "result.json").write_text(json.dumps({"attempt_id": 3, "facts": {"grade": 1.0}}))
    step = PythonStep("small", "small", ())
    died = step.judge(work, Exit(signal=11))
    assert (died.verdict, died.facts) == (Verdict.DONE, {"grade": 1.0, "ended_with": "signal 11"})
    assert step.judge(work, Exit(code=0)).facts == {"grade": 1.0}
    assert step.judge(replace(work, attempt_id=4), Exit(code=1)).verdict is Verdict.CRASHED


@pytest.mark.parametrize("program", ["\ud800", "x\0y", "no such program \x1b[31m" * 1000])
def test_no_name_that_a_user_has_asked_for_ends_the_pilot(folder: Folder, program: str) -> None:
    spec = {"argv": [program], "cwd": None, "env": {}, "mpi": False, "shell": False}
    asked = Request("1-add", "add", {"tasks": [{"name": "odd", "spec": spec}]})
    config = read_config(folder.config)
    assert apply_without_pilot(folder, config, asked)["ok"]
    run_pilot(folder, config)
    with opened_as_pilot(folder) as opened, opened.writer.reading() as connection:
        (attempt,) = attempt_table.read_attempts(connection, 1)
    assert attempt.verdict is Verdict.BAD_INPUT
    assert attempt.reason.isprintable()
    assert len(attempt.reason) < 5000


def test_nobody_goes_on_from_what_was_packed(folder: Folder) -> None:
    with opened_as_pilot(folder) as opened:
        join(opened, "n1")
        add(opened, command("long"))
        start(opened)
        end(opened, (1, replace(INTERRUPTED, resumable=True)))
        with opened.writer.transaction() as connection:
            assert attempt_table.read_where_to_go_on(connection) == {1: "runs/000/000001"}
            connection.exec_driver_sql("UPDATE attempts SET archive = 'runs/packed/tasks.zip'")
            assert attempt_table.read_where_to_go_on(connection) == {}
