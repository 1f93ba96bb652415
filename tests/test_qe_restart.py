"""A stopped run of pw.x goes on in the next attempt; whatever it was given, the answer is the same."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from db import pilot_table
from db.engine import Writer
from db.errors import InputError, StorageError
from db.records import Label, NewTask, Resources
from db.states import TaskKind, Verdict
from pilot import host
from pilot.agent.messages import Ended, Start
from pilot.folder import Folder
from pilot.ledger import Ledger
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.scheduler.reactor import Reactor
from pilot.turn import Turn
from tasks.engines import qe_restart
from tasks.engines.qe import ENGINE
from tasks.protocol import Cause, Exit, Judgement, Work
from tasks.registry import RESUMING, engine
from tasks.scratch import drop
from tests import agents
from tests.qe_runs import finish, middling_work, needs_files, needs_pw, run, start, until_step, work

# conv_thr is 1e-11 Ry: the energy is right to that, and forces to about its root, in Ry/bohr
ENERGY_EV, FORCE, STRESS = 2e-7, 5e-5, 2e-6


def stopped_at(task: Work, step: int) -> Judgement:
    """Start it, and ask it to stop in an SCF step."""
    process = start(task)
    until_step(task, step, process)
    assert ENGINE.stop_softly(task)
    return ENGINE.judge(task, replace(finish(process), cause=Cause.DRAIN))


def after(task: Work, name: str, **changes: Any) -> Work:
    """The next attempt, in its own folder, told of this one."""
    directory = task.directory.with_name(name)
    directory.mkdir()
    return replace(task, directory=directory, previous=task.directory, attempt_id=task.attempt_id + 1, **changes)


def restarts(task: Work) -> bool:
    return "= 'restart'" in (task.directory / "pw.in").read_text()


def scratch(task: Work) -> Path:
    return task.directory / "scratch"


def assert_same(label: Label | None, wanted: Label | None) -> None:
    assert label is not None
    assert wanted is not None
    assert label.stress is not None
    assert wanted.stress is not None
    assert label.energy == pytest.approx(wanted.energy, abs=ENERGY_EV)
    assert np.array(label.forces) == pytest.approx(np.array(wanted.forces), abs=FORCE)
    assert np.array(label.stress) == pytest.approx(np.array(wanted.stress), abs=STRESS)


@pytest.fixture(scope="module", autouse=True)
def short_runs_are_worth_it() -> Iterator[None]:
    """The runs of these tests take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qe_restart, "WORTH_S", 0.0)
        yield


