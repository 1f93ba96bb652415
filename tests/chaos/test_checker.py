"""The checker of the chaos runner finds nothing wrong in what is right, and what was made wrong."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from checker import check

from pilot.cli.app import run

KNOWN = Path(__file__).with_name("known.sh")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of two tasks that were run undisturbed."""
    tmp_path = tmp_path_factory.mktemp("undisturbed")
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "pilot.toml").write_text("")
    (tmp_path / "known.sh").write_bytes(KNOWN.read_bytes())
    for name in ("book", "tmp"):
        (tmp_path / name).mkdir()
    plan = []
    for number in (1, 2):
        argv = ["/bin/sh", str(tmp_path / "known.sh"), "sum", f"sum-{number}", str(number)]
        assert run(["add", "--folder", str(tmp_path / "campaign"), "--name", f"sum-{number}", "--", *argv]) == 0
        known = {"name": f"sum-{number}", "kind": "sum", "number": number, "fate": "done", "parents": []}
        plan.append(known | {"asked": "yes", "id": number, "answer": number * (number + 1) // 2})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert run(["run", "--plain", "--cores", "2", "--folder", str(tmp_path / "campaign")]) == 0
    return tmp_path


@pytest.fixture
def root(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    return tmp_path


def change(root: Path, *statements: str) -> None:
    """The database, without its own rules."""
    with closing(sqlite3.connect(root / "campaign" / "state" / "pilot.db")) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        database.commit()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


#: what is done to it, and what is to be said of it
WRONGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "executed twice": (lambda root: append(root / "book" / "sum-1", "start 0 1 1 1.0\n"), "more than once"),
    "executed later": (lambda root: append(root / "book" / "sum-1", "start 1 1 1 9999999999.0\n"), "after it was done"),
    "a stranger": (lambda root: append(root / "book" / "sum-1", "start 0 77 1 1.0\n"), "not recorded"),
    "two met": (lambda root: append(root / "book" / "sum-1", "overlap 0 1 1 1.0\n"), "two executions met"),
    "another answer": (
        lambda root: change(root, "UPDATE attempts SET directory = 'runs/000/x' WHERE id = 1"),
        "not there",
    ),
    "another state": (lambda root: change(root, "UPDATE tasks SET state = 'failed' WHERE id = 1"), "must be done"),
    "no event": (lambda root: change(root, "DELETE FROM events WHERE event = 'started'"), "while"),
    "the same core": (
        lambda root: change(root, "UPDATE attempts SET cores = '[0]', started_at = 1.0, ended_at = 2.0"),
        "both held core 0",
    ),
    "added twice": (lambda root: change(root, "UPDATE tasks SET name = 'sum-1'"), "was added 2 times"),
    "a lease": (lambda root: append(root / "campaign" / "state" / "lease.json", "{}"), "lease.json is left"),
    "half a file": (lambda root: append(root / "campaign" / "state" / ".x.new", ""), "left over"),
    "a request": (lambda root: append(root / "campaign" / "state" / "inbox" / "1.json", "{}"), "in the inbox"),
}


def test_what_is_right_is_found_right(root: Path) -> None:
    assert check(root, None).wrong == []


@pytest.mark.parametrize("what", WRONGS)
def test_what_is_wrong_is_found(root: Path, what: str) -> None:
    spoil, said = WRONGS[what]
    spoil(root)
    wrong = check(root, None).wrong
    assert any(said in line for line in wrong), wrong


def test_a_process_that_is_left_is_found(root: Path) -> None:
    environ = {**os.environ, "CHAOS_FOLDER": str(root / "campaign")}
    with subprocess.Popen(["sleep", "60"], env=environ) as left:
        try:
            assert any(f"process {left.pid} is left" in line for line in check(root, None).wrong)
        finally:
            left.kill()
