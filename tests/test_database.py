"""The database: inserting with edges, one writer, schemas, full disks."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import command
from sqlalchemy import Connection

from db import attempt_table, dataset, pilot_table, task_table
from db.dataset import Candidate
from db.engine import Writer, open_reader, open_writer
from db.errors import InputError, LostLeaseError, MissingError, StorageError
from db.migrations import STEPS
from db.records import Attempt, Label, Structure
from db.schema import VERSION
from db.states import PilotState, TaskState, Verdict

LITHIUM = Structure((3,), ((0.0, 0.0, 0.0),), ((-1.7, 1.7, 1.7), (1.7, -1.7, 1.7), (1.7, 1.7, -1.7)))


def begin(connection: Connection) -> int:
    return pilot_table.begin_pilot(connection, host="here", pid=1, job_id=None, at=0.0)


def test_tasks_begin_ready_or_waiting_by_their_edges(writer: Writer) -> None:
    with writer.transaction() as connection:
        tasks, holding = task_table.insert_tasks(
            connection, [command("b", after=("a",)), command("a", key="a"), command("c", after_ended=("a",))], 1.0
        )
    assert [task.state for task in tasks] == [TaskState.WAITING, TaskState.READY, TaskState.WAITING]
    assert {(edge.child, edge.parent) for edge in holding} == {(1, 2), (3, 2)}


def test_a_key_is_inserted_once(writer: Writer) -> None:
    with writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a", key="a")], 1.0)
        again, _ = task_table.insert_tasks(connection, [command("a", key="a"), command("b", after=("a",))], 2.0)
    assert [task.name for task in again] == ["b"]


def test_a_task_that_needs_one_that_is_not_there_is_refused(writer: Writer) -> None:
    with pytest.raises(MissingError, match="no task 7"), writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a", after=(7,))], 1.0)
    with writer.reading() as connection:
        assert task_table.list_tasks(connection) == []


def test_a_circle_in_a_batch_is_refused_and_nothing_is_added(writer: Writer) -> None:
    batch = [command("a", key="a", after=("b",)), command("b", key="b", after=("a",)), command("c")]
    with pytest.raises(InputError, match="circle"), writer.transaction() as connection:
        task_table.insert_tasks(connection, batch, 1.0)
    with writer.reading() as connection:
        assert task_table.list_tasks(connection) == []


def test_a_task_cannot_run_twice_at_a_time(writer: Writer) -> None:
    with writer.transaction() as connection:
        epoch = begin(connection)
        task_table.insert_tasks(connection, [command("a")], 1.0)
        first = Attempt(1, 1, epoch, 1, "n0", (0,), (), "runs/1", 1.0)
        attempt_table.record_starts(connection, [first])
    second = Attempt(2, 1, epoch, 2, "n0", (1,), (), "runs/2", 1.0)
    with pytest.raises(StorageError, match="UNIQUE"), writer.transaction() as connection:
        attempt_table.record_starts(connection, [second])


def test_a_pilot_that_was_overtaken_writes_nothing(writer: Writer) -> None:
    with writer.transaction() as connection:
        writer.bind(begin(connection))
    with writer.reading() as connection:
        begin(connection)
    with pytest.raises(LostLeaseError, match="pilot 2 has taken over"), writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a")], 1.0)
    with writer.reading() as connection:
        assert task_table.list_tasks(connection) == []


def test_a_new_pilot_declares_the_last_one_lost(writer: Writer) -> None:
    with writer.transaction() as connection:
        begin(connection)
        begin(connection)
        assert [pilot["state"] for pilot in pilot_table.read_pilots(connection)] == [PilotState.ACTIVE, PilotState.LOST]


def test_nobody_else_opens_a_database_that_is_held(writer: Writer) -> None:
    with writer.transaction() as connection:
        begin(connection)
    script = (
        "import sys; from pathlib import Path; from db.engine import open_writer; from db.errors import HeldError\n"
        "try: open_writer(Path(sys.argv[1]))\n"
        "except HeldError: print('held')"
    )
    # the wait for the lock is SQLite's own, five seconds
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script, str(writer.path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "held\n"


def test_a_published_copy_can_be_read_while_the_pilot_writes(writer: Writer, tmp_path: Path) -> None:
    with writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a")], 1.0)
    writer.publish_copy(tmp_path / "copy.db")
    with open_reader(tmp_path / "copy.db") as connection:
        assert task_table.read_task(connection, 1).name == "a"


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pilot.db"
    open_writer(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=f"schema {VERSION + 1}"):
        open_writer(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pilot.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE songs (title)")
    raw.close()
    with pytest.raises(StorageError, match="another program"):
        open_writer(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pilot.db"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StorageError, match="damaged"):
        open_writer(path)


def test_a_torn_page_is_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "pilot.db"
    writer = open_writer(path)
    with writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a" * 50) for _ in range(200)], 1.0)
    writer.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        open_writer(path)


def test_a_full_disk_is_told_and_nothing_committed_is_lost(writer: Writer) -> None:
    with writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("a")], 1.0)
        connection.exec_driver_sql("PRAGMA max_page_count = 40")
    with pytest.raises(StorageError, match="full"), writer.transaction() as connection:
        task_table.insert_tasks(connection, [command("x" * 500) for _ in range(5000)], 1.0)
    with writer.reading() as connection:
        assert [task.name for task in task_table.list_tasks(connection)] == ["a"]


@pytest.mark.parametrize("version", sorted(STEPS))
def test_a_migrated_schema_equals_a_fresh_one(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as raw:
        raw.executescript((Path(__file__).parent / "schemas" / f"v{version}.sql").read_text())
    open_writer(tmp_path / "old.db").close()
    open_writer(tmp_path / "fresh.db").close()
    assert set(STEPS) == set(range(1, VERSION))
    assert _shape(tmp_path / "old.db") == _shape(tmp_path / "fresh.db")


def _shape(path: Path) -> list[Any]:
    """Tables with their columns, indices and triggers; a column that was added later is written otherwise."""
    with closing(sqlite3.connect(path)) as raw:
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns = [(table, raw.execute(f"PRAGMA table_info({table})").fetchall()) for table in tables]
        others = raw.execute("SELECT type, name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY name")
        spelled = [(kind, name, " ".join((sql or "").split())) for kind, name, sql in others]
        return [raw.execute("PRAGMA user_version").fetchone(), columns, spelled]


def test_a_label_enters_once(writer: Writer) -> None:
    label = Label(-1.0, ((0.0, 0.0, 0.0),), None)
    with writer.transaction() as connection:
        assert dataset.add_structures(connection, [Candidate(LITHIUM, "train", "a")], None) == [1]
        assert dataset.add_structures(connection, [Candidate(LITHIUM, "holdout", "b")], None) == [None]
        content_hash = LITHIUM.content_hash()
        assert dataset.add_label(connection, content_hash, label, settings="qe-1", attempt_id=None, at=1.0)
        assert not dataset.add_label(connection, content_hash, label, settings="qe-1", attempt_id=None, at=2.0)
        assert dataset.add_label(connection, content_hash, label, settings="qe-2", attempt_id=None, at=3.0)
        rows = list(dataset.read_labelled(connection, "train", "qe-1"))
    assert [(structure, found) for structure, found, _ in rows] == [(LITHIUM, label)]


def test_the_hash_of_a_structure_does_not_depend_on_rounding_noise() -> None:
    moved = Structure((3,), ((-0.0, 1e-12, 0.0),), LITHIUM.cell)
    assert moved.content_hash() == LITHIUM.content_hash()
    assert Structure((3,), ((0.0, 1e-6, 0.0),), LITHIUM.cell).content_hash() != LITHIUM.content_hash()


def test_the_core_time_of_what_is_gone_on_from_is_not_lost(writer: Writer) -> None:
    with writer.transaction() as connection:
        epoch = pilot_table.begin_pilot(connection, host="h", pid=1, job_id=None, at=0.0)
        [task] = task_table.insert_tasks(connection, [command("a")], 1.0)[0]
        for number, resumable in ((1, True), (2, False)):
            begun = Attempt(number, task.id, epoch, number, "n1", (0, 1), (), f"runs/{number}", 0.0)
            attempt_table.record_starts(connection, [begun])
            ended = replace(begun, ended_at=9.0, verdict=Verdict.INTERRUPTED, wall_s=5.0 * number, resumable=resumable)
            attempt_table.record_ends(connection, [ended])
        assert pilot_table.core_time_by_verdict(connection) == {epoch: {"done": 10.0, "interrupted": 20.0}}