@needs_pw
def test_what_has_run_for_a_few_minutes_only_starts_over(tmp_path, monkeypatch):
    monkeypatch.setattr(qe_restart, "WORTH_S", RESUMING["qe"])
    task = middling_work(tmp_path / "a")
    judgement = stopped_at(task, 2)
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)
    assert not scratch(task).exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A run that was stopped in its fourth SCF step; the tests copy it."""
    task = middling_work(tmp_path_factory.mktemp("stopped") / "a")
    judgement = stopped_at(task, 4)
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, True), judgement
    return task


def copy_of(stopped: Work, folder: Path) -> Work:
    shutil.copytree(stopped.directory, folder / "a")
    return replace(stopped, directory=folder / "a")


@needs_pw
def test_a_run_that_is_stopped_twice_gives_the_label_of_one_that_is_not(stopped, tmp_path):
    whole = replace(stopped, directory=tmp_path / "whole")
    whole.directory.mkdir()
    wanted = ENGINE.judge(whole, run(whole))
    first = copy_of(stopped, tmp_path)
    second = after(first, "b")
    again = stopped_at(second, 6)
    assert restarts(second)
    assert (again.verdict, again.resumable) == (Verdict.INTERRUPTED, True)
    assert not scratch(first).exists()
    third = after(second, "c")
    judgement = ENGINE.judge(third, run(third))
    text = (third.directory / "pw.out").read_text()
    assert "Calculation restarted from scf iteration" in text
    assert "iteration #  2" not in text
    assert judgement.verdict is Verdict.DONE, judgement.reason
    assert judgement.facts["restarted"]
    assert "restarted" not in wanted.facts
    assert_same(judgement.label, wanted.label)
    # nothing is left of what was kept
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_a_stale_exit_file_does_not_stop_the_next_attempt(stopped, tmp_path):
    first = copy_of(stopped, tmp_path)
    assert ENGINE.stop_softly(first)
    second = after(first, "b")
    ENGINE.prepare(second)
    assert restarts(second)
    assert not (scratch(second) / qe_restart.EXIT).exists()


def spoil_waves(folder: Path) -> None:
    path = folder / "pilot.wfc1"
    os.truncate(path, path.stat().st_size // 2)


def spoil_density(folder: Path) -> None:
    (folder / "pilot.save" / "charge-density.dat").write_text("garbage")


def spoil_xml(folder: Path) -> None:
    (folder / "pilot.save" / "data-file-schema.xml").write_text("<garbage")


@needs_pw
@pytest.mark.parametrize("spoil", [spoil_waves, spoil_density, spoil_xml])
def test_what_pw_refuses_to_go_on_from_costs_no_retry_and_is_not_tried_again(stopped, tmp_path, spoil):
    """It complains of a file, or is aborted by its XML library with an empty output: never bad input, never charged."""
    first = copy_of(stopped, tmp_path)
    spoil(scratch(first))
    second = after(first, "b")
    end = run(second)
    assert restarts(second)
    judgement = ENGINE.judge(second, end)
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False), judgement
    assert "starts afresh" in judgement.reason
    # the pilot still tells the next one of the first attempt: there is nothing any more
    third = after(first, "c")
    ENGINE.prepare(third)
    assert not restarts(third)
    assert not list(tmp_path.rglob("scratch"))


def forget_key(task: Work) -> Work:
    (scratch(task) / "pilot.key").unlink()
    return task


def forget_a_file(task: Work) -> Work:
    (scratch(task) / "pilot.restart_scf").unlink()
    return task


def forget_all(task: Work) -> Work:
    shutil.rmtree(task.directory)
    return task


def with_other(**changes: Any) -> Callable[[Work], Work]:
    return lambda task: replace(task, spec={**task.spec, **changes})


def with_other_setting(task: Work) -> Work:
    return with_other(settings={**task.spec["settings"], "ecutwfc": 31})(task)


def with_other_atoms(task: Work) -> Work:
    structure = {**task.spec["structure"]}
    structure["positions"] = [[x + 0.01 for x in row] for row in structure["positions"]]
    return with_other(structure=structure)(task)


@needs_pw
@pytest.mark.parametrize(
    "change",
    [
        forget_key,
        forget_a_file,
        forget_all,
        with_other_setting,
        with_other_atoms,
        with_other(kpoints=[4, 4, 3]),
        lambda task: replace(task, resources=Resources(ranks=2)),
    ],
)
def test_what_is_not_of_this_very_task_is_not_used_and_is_removed(stopped, tmp_path, change):
    first = change(copy_of(stopped, tmp_path))
    second = after(first, "b")
    ENGINE.prepare(second)
    assert not restarts(second)
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_an_input_that_cannot_be_made_leaves_nothing_behind(stopped, tmp_path):
    first = copy_of(stopped, tmp_path)
    wrong = with_other(settings={**first.spec["settings"], "pseudopotentials": {}})(first)
    with pytest.raises(InputError):
        ENGINE.prepare(after(wrong, "b"))
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_a_disk_that_refuses_leaves_nothing_behind(stopped, tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    first = copy_of(stopped, tmp_path)
    monkeypatch.setattr(shutil, "move", refuse)
    with pytest.raises(StorageError, match="full"):
        ENGINE.prepare(after(first, "b"))
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_a_stop_that_is_the_end_of_the_task_keeps_nothing(stopped, tmp_path):
    for cause, verdict in ((Cause.CANCEL, Verdict.CANCELLED), (Cause.TIMEOUT, Verdict.TIMEOUT)):
        task = copy_of(stopped, tmp_path)
        judgement = ENGINE.judge(task, Exit(code=255, cause=cause))
        assert (judgement.verdict, judgement.resumable) == (verdict, False)
        assert not scratch(task).exists()
        shutil.rmtree(task.directory)


@needs_pw
def test_a_stop_that_was_not_finished_keeps_nothing(stopped, tmp_path):
    """JOB DONE comes when all files are closed; before it, who knows."""
    task = copy_of(stopped, tmp_path)
    path = task.directory / "pw.out"
    path.write_text(path.read_text().replace("JOB DONE", ""))
    judgement = ENGINE.judge(task, Exit(signal=9, cause=Cause.DRAIN))
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)
    assert not scratch(task).exists()


@needs_pw
def test_a_restarted_run_that_is_killed_starts_afresh(stopped, tmp_path):
    first = copy_of(stopped, tmp_path)
    second = after(first, "b")
    process = start(second)
    until_step(second, 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    judgement = ENGINE.judge(second, Exit(cause=Cause.LOST))
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)
    third = after(first, "c")
    ENGINE.prepare(third)
    assert not restarts(third)
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_a_stop_before_the_first_step_has_nothing_to_keep(tmp_path):
    task = middling_work(tmp_path / "a")
    assert ENGINE.stop_softly(task)
    judgement = ENGINE.judge(task, run(task))
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, False)
    assert not scratch(task).exists()


@needs_pw
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun")
def test_several_ranks_in_pools_go_on_too(tmp_path):
    def start_two(task: Work) -> subprocess.Popen[bytes]:
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
        argv = ["mpirun", "--oversubscribe", "-np", "2", *ENGINE.prepare(task).argv]
        with (task.directory / "pw.out").open("wb") as out, (task.directory / "pw.err").open("wb") as err:
            return subprocess.Popen(argv, cwd=task.directory, env={**os.environ, **root}, stdout=out, stderr=err)

    first = replace(middling_work(tmp_path / "a", command="pw.x -npool 2"), resources=Resources(ranks=2))
    process = start_two(first)
    until_step(first, 3, process)
    assert ENGINE.stop_softly(first)
    judgement = ENGINE.judge(first, finish(process))
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, True), judgement
    second = after(first, "b")
    judgement = ENGINE.judge(second, finish(start_two(second)))
    assert restarts(second)
    assert judgement.verdict is Verdict.DONE, judgement.reason
    assert not list(tmp_path.rglob("scratch"))


@needs_pw
def test_an_agent_stops_it_and_another_goes_on(tmp_path, monkeypatch):
    """All the way: the drain's soft stop, the launcher, mpirun if there is one, the judgement, the next attempt."""
    monkeypatch.setattr(agents, "small_engine", engine)
    spec = middling_work(tmp_path / "x").spec
    first = Start(1, 7, "qe", spec, "runs/1", Resources(), tuple(host.usable_cores()[:1]), (), 0, None, None)
    bench = agents.Bench(tmp_path)
    try:
        bench.comm.send(bench.node, first)
        out = tmp_path / "runs" / "1" / "pw.out"
        bench.until(lambda: out.exists() and "iteration #  3" in out.read_text())
        bench.stop(1, Cause.DRAIN, soft_s=50.0)
        judgement = bench.wait(1).judgement
        assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, True), judgement
        bench.comm.send(bench.node, replace(first, attempt_id=2, directory="runs/2", previous="runs/1"))
        judgement = bench.wait(2).judgement
        assert judgement.verdict is Verdict.DONE, judgement
        assert judgement.facts["restarted"]
    finally:
        bench.comm.close()
    assert not list(tmp_path.rglob("scratch"))


