"""`pilot run`: its exit codes, its signals, its view, its log."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Typist, living_pilot, process, wait_for

from pilot.__main__ import misplaced
from pilot.cli.presence import look
from pilot.folder import Folder
from pilot.snapshot import read_snapshot


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    (tmp_path / "pilot.toml").touch()
    return Typist(tmp_path, capsys, monkeypatch)


def runs(folder: Folder) -> bool:
    """Whether a task is seen to run."""
    shown = read_snapshot(folder)
    return shown is not None and bool(shown.running)


def drains(folder: Folder) -> bool:
    """Whether the pilot is seen to drain."""
    shown = read_snapshot(folder)
    return shown is not None and shown.pilot is not None and shown.pilot.state == "draining"


def test_ctrl_c_drains_and_what_runs_finishes(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--shell", "--", f"while [ ! -e {gate} ]; do sleep 0.05; done")
    typed("add", "--after", "1", "--", "true")
    with process("run", folder=typed.folder.root) as pilot:
        wait_for(lambda: runs(typed.folder), "nothing runs")
        pilot.send_signal(signal.SIGINT)
        wait_for(lambda: drains(typed.folder), "it does not drain")
        gate.touch()
        out, _ = pilot.communicate()
        assert pilot.returncode == 0
    assert "draining (Ctrl-C)" in out
    assert "tasks: 1 done  1 ready" in out
    assert "next:  `pilot run` goes on" in out


def test_a_second_ctrl_c_ends_what_runs_and_the_next_pilot_runs_it_again(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--shell", "--", f"test -e {gate} || sleep 600")
    with process("run", folder=typed.folder.root) as pilot:
        wait_for(lambda: runs(typed.folder), "nothing runs")
        pilot.send_signal(signal.SIGINT)
        wait_for(lambda: drains(typed.folder), "it does not drain")
        pilot.send_signal(signal.SIGINT)
        out, err = pilot.communicate()
        assert pilot.returncode == 130
    assert "tasks: 1 ready" in out
    assert err == ""
    gate.touch()
    assert "tasks: 1 done" in typed("run").out


def test_a_pilot_that_was_killed_is_called_dead_and_the_next_goes_on(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--shell", "--", f"test -e {gate} || sleep 600")
    with living_pilot(typed.folder) as pilot:
        wait_for(lambda: runs(typed.folder), "nothing runs")
        pilot.kill()
        pilot.wait()
    assert "has died without a word" in typed("status").out
    gate.touch()
    assert "tasks: 1 done" in typed("run").out


def test_the_walltime_drains_in_time(typed: Typist) -> None:
    typed("add", "--time-request", "10 min", "--", "true")
    # it would need more than a whole run of that length has
    out = typed("run", "--walltime", "2 min", "--cores", "1", code=1).out
    assert "nothing that is left fits into the time that is left" in out
    assert "tasks: 1 ready" in out
    assert "1 cores" in out
    assert "tasks: 1 done" in typed("run", "--walltime", "1 h").out


def test_what_happens_is_logged_with_its_time(typed: Typist) -> None:
    typed("add", "--", "false")
    out = typed("run", code=1).out
    assert re.search(r"(?m)^\d\d:\d\d:\d\d pilot 1 begins in ", out)
    assert re.search(r"(?m)^\d\d:\d\d:\d\d task 1 \(false\) failed: crashed: exit code 1$", out)
    log = typed.folder.log.read_text()
    assert re.search(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO task 1 \(false\) failed", log)
    # what is old is not told again
    assert "failed: crashed" not in typed("run", code=1).out


def test_what_ends_a_pilot_is_logged_too(typed: Typist) -> None:
    typed("add", "--", "true")
    typed.folder.database.write_bytes(b"no database" * 1000)
    assert "the database is damaged" in typed.fails("run", code=6)
    assert "ERROR the database is damaged" in typed.folder.log.read_text()


def test_a_terminal_shows_a_view(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--name", "doorkeeper", "--shell", "--", f"while [ ! -e {gate} ]; do sleep 0.05; done")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "pilot", "run"],
        cwd=typed.folder.root,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "30"},
    ) as pilot:
        os.close(theirs)
        seen = read_until(ours, "doorkeeper")
        pilot.send_signal(signal.SIGINT)
        seen += read_until(ours, "Ctrl-C again ends what runs now")
        gate.touch()
        seen += read_until(ours, "done")
        seen += read_until(ours, None)
    os.close(ours)
    assert pilot.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "Ctrl-C drains: nothing new starts" in plain
    assert "cores busy on" in plain
    assert "ended after" in plain
    assert "Traceback" not in plain


def read_until(terminal: int, text: str | None) -> str:
    """What a terminal shows until ``text`` is there; None: to the end."""
    seen = ""
    while text is None or text not in seen:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            # Linux says so when the other end is closed
            assert text is None, f"{text!r} was never shown: {seen}"
            break
        seen += piece.decode(errors="replace")
    return seen


def test_the_packages_lie_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert misplaced() == ""
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-m", "pilot", "status"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert f"{tmp_path / 'db'} was found" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_is_left_behind(typed: Typist) -> None:
    typed("add", "--", "true")
    typed("run")
    assert look(typed.folder).free
    assert not typed.folder.lease.exists()
