"""What a newcomer stumbled over: the way from `pilot submit` to a pilot, narrow terminals, folders of others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from command_line import Typist
from fake_slurm import FakeSlurm
from rich.console import Console
from rich.text import Text

from pilot import host
from pilot.cli.allocations import _Allocations
from pilot.cli.guard import guarded
from pilot.cli.headline import headline
from pilot.cli.presence import Presence, look
from pilot.cli.submitted import forget, outstanding, remember
from pilot.cli.tables import reasons
from pilot.cli.view import Block, batch_of, status_blocks
from pilot.drain import Urgency
from pilot.folder import Folder
from pilot.lease import Holder, take_lease
from pilot.orders import DrainOrder
from pilot.requests import Steering, _drain
from pilot.snapshot import CampaignStatus, GenerationStatus, NodeStatus, PilotStatus, RunningStatus, Snapshot
from pilot.turn import Turn


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "fake-slurm", monkeypatch)


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    folder = tmp_path / "campaign"
    folder.mkdir()
    typist = Typist(folder, capsys, monkeypatch)
    typist("init", "--site", "generic", "--account", "physics")
    return typist


def printed(blocks: list[Block], width: int) -> str:
    output = Console(width=width, record=True, file=StringIO())
    output.print(*(block.body for block in blocks), sep="\n")
    return output.export_text()


def ended(job_id: str | None, started_at: float) -> PilotStatus:
    return PilotStatus(1, "ended", "node01", 1, job_id, started_at)


def test_status_knows_the_job_that_was_just_submitted(typed: Typist, slurm: FakeSlurm) -> None:
    assert slurm
    said = typed("status").out
    assert "NO PILOT IS ALIVE" in said
    assert "`pilot submit` asks" in said
    assert "`pilot run`" not in said
    typed("add", "--", "true")
    typed("submit")
    said = typed("status").out
    assert "no pilot is alive yet: job 4711 was submitted" in said
    assert "NO PILOT" not in said
    assert "next:" not in said


def test_a_folder_with_a_batch_script_goes_on_by_submit_where_there_is_slurm(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("add", "--", "true")
    assert "next:  `pilot submit` goes on" in typed("status").out
    monkeypatch.setenv("PATH", str(slurm.folder / "nothing"))
    assert "next:  `pilot run` goes on" in typed("status").out


def test_a_submitted_job_counts_until_a_pilot_has_come_of_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert outstanding(folder, None) is None
    remember(folder, "12")
    job = outstanding(folder, None)
    assert job is not None
    assert job.job_id == "12"
    assert outstanding(folder, ended("11", job.at - 10)) == job
    assert outstanding(folder, ended("12", job.at + 10)) is None
    # somebody has typed `pilot run` since
    assert outstanding(folder, ended(None, job.at + 10)) is None
    # the next one of a chain is submitted while the pilot begins
    remember(folder, "13", by="12")
    chained = outstanding(folder, ended("12", host.now() + 10))
    assert chained is not None
    assert chained.job_id == "13"
    (folder.state / "submitted.json").write_text("[1")
    assert outstanding(folder, None) is None
    forget(folder)
    forget(folder)
    assert not (folder.state / "submitted.json").exists()


def test_a_silent_pilot_is_not_hidden_by_a_submitted_job(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    remember(folder, "12")
    with held(folder) as holder:
        silent = Presence(alive=False, free=False, holder=holder, silent_s=1e6)
        lines = headline(None, silent, host.now(), batch_of(folder, None))
    assert "HAS BEEN SILENT" in lines[0].plain


@contextmanager
def held(folder: Folder) -> Iterator[Holder]:
    """A pilot, as far as the lease tells."""
    lease = take_lease(folder, "run")
    try:
        holder = look(folder).holder
        assert holder is not None
        yield holder
    finally:
        lease.release()


def test_what_a_dead_pilot_left_is_not_shown_as_running_under_the_next(tmp_path: Path) -> None:
    (tmp_path / "pilot.toml").touch()
    folder = Folder(tmp_path)
    folder.make()
    snapshot = Snapshot(
        at=host.now() - 60,
        folder=str(tmp_path),
        pilot=PilotStatus(99, "active", "node01", 1, "11", host.now() - 100),
        nodes=[NodeStatus("node01", 8, 4, 1000)],
        tasks={"command": {"ready": 3, "running": 1}},
        why_waiting={"command": {"ready: waits for free cores": 3}},
        running=[RunningStatus(1, "command", "of the dead one", "node01", 4, host.now() - 90, None)],
    )
    folder.status.write_text(snapshot.to_json())
    with held(folder):
        said = printed(status_blocks(folder), 100)
    assert "is starting" in said
    assert "of the dead one" not in said
    assert "cores busy" not in said
    assert "waits for free cores" not in said


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_are_whole_at_any_width(tmp_path: Path, width: int) -> None:
    (tmp_path / "pilot.toml").touch()
    folder = Folder(tmp_path)
    folder.make()
    generation = GenerationStatus(
        stage=1, number=3, outcome="", why="", explorations=4, broke=3, gamma_max=1234.5, gamma_mean=2.0,
        preselected=1834, selected=21, labels=21, labelled=3, labels_failed=0, training_set=136,
        holdout={"n": 12, "eps_F": 0.0312, "eps_E_per_atom": 0.00171}, worse=True, lattice_parameter=3.4371,
    )  # fmt: skip
    with held(folder) as holder:
        snapshot = Snapshot(
            at=host.now(),
            folder=str(tmp_path),
            pilot=PilotStatus(holder.epoch or 0, "active", "node01", 1, "11", host.now() - 100),
            nodes=[NodeStatus("node01", 8, 4, 1000)],
            tasks={"label": {"running": 1}},
            running=[RunningStatus(17, "label", "label " + "x" * 70, "node01", 4, host.now() - 90, 61.0)],
            campaign=CampaignStatus("li", 1, 1, 3, "running", 136, 3.4412, [generation]),
        )
        folder.status.write_text(snapshot.to_json())
        lines = printed(status_blocks(folder), width).splitlines()
    running = next(line for line in lines if line.lstrip().startswith("17"))
    assert running.rstrip().endswith("1 min 1 s")
    assert "node01" in running
    row = next(line for line in lines if line.startswith("s1g03"))
    assert "3.437 (-0.004)" in row
    assert "…" not in row


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_of_allocations_says_why_each_ended_without_breaking_words(width: int) -> None:
    entry = {
        "id": 7, "job_id": "4574010", "state": "ended", "nodes": {"n1": 256, "n2": 256}, "started_at": 1.0,
        "ended_at": 86000.0, "seen_at": None, "reserved_core_s": 512 * 86000.0, "useful_core_s": 400 * 86000.0,
        "failed_core_s": 0.0, "interrupted_core_s": 86000.0, "reason": "drained (the allocation ends in 3 min)",
    }  # fmt: skip
    output = Console(width=width, record=True, file=StringIO())
    output.print(_Allocations([entry]), Text("end"), sep="\n")
    text = output.export_text()
    assert "4574010" in text
    assert "drained (the allocation ends in 3 min)" in text
    assert "12231" in text
    assert "78%" in text
    assert "…" not in text


def test_no_pilot_has_worked_yet(typed: Typist) -> None:
    typed("add", "--", "true")
    assert typed("status", "--allocations").out == "no pilot has worked here yet\n"


def test_nothing_is_submitted_for_a_folder_that_cannot_be_written(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("add", "--", "true")
    # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != typed.folder.root)
    assert "cannot be written" in typed.fails("submit", code=6)
    assert not slurm.calls("sbatch")


def test_options_of_sbatch_without_the_two_dashes_are_understood(typed: Typist, slurm: FakeSlurm) -> None:
    assert "pilot submit -- --nodes=3" in typed.fails("submit", "--nodes=3", code=2)
    assert "pilot submit -- -N3" in typed.fails("submit", "-N3", code=2)
    assert "did you mean --chain?" in typed.fails("submit", "--chian", code=2)
    assert not slurm.calls("sbatch")
    typed("add", "--", "true")
    typed("submit", "--chain", "-f", str(typed.folder.root), "--", "--nodes=3")
    assert "--nodes=3" in slurm.calls("sbatch")[-1][0]


def test_a_folder_of_somebody_else_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def forbidden() -> None:
        raise PermissionError(13, "Permission denied", "/secret/pilot.toml")

    assert guarded(forbidden) == 6
    said = capsys.readouterr().err
    assert said.startswith("error: permission denied")
    assert "/secret/pilot.toml" in said
    assert "bug" not in said


def test_a_drain_without_a_pilot_does_not_advise_to_start_one(typed: Typist) -> None:
    said = typed.fails("drain", code=5)
    assert "`pilot run`" not in said
    assert "scancel" in said


def test_a_pilot_that_has_ended_and_tidies_up_is_ending(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with held(folder) as holder:
        pilot = PilotStatus(
            holder.epoch, "ended", "node01", 1, "11", host.now() - 9, host.now() + 600, "drained (pilot drain)"
        )
        snapshot = Snapshot(host.now(), str(tmp_path), pilot, tasks={"command": {"ready": 1}})
        line = headline(snapshot, look(folder), host.now())[0].plain
    assert "is ending on" in line
    assert "drained (pilot drain)" in line
    assert "left" not in line


def test_a_task_larger_than_the_login_node_is_no_cause_for_a_note(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this machine" not in typed("add", "--ranks", "4096", "--", "true").err
    monkeypatch.setenv("PATH", str(slurm.folder / "nothing"))
    assert "this machine" in typed("add", "--ranks", "4096", "--", "true").err


@pytest.mark.parametrize(("now", "promised"), [(False, True), (True, False)])
def test_a_drain_at_once_does_not_say_that_what_runs_may_finish(now: bool, promised: bool) -> None:
    heard: list[DrainOrder] = []
    steering = Steering(lambda _, order: heard.append(order), lambda _: None, lambda _: False, lambda: "")
    said = _drain(cast(Turn, SimpleNamespace(connection=None)), steering, now=now)["said"]
    assert ("may finish" in said) is promised
    assert heard == [DrainOrder("pilot drain", Urgency.NOW if now else Urgency.WISH)]


def test_what_a_drain_by_a_time_says_where_no_pilot_is(typed: Typist) -> None:
    said = typed("drain", "--by", "+1h", "--wait").out
    assert "no pilot is alive" in said
    assert "the pilot has ended" not in said
    refused = typed.fails("drain", "--by", "soon", code=2)
    assert "where: --by" in refused
    typed("resume")
    assert f"where: {typed.folder.root}" in typed.fails("resume", code=5)
    assert "where: --time-limit" in typed.fails("add", "--time-limit", "0", "--", "true", code=2)


def test_doctor_sees_that_the_state_is_damaged_and_names_the_cure(typed: Typist) -> None:
    typed("add", "--", "true")
    assert "nothing was changed" in typed("doctor", "--repair", "--yes").out
    typed.folder.status.write_text("{")
    said = " ".join(typed("doctor", code=3).out.split())
    assert "damaged: status.json cure: `pilot doctor --repair` says what could be done" in said
    typed.folder.status.unlink()
    assert "state/status.json is gone" in typed("status").out


def test_a_drain_says_when_what_runs_is_asked_to_stop() -> None:
    pilot = PilotStatus(1, "draining", "node01", 1, None, 0.0, remark="pilot drain", stop_at=160.0)
    snapshot = Snapshot(at=99.0, folder="", pilot=pilot, why_waiting={"label": {"ready: waits for free cores": 2}})
    holder = Holder("n", "node01", "", 1, 1, None, "run", since=0.0, heartbeat=99.0, epoch=1)
    lines = headline(snapshot, Presence(alive=True, free=False, holder=holder), 100.0)
    assert "what still runs is asked to stop in 1 min" in str(lines[0])
    why = reasons(snapshot, alive=True)
    assert why is not None
    assert "the pilot drains" in printed([Block(0, why)], 80)
