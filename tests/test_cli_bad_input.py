"""What a user can get wrong is answered with what, where and what to type next."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Typist

from db.errors import InputError
from pilot import host
from pilot.cli import asking
from pilot.cli.options import parse_ids, parse_memory, parse_pairs
from pilot.folder import Folder
from pilot.lease import Holder, take_lease
from pilot.mailbox import waiting_requests

CAMPAIGN = """
[campaign]
name = "aluminium"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 2.0
"""
XYZ = '1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T"\n{} 0 0 0\n'


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    (tmp_path / "pilot.toml").touch()
    return Typist(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("argv", [["status"], ["run"], ["add", "--", "true"], ["show", "1"], ["export"], ["drain"]])
def test_a_folder_that_is_none(typed: Typist, argv: list[str]) -> None:
    (typed.folder.config).unlink()
    said = typed.fails(*argv, code=3)
    assert "it has no pilot.toml" in said
    assert "`pilot init FOLDER`" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\ncorse = 2\n", "unknown key `run.corse`; did you mean `cores`?"),
        ("[run]\ncores = 0\n", "`run.cores`: Input should be greater than or equal to 1 (it is 0)"),
        ('[run]\nwalltime = "soon"\n', "`run.walltime`: 'soon' is not a time"),
        ("[run\n", "this is not valid TOML"),
        (CAMPAIGN.replace("[train]", "[trian]"), "unknown key `trian`; did you mean `train`?"),
        (CAMPAIGN.replace("min_dist = 2.0", ""), "`train.min_dist` is missing"),
    ],
)
def test_mistakes_in_pilot_toml(typed: Typist, text: str, said: str) -> None:
    typed.folder.config.write_text(text)
    error = typed.fails("run", code=2)
    assert said in error
    assert str(typed.folder.config) in error
    assert said in " ".join(typed("doctor", code=3).out.split())


def test_tasks_that_are_not_there(typed: Typist) -> None:
    assert "there are no tasks in this folder yet" in typed.fails("show", "1", code=3)
    typed("add", "--", "true")
    for argv in (["show", "7"], ["log", "7"], ["cancel", "7"], ["retry", "7"], ["add", "--after", "7", "--", "true"]):
        assert "there is no task 7" in typed.fails(*argv, code=3)
    assert "has not been started: it is ready" in typed.fails("log", "1", code=5)
    typed("run")
    assert "has no attempt 2" in typed.fails("log", "1", "--attempt", "2", code=3)
    assert "has ended already" in typed.fails("cancel", "1", code=5)
    assert "only failed or cancelled" in typed.fails("retry", "1", code=5)
    assert "1 done" in typed("run").out


def test_a_task_that_would_wait_for_itself(typed: Typist) -> None:
    assert "in a circle" in typed.fails("add", "--after", "1", "--", "true", code=2)
    assert "in a circle" in typed.fails("add", "--count", "2", "--after-ended", "2", "--", "true", code=2)
    assert "there is no task 3" in typed.fails("add", "--count", "2", "--after", "3", "--", "true", code=3)


def test_a_task_that_is_larger_than_the_machine(typed: Typist) -> None:
    said = typed("add", "--ranks", "4096", "--", "true")
    assert "needs 4096 cores on one node" in said.err
    assert "1 ready" in typed("run", code=1).out
    assert "needs 4096 cores on one node; the largest node has" in typed("status").out
    typed("cancel", "1")
    typed("run")


def test_nothing_that_was_typed_wrong_is_added(typed: Typist) -> None:
    for argv, said in (
        (["add", "--"], "which command?"),
        (["add", "--memory", "much", "--", "true"], "'much' is not a size of memory"),
        (["add", "--time-limit", "soon", "--", "true"], "'soon' is not a time"),
        (["add", "--env", "A", "--", "true"], "'A' does not set a variable"),
        (["add", "--after", "x", "--", "true"], "'x' is not a task"),
        (["add", "--shell", "--", "ls", "-l"], "with --shell the command must be one word"),
        (["add", "a", "--", "true"], "'a' stands before the two dashes"),
        (["retry"], "which tasks"),
        (["retry", "1", "--failed"], "which tasks"),
        (["cancel", ","], "no task is named"),
        (["status", "--kind", "label"], "add --tasks"),
        (["status", "--watch"], "--watch needs a terminal"),
        (["init"], "campaign folder already"),
        (["init", "new", "--example", "li-smallcell"], "did you mean li-small-cell?"),
        (["run", "--walltime", "x"], "'x' is not a time"),
    ):
        assert said in typed.fails(*argv, code=5 if argv == ["init"] else 2)
    assert "nosuchprogram is not a program" in typed("add", "--", "nosuchprogram").err
    assert "Did you mean 'status'?" in typed("stauts", code=2).err
    assert "No such option" in typed("status", "--nope", code=2).err
    assert not (typed.folder.root / "new").exists()


def test_structures_that_cannot_be_labelled(typed: Typist) -> None:
    good, strange, bad = (typed.folder.root / name for name in ("good.extxyz", "strange.extxyz", "bad.extxyz"))
    good.write_text(XYZ.format("Al"))
    strange.write_text(XYZ.format("Cu"))
    bad.write_text("7\nnot whole\nAl 0 0\n")
    (typed.folder.root / "other.extxyz").write_text(XYZ.format("Al").replace("4 0 0", "5 0 0"))
    assert "this folder has no campaign" in typed.fails("add", "label", "good.extxyz", code=2)
    typed.folder.config.write_text(CAMPAIGN)
    assert "7 atoms are promised, and the file ends" in typed.fails("add", "label", "bad.extxyz", code=2)
    assert "cannot read the file" in typed.fails("add", "label", "none.extxyz", code=2)
    assert "this campaign does not know Cu" in typed.fails("add", "label", "good.extxyz", "strange.extxyz", code=2)
    assert "labels do not take --ranks" in typed.fails("add", "label", "--ranks", "2", "good.extxyz", code=2)
    assert "which structures?" in typed.fails("add", "label", code=2)
    assert typed("add", "label", "good.extxyz").out == "1 structures to label: task 1\n"
    assert "1 were known already" in typed("add", "label", "good.extxyz").out
    assert "label good.extxyz #1" in typed("show", "1").out
    typed("add", "label", "--priority", "7", "--after", "1", "--time-limit", "5 min", "other.extxyz")
    shown = typed("show", "2").out
    assert "priority" in shown
    assert "limit 5 min" in shown
    assert "needs" in shown


def test_elements_that_there_are_not(typed: Typist) -> None:
    typed.folder.config.write_text(CAMPAIGN.replace('"Al"', '"Alu"'))
    said = " ".join(typed("doctor", code=3).out.split())
    assert "'Alu' is no chemical symbol" in said
    assert "something is missing" in said
    typed.fails("run", code=2)


def test_radii_that_do_not_fit_the_crystal(typed: Typist) -> None:
    typed.folder.config.write_text(CAMPAIGN.replace("2.0", "3.0"))
    assert "not between train.min_dist and max_dist" in " ".join(typed("doctor", code=3).out.split())


def test_export_before_there_is_anything(typed: Typist) -> None:
    assert "this folder has no campaign" in typed.fails("export", code=5)
    typed.folder.config.write_text(CAMPAIGN)
    assert "there are no tasks in this folder yet" in typed.fails("export", code=3)
    typed("add", "--", "true")
    assert "nothing has been labelled yet" in typed.fails("export", code=5)


def test_a_folder_that_another_process_holds(typed: Typist) -> None:
    with held(typed.folder):
        said = typed.fails("run", code=4)
    assert f"by pid {os.getpid()} on {host.hostname()}" in said
    typed("run")


def test_a_pilot_on_another_machine_that_does_not_answer(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    with held(typed.folder) as holder:
        far = replace(holder, host="elsewhere", heartbeat=host.now())
        typed.folder.lease.write_text(json.dumps(as_json(far)))
        assert "the request is in the inbox" in typed("add", "--", "true").out
        assert [request.verb for request in waiting_requests(typed.folder)[0]] == ["add"]
        assert typed("status").out.startswith("pilot is starting on elsewhere")
        silent = replace(far, heartbeat=host.now() - 600)
        typed.folder.lease.write_text(json.dumps(as_json(silent)))
        assert "THE PILOT ON elsewhere HAS BEEN SILENT FOR 10 min" in typed("status").out
        assert "no pilot is alive" in typed.fails("drain", code=5)
        assert "pilot doctor --release-lease" in typed.fails("run", code=4)
        assert "taken from pid" in typed("doctor", "--release-lease").out
    # what had been asked for was not lost
    assert "1 done" in typed("run").out


def test_a_pilot_that_dies_before_it_answers(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def pause(_seconds: float) -> None:
        looked.append(1)
        if len(looked) == 3:
            typed.folder.lease.unlink()

    monkeypatch.setattr(host, "pause", pause)
    monkeypatch.setattr(asking, "_LOOK_EVERY_S", 0.0)
    with held(typed.folder):
        assert typed("add", "--", "true").out == "added: task 1\n"
    assert waiting_requests(typed.folder) == ([], [])
    assert "1 done" in typed("run").out


def test_what_nobody_foresaw_is_called_a_bug(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pilot.cli.showing.read_record", stumble)
    said = typed("show", "1", code=70).err
    assert "ZeroDivisionError" in said
    assert "this is a bug in pilot" in said


def test_status_that_cannot_be_read(typed: Typist) -> None:
    typed("add", "--", "true")
    typed.folder.status.write_text("{")
    assert "the status is not readable" in typed.fails("status", code=6)
    typed.folder.status.write_text('{"schema": 99}')
    assert "published by another version" in typed.fails("status", code=6)
    typed.folder.lease.write_text("{")
    assert "the lease file is not readable" in typed.fails("drain", code=6)
    assert "nobody holds this folder now" in typed("doctor", "--release-lease").out


@contextlib.contextmanager
def held(folder: Folder) -> Iterator[Holder]:
    """The folder is held by this process, as if by a pilot."""
    lease = take_lease(folder, "run")
    yield lease.holder
    lease.release()


def as_json(holder: Holder) -> dict[str, object]:
    return {name: getattr(holder, name) for name in Holder.__slots__}


def test_ids_as_people_write_them() -> None:
    assert parse_ids(["3", "5-7,9", " 3 "]) == [3, 5, 6, 7, 9]
    for wrong in ("7-5", "-3", "a", "1-", "1-9999999"):
        with pytest.raises(InputError):
            parse_ids([wrong])


def test_sizes_and_variables() -> None:
    assert [parse_memory(text) for text in ("800", "2 GB", "1.5g", "1GiB")] == [800, 2000, 1500, 1074]
    assert parse_pairs(["A=1", "B=", "C=x=y"]) == {"A": "1", "B": "", "C": "x=y"}


def test_nobody_else_may_steer_a_pilot(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("add", "--", "true")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    said = typed.fails("add", "--", "true", code=5)
    assert "nobody else may steer its pilot" in said
    assert waiting_requests(typed.folder) == ([], [])
    typed("status")