@needs_files
def test_without_an_earlier_attempt_nothing_is_restarted(tmp_path):
    task = work(tmp_path / "a", bulk("Al", a=4.04))
    ENGINE.prepare(task)
    assert not restarts(task)
    assert not scratch(task).exists()


# --- what becomes of kept scratch when there is no next attempt ---------------------------------------------


class Books:
    """A ledger with one node and one task that labels, and the folders of its attempts."""

    def __init__(self, root: Path, writer: Writer) -> None:
        self.folder = Folder(root)
        self.ledger = Ledger(self.folder, writer, Reactor(), None)
        self.ledger.node_joined(Node("here", (0,), 1000))
        with writer.transaction() as connection:
            epoch = pilot_table.begin_pilot(connection, host="here", pid=1, job_id=None, at=1.0)
        writer.bind(epoch)
        with self.ledger.turn(1.0) as turn:
            (self.task,) = turn.add([NewTask(TaskKind.LABEL, "qe", "label", {})])

    def attempt(self, verdict: Verdict, *, resumable: bool = False, cancelled: bool = False) -> Path:
        """Start one and end it so; what it kept lies in its folder."""
        with self.ledger.turn(2.0) as turn:
            turn.start(Clock(2.0))
        (entry,) = turn.actions.start
        directory = self.folder.root / entry.attempt.directory
        (directory / "scratch" / "pilot.save").mkdir(parents=True)
        if cancelled:
            self.cancel()
        with self.ledger.turn(3.0) as turn:
            turn.end_attempts([Ended(entry.attempt.id, Exit(), Judgement(verdict, "so", resumable=resumable))])
        self.act(turn)
        return directory

    def cancel(self) -> None:
        with self.ledger.turn(3.0) as turn:
            turn.cancel([self.task.id], "unwanted")
        self.act(turn)

    def act(self, turn: Turn) -> None:
        for directory in turn.actions.discard:
            drop(self.folder.root / directory)


