"""Drains of a real pilot: until when it works, what it still starts, and how it is taken back."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from command_line import Typist
from folders import make_folder
from started_pilot import SLEEP, Started, ask, given, put, until

from db.errors import InputError
from pilot.config import read_config
from pilot.folder import Folder
from pilot.snapshot import read_snapshot
from pilot.supervisor import run_pilot

#: soft stop, SIGTERM and the last commit take this at the end of a short allocation
TAKES_S = 1.0 + 5.0 + 15.0


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "campaign", "[run]\ncores = 2\nsoft_stop = 1\n")


def states(folder: Folder) -> dict[str, int]:
    seen = read_snapshot(folder)
    assert seen is not None
    return seen.tasks["command"]


def pilots(folder: Folder) -> list[tuple[str, str]]:
    """State and reason of each pilot, from the published copy."""
    with closing(sqlite3.connect(f"file:{folder.copy}?mode=ro", uri=True)) as raw:
        return list(raw.execute("SELECT state, reason FROM pilots ORDER BY id"))


def test_until_the_time_of_a_drain_what_fits_still_starts(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given("sleep", "2")])
    pilot = started(folder)
    pilot.wait_for_running(1)
    answer = ask(folder, "drain", by=time.time() + TAKES_S + 8.0)
    assert "will have ended in 29 s" in answer["said"]
    ask(folder, "add", tasks=[given("true", time_request_s=1.0), given("true", time_request_s=100.0)])
    until(lambda: states(folder).get("done") == 2)
    assert pilot.wait() == 0
    assert states(folder) == {"done": 2, "ready": 1}


def test_the_time_of_a_drain_holds_for_the_next_pilot_until_it_is_taken_back(folder: Folder) -> None:
    put(folder, "add", tasks=[given("true", time_request_s=100.0)])
    assert "no pilot is alive" in put(folder, "drain", by=time.time() + 60.0)["said"]
    why = run_pilot(folder, read_config(folder.config))
    assert why == "nothing that is left fits into the time that is left before the time of pilot drain --by"
    assert states(folder) == {"ready": 1}
    assert put(folder, "resume")["said"] == "the time of `pilot drain --by` is taken back"
    run_pilot(folder, read_config(folder.config))
    assert states(folder) == {"done": 1}
    assert not put(folder, "resume")["ok"]


def test_a_time_that_has_passed_changes_nothing(folder: Folder) -> None:
    answer = put(folder, "drain", by=time.time() - 1.0)
    assert (answer["ok"], answer["code"]) == (False, 2)
    assert "has passed" in answer["said"]


def test_sigterm_asks_what_runs_to_stop_at_once(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given(*SLEEP), given("true", after=[1])])
    pilot = started(folder)
    pilot.wait_for_running(1)
    os.kill(pilot.process.pid, signal.SIGTERM)
    assert pilot.wait() == 0
    assert states(folder) == {"ready": 1, "waiting": 1}
    assert pilots(folder) == [("ended", "drained (SIGTERM)")]


def test_a_drain_is_recorded_and_taken_back(folder: Folder, started: Callable[..., Started]) -> None:
    put(folder, "add", tasks=[given("sleep", "30"), given("true", after=[1])])
    pilot = started(folder)
    pilot.wait_for_running(1)
    ask(folder, "drain")
    until(lambda: folder.copy.exists() and pilots(folder) == [("draining", "pilot drain")])
    assert ask(folder, "resume")["ok"]
    until(lambda: pilots(folder) == [("active", "")])
    ask(folder, "drain", now=True)
    assert pilot.wait() == 0
    assert states(folder) == {"ready": 1, "waiting": 1}


def test_what_is_ended_by_a_drain_costs_no_retry_and_ends_in_this_pilots_session(
    folder: Folder, started: Callable[..., Started]
) -> None:
    stubborn = "trap '' TERM INT; while :; do sleep 1; done"
    put(folder, "add", tasks=[given("sh", "-c", stubborn)])
    pilot = started(folder)
    pilot.wait_for_running(1)
    ask(folder, "drain", now=True)
    assert pilot.wait() == 0
    with closing(sqlite3.connect(f"file:{folder.copy}?mode=ro", uri=True)) as raw:
        assert list(raw.execute("SELECT state, tries FROM tasks")) == [("ready", "{}")]
        assert list(raw.execute("SELECT verdict, signal FROM attempts")) == [("interrupted", 9)]


def test_a_walltime_in_which_nothing_could_run_is_refused(folder: Folder) -> None:
    config = read_config(folder.config).wishing(walltime=20.0)
    with pytest.raises(InputError, match="leaves no time for any task"):
        run_pilot(folder, config)


def test_a_task_too_long_for_the_allocation_is_reported(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = Typist(folder.root, capsys, monkeypatch)
    put(folder, "add", tasks=[given("true", time_request_s=7200.0), given("true")])
    out = typed("run", "--walltime", "1 h", code=1).out
    assert "1 task needs more time than an allocation like this one has" in " ".join(out.split())
    status = typed("status").out
    assert "needs about 2 h, longer than an allocation like this one has for tasks" in " ".join(status.split())


def test_what_a_task_is_expected_to_need_is_shown_with_the_reason(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = Typist(folder.root, capsys, monkeypatch)
    put(folder, "add", tasks=[given("true", time_request_s=7200.0), given("true")])
    assert "expected 2 h: as requested" in " ".join(typed("show", "1").out.split())
    assert "expected nothing is known of it" in " ".join(typed("show", "2").out.split())
