"""Two pilots never both write: one that was frozen, and put out meanwhile, wakes up and changes nothing.

The frozen one stands for a pilot on another machine: suspended, or cut off for a while. Where SQLite's locks are
switched off, as some file systems have none, nothing is left but our own guard.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from command_line import wait_for
from faults import strace
from folders import command, make_folder

from db import task_table
from db.engine import open_writer
from db.errors import HeldError, LostLeaseError
from pilot.folder import Folder
from pilot.lease import lease_of, living_holder, read_holder, release_by_force, take_lease

#: what a process says first whose SQLite uses no locks
NO_LOCKS = """
import db.engine
_with_locks = db.engine._engine
db.engine._engine = lambda url, pragmas: _with_locks(
    url.replace("sqlite:///", "sqlite:///file:") + "?nolock=1&uri=true", pragmas)
"""
RUN = "import sys; from pilot.__main__ import main; sys.argv = ['pilot', 'run', '--plain']; sys.exit(main())"
#: takes the folder, and commits until it is told otherwise
COMMIT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from db import task_table
from db.engine import open_writer
from db.errors import LostLeaseError
from folders import command
from pilot.folder import Folder
from pilot.lease import take_lease
folder = Folder(Path(sys.argv[1]))
lease = take_lease(folder, "run")
writer = open_writer(folder.database, lease.demand, took_over=lease.took_over)
try:
    for number in range(1000):
        with writer.transaction() as connection:
            task_table.insert_tasks(connection, [command("x" * 3000, key=f"first {number}")], 0.0)
        print(number, flush=True)
except LostLeaseError:
    print("lost", flush=True)
"""


def put_out(folder: Folder) -> None:
    """Take the lease away by force, as from a pilot on a machine that does not answer."""
    holder = read_holder(folder)
    assert holder is not None
    with pytest.raises(HeldError):
        release_by_force(folder)
    folder.lease.write_text(json.dumps(asdict(replace(holder, host="elsewhere", boot_id="another"))))
    release_by_force(folder)


def pilot(folder: Folder, first: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", first + RUN],
        cwd=folder.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it does not stop")
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(raw.iterdump())


@pytest.mark.parametrize("first", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_a_frozen_pilot_that_was_put_out_wakes_up_and_changes_nothing(tmp_path: Path, first: str) -> None:
    folder = make_folder(tmp_path / "campaign")
    go = folder.root / "go"
    one = f"test -e {go} || exec sleep 321"
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        tasks = [command("sh", "-c", one), command("sh", "-c", one), *(command("true") for _ in range(5))]
        task_table.insert_tasks(connection, tasks, 0.0)
    writer.close()
    old = pilot(folder, first)
    try:
        wait_for(lambda: folder.status.exists() and "sleep" in folder.status.read_text(), "nothing runs")
        children = psutil.Process(old.pid).children(recursive=True)
        with frozen(old):
            put_out(folder)
            go.touch()
            new = pilot(folder, first)
            said, _ = new.communicate(timeout=60)
            assert new.returncode == 0, said
            after = content(folder.database)
            published = folder.status.read_bytes(), folder.copy.read_bytes()
        said, _ = old.communicate(timeout=60)
        assert old.returncode == 7, said
        assert "another one has taken it" in said
        assert content(folder.database) == after
        assert (folder.status.read_bytes(), folder.copy.read_bytes()) == published
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, f"of the old pilot's children only {len(gone)} ended"
        assert living_holder(folder) is None
    finally:
        if old.poll() is None:
            old.kill()


#: after which call of a commit to freeze: the journal is opened, half written, flushed; half of the pages are written;
#: the journal is emptied
MOMENTS = [("openat:pilot.db-journal", 1), ("pwrite64", 60), ("fdatasync", 10), ("pwrite64", 66), ("ftruncate", 5)]


@pytest.mark.parametrize(("call", "number"), MOMENTS)
def test_a_writer_frozen_in_the_middle_of_a_commit_harms_nothing(tmp_path: Path, call: str, number: int) -> None:
    folder = make_folder(tmp_path / "campaign")
    open_writer(folder.database).close()
    call, _, path = call.partition(":")
    argv = [sys.executable, "-P", "-c", NO_LOCKS + COMMIT, str(folder.root), str(Path(__file__).parent)]
    paths = [folder.database, Path(f"{folder.database}-journal")]
    with strace(argv, tmp_path, call, f"signal=SIGSTOP:when={number}", paths[1:] if path else paths) as old:
        wait_for(lambda: old.stopped() or not old.alive(), "it is not frozen")
        assert old.alive(), old.said()
        put_out(folder)
        lease = take_lease(folder, "run")
        assert lease.took_over
        writer = open_writer(folder.database, lease.demand, took_over=True)
        with writer.transaction() as connection:
            task_table.insert_tasks(connection, [command("y" * 3000, key=f"second {n}") for n in range(20)], 0.0)
        os.kill(old.pid(), signal.SIGCONT)
        wait_for(lambda: not old.alive(), "it goes on")
        committed = [f"first {line}" for line in old.said().split() if line.isdigit()]
        assert "lost" in old.said()
        with writer.transaction() as connection:
            task_table.insert_tasks(connection, [command("z", key="third")], 0.0)
        writer.close()
    lease.release()
    with closing(sqlite3.connect(folder.database)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        keys = [key for (key,) in raw.execute("SELECT key FROM tasks ORDER BY id")]
    # what it had said that it committed is there; what was under way may be, but only as a whole
    assert keys[: len(committed)] == committed
    assert keys[len(committed) :] in (
        [f"second {n}" for n in range(20)] + ["third"],
        [f"first {len(committed)}"] + [f"second {n}" for n in range(20)] + ["third"],
    )


def test_a_later_world_of_the_same_pilot_shuts_the_earlier_one_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "run")
    lease.beat(1)
    earlier = lease_of(folder, lease.holder.nonce)
    earlier.demand()
    lease.beat(2)
    with pytest.raises(LostLeaseError):
        earlier.demand()
    with pytest.raises(LostLeaseError):
        earlier.beat(1)
    lease.demand()


def test_a_writer_stops_when_another_file_is_in_the_place_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pilot.db"
    writer = open_writer(path)
    (tmp_path / "other.db").write_bytes(path.read_bytes())
    (tmp_path / "other.db").replace(path)
    before = path.read_bytes()
    with pytest.raises(LostLeaseError, match="not the file that we opened"), writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a")], 1.0)
    assert path.read_bytes() == before
    writer.close()


def test_after_an_orderly_end_the_database_stays_where_it_is(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "add")
    open_writer(folder.database, lease.demand, took_over=lease.took_over).close()
    lease.release()
    place = folder.database.stat().st_ino
    lease = take_lease(folder, "add")
    assert not lease.took_over
    open_writer(folder.database, lease.demand, took_over=lease.took_over).close()
    assert folder.database.stat().st_ino == place