def test_what_was_kept_is_removed_when_the_task_is_cancelled(tmp_path, writer):
    books = Books(tmp_path, writer)
    kept = books.attempt(Verdict.INTERRUPTED, resumable=True)
    assert (kept / "scratch").exists()
    books.cancel()
    assert not (kept / "scratch").exists()


def test_what_was_kept_by_a_task_that_was_cancelled_while_it_stopped_is_removed(tmp_path, writer):
    books = Books(tmp_path, writer)
    kept = books.attempt(Verdict.INTERRUPTED, resumable=True, cancelled=True)
    assert not (kept / "scratch").exists()


@pytest.mark.parametrize("verdict", [Verdict.INFRASTRUCTURE, Verdict.CRASHED, Verdict.DONE])
def test_what_was_kept_is_removed_when_a_later_attempt_does_not_take_it(tmp_path, writer, verdict):
    """For instance as its folder could not be made."""
    books = Books(tmp_path, writer)
    kept = books.attempt(Verdict.INTERRUPTED, resumable=True)
    books.attempt(Verdict.INTERRUPTED)
    assert (kept / "scratch").exists()
    books.attempt(verdict)
    assert not (kept / "scratch").exists()


def test_what_nobody_had_time_to_remove_is_removed_by_the_next_pilot(tmp_path, writer):
    books = Books(tmp_path, writer)
    kept = books.attempt(Verdict.INTERRUPTED, resumable=True)
    with books.ledger.turn(3.0):
        pass
    Ledger(books.folder, writer, Reactor(), None).load()
    assert (kept / "scratch").exists()
    with books.ledger.turn(3.0) as turn:
        turn.cancel([books.task.id], "unwanted")
    # it died before it acted
    assert (kept / "scratch").exists()
    Ledger(books.folder, writer, Reactor(), None).load()
    assert not (kept / "scratch").exists()
