"""Disks that are full, read-only, slow or failing, under a real pilot: words, nothing lost, nothing done twice."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from command_line import Typist, wait_for
from faults import strace
from folders import command, make_folder

from db import task_table
from db.engine import open_writer
from db.errors import StorageError
from pilot.folder import Folder

RUN = [sys.executable, "-P", "-m", "pilot", "run", "--plain"]
TASKS = 12


@contextmanager
def disk(place: Path, options: str) -> Iterator[Path]:
    """A small disk of our own."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a disk for this")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def with_tasks(folder: Folder, *, line: str, number: int = TASKS) -> None:
    """Tasks that run a line of shell, in which # stands for their number."""
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        tasks = [command("sh", "-c", line.replace("#", str(task)), key=f"task {task}") for task in range(number)]
        task_table.insert_tasks(connection, tasks, 0.0)
    writer.close()


def states(folder: Folder) -> dict[str, int]:
    with closing(sqlite3.connect(folder.database)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(raw.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())


def run(folder: Folder) -> tuple[int, str]:
    """A pilot until its end: exit code and words."""
    done = subprocess.run(RUN, cwd=folder.root, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def in_words(said: str) -> None:
    assert "Traceback" not in said
    for word in ("error: ", "where: ", "next:  "):
        assert word in said, said


def done(folder: Folder) -> set[str]:
    with closing(sqlite3.connect(folder.database)) as raw:
        return {key for (key,) in raw.execute("SELECT key FROM tasks WHERE state = 'done'")}


def goes_on(folder: Folder, marks: Path) -> None:
    """The fault is gone: the next pilot does what is left, and nothing that was done."""
    before = done(folder)
    code, said = run(folder)
    assert code == 0, said
    assert states(folder) == {"done": len(done(folder))}
    with closing(sqlite3.connect(folder.database)) as raw:
        charged = raw.execute("SELECT key, tries FROM tasks WHERE tries <> '{}'").fetchall()
    assert charged == []
    times = marks.read_text().split()
    assert {f"task {number}" for number in times} == done(folder)
    for key in before:
        assert times.count(key.removeprefix("task ")) == 1


def test_a_full_disk_ends_the_pilot_in_words_and_the_next_goes_on(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with disk(tmp_path / "disk", "size=4m") as place:
        folder = make_folder(place / "campaign")
        with_tasks(folder, line=f"echo # >> {marks}; head -c 99000 /dev/zero || sleep 60")
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        (place / "ballast").write_bytes(bytes(free - 700_000))
        code, said = run(folder)
        assert code == 6, said
        in_words(said)
        assert "the disk or the quota is full" in said
        assert 0 < len(done(folder)) < TASKS
        (place / "ballast").unlink()
        goes_on(folder, marks)


def test_without_room_for_another_file_no_task_spends_its_tries(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with disk(tmp_path / "disk", "size=30m,nr_inodes=40") as place:
        folder = make_folder(place / "campaign")
        with_tasks(folder, line=f"echo # >> {marks}")
        _, said = run(folder)
        assert "No space left on device" in said
        assert 0 < len(done(folder)) < TASKS
        assert states(folder).keys() <= {"done", "ready", "running"}
        remount(place, "nr_inodes=400")
        goes_on(folder, marks)


def test_where_nothing_can_be_written_each_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    with disk(tmp_path / "disk", "size=30m") as place:
        folder = make_folder(place / "campaign")
        with_tasks(folder, line=f"echo # >> {marks}", number=2)
        typed = Typist(folder.root, capsys, monkeypatch)
        typed("run")
        before = folder.database.read_bytes()
        remount(place, "ro")
        for argv in (["run"], ["add", "--", "true"], ["retry", "1"], ["doctor", "--repair", "--yes"]):
            said = typed.fails(*argv, code=6)
            in_words(said)
            assert "Read-only file system" in said
        # what only looks works
        for argv in (["status"], ["show", "1"], ["doctor", "--repair"]):
            typed(*argv)
        assert folder.database.read_bytes() == before
        remount(place, "rw")
        typed("run")
        monkeypatch.undo()


#: what a disk does to the writer of the database: which call, from when on, and what is said of it
FAULTS = [
    ("fdatasync", "error=EIO:when=12", "the disk refuses"),
    ("pwrite64", "error=EDQUOT:when=61+", "quota is full"),
    ("pwrite64", "error=EROFS:when=64+", "read-only"),
]


@pytest.mark.parametrize(("call", "fault", "word"), FAULTS, ids=["EIO once", "EDQUOT", "EROFS"])
def test_a_disk_that_fails_ends_the_pilot_in_words_and_the_next_goes_on(
    tmp_path: Path, call: str, fault: str, word: str
) -> None:
    marks = tmp_path / "marks"
    folder = make_folder(tmp_path / "campaign")
    with_tasks(folder, line=f"echo # >> {marks}")
    paths = [folder.database, Path(f"{folder.database}-journal")]
    with strace(RUN, tmp_path, call, fault, paths, cwd=folder.root) as pilot:
        assert pilot.code() == 6, pilot.said()
        said = pilot.said()
    in_words(said)
    assert word in said
    goes_on(folder, marks)


def test_a_slow_disk_slows_the_pilot_down_and_nothing_else(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    folder = make_folder(tmp_path / "campaign")
    with_tasks(folder, line=f"echo # >> {marks}", number=2)
    with strace(RUN, tmp_path, "fsync,fdatasync", "delay_enter=200000", cwd=folder.root) as pilot:
        wait_for(lambda: folder.lease.exists(), "it does not begin")
        code, said = run(folder)
        assert code == 4, said
        assert "a pilot is alive in this folder" in said
        assert pilot.code() == 0, pilot.said()
        assert "lost" not in pilot.said()
    assert states(folder) == {"done": 2}
    assert sorted(marks.read_text().split()) == ["0", "1"]
    with closing(sqlite3.connect(folder.database)) as raw:
        assert raw.execute("SELECT count(*) FROM attempts").fetchone() == (2,)
    assert not folder.lease.exists()


def test_a_journal_that_cannot_be_written_is_told_and_moved_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "campaign")
    open_writer(folder.database).close()
    journal = Path(f"{folder.database}-journal")
    journal.unlink(missing_ok=True)
    # for root nothing is forbidden: a folder in the way stands for it
    journal.mkdir()
    with pytest.raises(StorageError, match="the disk refuses") as error:
        with_tasks(folder, line="true", number=1)
    assert error.value.where == str(folder.database)
    typed = Typist(folder.root, capsys, monkeypatch)
    assert "pilot.db-journal is no file" in typed("doctor", "--repair", code=6).out
    typed("doctor", "--repair", "--yes")
    with_tasks(folder, line="true", number=1)
    typed("run")
