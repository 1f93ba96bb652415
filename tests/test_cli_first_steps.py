"""From an empty folder to the output of a command, as a newcomer types it."""

import json
import os
import re
from pathlib import Path

import pytest
from command_line import Typist, living_pilot, process, wait_for

from db.errors import MissingError
from db.states import TaskState
from pilot.cli.records import read_record
from pilot.folder import Folder


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    typist = Typist(tmp_path, capsys, monkeypatch)
    typist("init")
    return typist


def test_init_add_run_status_show_log(typed: Typist) -> None:
    typed("add", "--name", "greeting", "--env", "WHO=world", "--", "sh", "-c", "echo hello $WHO")
    typed("add", "--after", "1", "--shell", "--", "echo problem >&2; exit 7")
    typed("add", "--after-ended", "2", "--count", "2", "--", "sh", "-c", "echo number $PILOT_NUMBER; pwd")
    typed("add", "--after", "2", "--", "true")
    said = typed("run", "--plain", code=1)
    assert "tasks: 3 done  1 failed  1 waiting" in said.out
    assert "task 2 (echo problem >&2; exit 7) failed: crashed: exit code 7: problem" in said.out
    assert "pilot retry --failed" in said.out
    status = typed("status").out
    assert re.search(r"command +1 +3 +1 +5\n", status)
    assert "can never start" in status
    shown = typed("show", "2").out
    assert shown.startswith("task 2: echo problem >&2; exit 7 is failed\n")
    assert shown.count("\nattempt ") == 3
    assert re.search(r"\nneeds\n1 +done +greeting +to be done\n", shown)
    assert re.search(r"\nneeded by\n3 +done", shown)
    assert f"{typed.folder.runs}/000/" in shown
    assert typed("log", "1").out == "hello world\n"
    assert typed("log", "2", "--stderr", "--attempt", "1").out == "problem\n"
    assert typed("log", "4").out == f"number 2\n{typed.folder.root}\n"
    assert "failed: crashed" in typed.folder.log.read_text()


def test_what_failed_is_tried_again_and_what_is_not_wanted_is_cancelled(typed: Typist) -> None:
    flag = typed.folder.root / "flag"
    typed("add", "--", "test", "-e", str(flag))
    typed("add", "--after", "1", "--", "true")
    typed("run", code=1)
    flag.touch()
    assert typed("retry", "--failed").out == "to be tried again: task 1\n"
    assert "tasks: 2 done" in typed("run").out
    typed("add", "--count", "4", "--", "true")
    assert typed("cancel", "3-4,6").out == "cancelled: tasks 3–4, 6\n"
    listed = json.loads(typed("status", "--tasks", "--state", "cancelled", "--json").out)
    assert [task["id"] for task in listed] == [6, 4, 3]
    assert "3 done  3 cancelled" in typed("run").out
    assert "the newest 2 of 6" in typed("status", "--tasks", "--limit", "2").out


def test_the_command_behind_the_dashes_is_taken_as_it_stands(typed: Typist) -> None:
    label = typed.folder.root / "label"
    label.write_text("#!/bin/sh\necho I am a program: $*\n")
    label.chmod(0o755)
    typed("add", "--env", f"PATH={typed.folder.root}:{os.environ['PATH']}", "--", "label", "--ranks", "--", "x y")
    task = read_record(typed.folder, 1).task
    assert task.spec["argv"] == ["label", "--ranks", "--", "x y"]
    assert task.name == "label --ranks -- 'x y'"
    typed("run")
    assert typed("log", "1").out == "I am a program: --ranks -- x y\n"


def test_options_become_what_the_task_holds(typed: Typist) -> None:
    typed("add", "--ranks", "2", "--threads", "3", "--gpus", "1", "--memory", "2 GB", "--priority", "7",
          "--time-request", "1:30:00", "--time-limit", "2 h", "--", "pw.x")  # fmt: skip
    typed("add", "--ranks", "2", "--no-mpi", "--after", "1", "--", "pw.x")
    record = read_record(typed.folder, 1)
    held = record.task.resources
    assert (held.ranks, held.threads, held.gpus, held.memory_mb) == (2, 3, 1, 2000)
    assert (record.task.priority, record.task.time_request_s, record.task.time_limit_s) == (7, 5400.0, 7200.0)
    assert record.task.spec["mpi"] is True
    assert read_record(typed.folder, 2).task.spec["mpi"] is False
    as_data = json.loads(typed("show", "2", "--json").out)
    assert as_data["needs"] == [{"task": 1, "kind": "done", "state": "ready"}]


def test_an_example_is_copied_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    typed = Typist(tmp_path, capsys, monkeypatch)
    name = typed("init", "--list-examples").out.split(":")[0]
    assert name == "li-laptop"
    typed("init", "made", "--example", name)
    source = Path(__file__).parent.parent / "examples" / name
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    made = tmp_path / "made"
    assert {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()} == files


def test_a_living_pilot_is_asked(typed: Typist) -> None:
    typed("add", "--", "sleep", "60")
    with living_pilot(typed.folder) as pilot:
        assert typed("add", "--", "echo", "from outside").out == "added: task 2\n"
        wait_for(lambda: state_of(typed.folder, 2) is TaskState.DONE, "the task is not run")
        assert typed("log", "2").out == "from outside\n"
        assert "error: there is no task 99" in typed.fails("add", "--after", "99", "--", "true", code=3)
        assert typed("status").out.startswith("pilot 1 is active on ")
        assert json.loads(typed("status", "--json").out)["alive"] is True
        assert "a pilot is alive in this folder" in typed.fails("run", code=4)
        assert "draining" in typed("drain").out
        assert "starts tasks again" in typed("resume").out
        assert "not draining" in typed.fails("resume", code=5)
        assert "the pilot has ended" in typed("drain", "--now", "--wait").out
        assert pilot.stdout is not None
        assert "tasks: 1 done  1 ready" in pilot.stdout.read()
        assert pilot.wait() == 0
    assert state_of(typed.folder, 1) is TaskState.READY


def state_of(folder: Folder, task_id: int) -> TaskState | None:
    """As the pilot has published it; None while the published copy is older than the task."""
    try:
        return read_record(folder, task_id).task.state
    except MissingError:
        return None


def test_output_is_followed_while_it_grows(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--shell", "--", f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo last")
    with living_pilot(typed.folder):
        wait_for(lambda: bool(read_record(typed.folder, 1).attempts), "the task is not started")
        with process("log", "1", "--follow", folder=typed.folder.root) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "first\n"
            gate.touch()
            assert follower.stdout.read() == "last\n"
        assert follower.returncode == 0
