"""`pilot doctor --repair`: says what is damaged and what it would do, does it when told so, and loses nothing more."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import Said, Typist, living_pilot, wait_for
from folders import command, make_folder

from db import task_table
from db.engine import open_writer
from db.schema import VERSION
from pilot import backups, host
from pilot.backups import EVERY_S, back_up_if_due, to_keep
from pilot.cli.app import run
from pilot.folder import Folder
from pilot.lease import take_lease

PAGE = 4096


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    make_folder(tmp_path / "campaign")
    return Typist(tmp_path / "campaign", capsys, monkeypatch)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which three tasks are done and counted in a file, and forty wait behind one that has failed."""
    folder = make_folder(tmp_path_factory.mktemp("template") / "campaign")
    new = [command("sh", "-c", f"echo {number} >> ../../../count") for number in range(3)]
    new += [command("false", key="no"), *(command("true", "x" * 900, after=("no",)) for _ in range(40))]
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        task_table.insert_tasks(connection, new, 0.0)
    writer.close()
    assert run(["run", "--folder", str(folder.root)]) == 1
    return folder.root


@pytest.fixture
def used(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    """A copy of that."""
    shutil.copytree(template, tmp_path / "used" / "campaign")
    return Typist(tmp_path / "used" / "campaign", capsys, monkeypatch)


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = ("tasks", "attempts", "edges", "pilots", "requests", "meta")
        return {table: raw.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}


def overwrite(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


def first_page(folder: Folder) -> None:
    overwrite(folder.database, 0, bytes(PAGE))


def half(folder: Folder) -> None:
    with folder.database.open("r+b") as file:
        file.truncate(folder.database.stat().st_size // 2 // PAGE * PAGE)


def block_of_zeros(folder: Folder) -> None:
    # every second page of the tasks
    with closing(sqlite3.connect(folder.database)) as raw:
        pages = raw.execute("SELECT pageno FROM dbstat WHERE name = 'tasks' AND pagetype = 'leaf'").fetchall()
    assert len(pages) > 4
    for (page,) in pages[1::2]:
        overwrite(folder.database, (page - 1) * PAGE, bytes(PAGE))


def torn_index(folder: Folder) -> None:
    with closing(sqlite3.connect(folder.database)) as raw:
        (page,) = raw.execute("SELECT min(pageno) FROM dbstat WHERE name = 'tasks_by_state'").fetchone()
    overwrite(folder.database, (page - 1) * PAGE, b"\xff" * PAGE)


def empty(folder: Folder) -> None:
    folder.database.write_bytes(b"")


def gone(folder: Folder) -> None:
    folder.database.unlink()


def a_folder(folder: Folder) -> None:
    folder.database.unlink()
    folder.database.mkdir()


def nowhere(folder: Folder) -> None:
    folder.database.unlink()
    folder.database.symlink_to("/nowhere/pilot.db")


def of_another_program(folder: Folder) -> None:
    folder.database.unlink()
    with closing(sqlite3.connect(folder.database)) as raw:
        raw.execute("CREATE TABLE songs (title)")


def journal_of_another(folder: Folder) -> None:
    """A hot journal that does not fit: it would bring back pages of another database."""
    other = folder.root.parent / "other.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE songs (title)")
        raw.executemany("INSERT INTO songs VALUES (?)", [("la" * 500,)] * 200)
        raw.execute("PRAGMA cache_spill = 1")
        raw.execute("PRAGMA cache_size = 2")
        raw.execute("BEGIN")
        raw.execute("UPDATE songs SET title = 'lo'")
        shutil.copy(f"{other}-journal", f"{folder.database}-journal")
        raw.execute("ROLLBACK")
    assert Path(f"{folder.database}-journal").stat().st_size > 5 * PAGE


DAMAGES = [first_page, half, block_of_zeros, torn_index, empty, gone, a_folder, nowhere, of_another_program]
DAMAGES += [journal_of_another]


def every_file(folder: Folder) -> dict[str, bytes]:
    found = [path for path in folder.root.rglob("*") if path.is_file() and not path.name.endswith((".log", ".lock"))]
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in found}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_told_and_repaired_and_nothing_is_done_twice(
    used: Typist, damage: Callable[[Folder], None]
) -> None:
    folder = used.folder
    before = content(folder.database)
    damage(folder)
    ruins = every_file(folder)

    said = used.fails("run", code=6)
    assert "pilot doctor --repair" in said, said
    assert str(folder.database) in said

    looked = used("doctor", "--repair", code=6).out
    assert "would: " in looked
    assert "pilot doctor --repair --yes" in looked
    now = every_file(folder)
    assert {name: now.get(name) for name in ruins if "lease" not in name} == {
        name: ruins[name] for name in ruins if "lease" not in name
    }

    used("doctor", "--repair", "--yes")
    (aside,) = folder.state.glob("damaged-*")
    kept = [path.read_bytes() for path in aside.rglob("*") if path.is_file() and path.exists()]
    for name in ("state/pilot.db", "state/pilot.db-journal"):
        assert name not in ruins or (folder.root / name).exists() or ruins[name] in kept
    assert content(folder.database)["tasks"] == before["tasks"]
    assert content(folder.database)["attempts"] == before["attempts"]
    assert used("doctor", "--repair").out.count("!!") == 0

    used("run", code=1)
    assert (folder.root / "count").read_text() == "0\n1\n2\n"
    after = content(folder.database)
    assert after["tasks"] == before["tasks"]
    assert max(row[0] for row in after["pilots"]) > max(row[0] for row in before["pilots"])
    assert not list(folder.state.glob(".*"))


def test_what_is_newer_than_the_backup_is_counted_and_no_attempt_id_is_used_twice(used: Typist) -> None:
    folder = used.folder
    late = folder.root / "late"
    used("add", "--shell", "--", f"echo late >> {late}")
    used("run", code=1)
    last = max(int(path.name) for path in folder.runs.glob("*/*"))
    # the published copy is gone too: there is a backup from the first start only
    folder.copy.unlink()
    first_page(folder)
    said = " ".join(used("doctor", "--repair", code=6).out.split())
    assert re.search(r"put state/backups/pilot-\d{14}\.db in its place", said)
    assert "Lost is what was asked for since" in said
    assert "that began later are unknown to it" in said
    used("doctor", "--repair", "--yes")
    used("add", "--shell", "--", f"echo again >> {late}")
    used("run", code=1)
    assert late.read_text() == "late\nagain\n"
    assert max(int(path.name) for path in folder.runs.glob("*/*")) > last


def test_a_finished_attempt_that_the_backup_saw_running_is_adopted(typed: Typist) -> None:
    """Its journal says how it ended; so it is not done again."""
    folder = typed.folder
    count, gate = folder.root / "count", folder.root / "gate"
    typed("add", "--shell", "--", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo x >> {count}")
    with living_pilot(folder):
        wait_for(lambda: folder.copy.exists() and _running(folder.copy), "nothing is published")
        shutil.copy(folder.copy, folder.root / "kept.db")
        gate.touch()
    (folder.root / "kept.db").replace(folder.copy)
    shutil.rmtree(folder.backups)
    first_page(folder)
    said = " ".join(typed("doctor", "--repair", code=6).out.split())
    assert "1 attempts that were under way then are judged at the next start" in said
    typed("doctor", "--repair", "--yes")
    typed("run")
    assert count.read_text() == "x\n"


def _running(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as raw:
            return bool(raw.execute("SELECT count(*) FROM attempts").fetchone()[0])
    except sqlite3.Error:
        return False


def test_a_healthy_folder_needs_nothing(used: Typist) -> None:
    before = every_file(used.folder)
    out = used("doctor", "--repair").out
    assert "nothing is damaged" in out
    assert "whole, with 44 tasks, 3 of them done" in out
    assert every_file(used.folder) == before
    used("doctor", "--repair", "--yes")
    assert not list(used.folder.state.glob("damaged-*"))


def test_nothing_is_repaired_under_a_living_pilot(typed: Typist) -> None:
    gate = typed.folder.root / "gate"
    typed("add", "--shell", "--", f"while [ ! -e {gate} ]; do sleep 0.05; done")
    with living_pilot(typed.folder):
        assert "a pilot is alive" in typed.fails("doctor", "--repair", "--yes", code=4)
        gate.touch()


def test_small_files_that_are_half_written_are_moved_aside(used: Typist) -> None:
    folder = used.folder
    whole = folder.status.read_text()
    folder.status.write_text(whole[: len(whole) // 2])
    request = folder.inbox / "00001760000000.000000-00000000.json"
    request.write_text('{"id": "00001760000000.0000')
    folder.lease.write_text('{"nonce": "12')
    (folder.backups / "pilot-20260101000000.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    out = used("doctor", "--repair", code=6).out
    assert out.count("would: move") == 4
    used("doctor", "--repair", "--yes")
    moved = {path.name for place in folder.state.glob("damaged-*") for path in place.iterdir()}
    assert moved == {"status.json", "lease.json", request.name, "pilot-20260101000000.db"}
    assert "3 done" in used("run", code=1).out


def test_a_newer_schema_is_not_repaired(used: Typist) -> None:
    with closing(sqlite3.connect(used.folder.database)) as raw:
        raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = used.folder.database.read_bytes()
    assert "use the newer pilot" in used("doctor", "--repair", code=6).out
    used("doctor", "--repair", "--yes", code=6)
    assert used.folder.database.read_bytes() == before


def test_before_a_schema_is_changed_the_database_is_kept(typed: Typist) -> None:
    folder = typed.folder
    with closing(sqlite3.connect(folder.database)) as raw:
        raw.executescript((Path(__file__).parent / "schemas" / "v1.sql").read_text())
    typed("add", "--", "true")
    kept = folder.backups / f"before-schema-{VERSION}.db"
    with closing(sqlite3.connect(kept)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)


def test_backups_come_and_go_by_themselves(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = typed.folder
    typed("add", "--", "true")
    now = host.now()
    for number in range(1, 40):
        monkeypatch.setattr(host, "now", lambda number=number: now + number * (EVERY_S + 1))
        assert back_up_if_due(folder) is not None
        assert back_up_if_due(folder) is None
    ages = [now + 39 * (EVERY_S + 1) - at for at in backups.backups(folder)]
    assert ages[0] < 2
    assert 3 <= len(ages) <= 6
    assert any(3600 <= age < 7200 for age in ages)
    assert {path.name for path in folder.backups.iterdir()} == {path.name for path in backups.backups(folder).values()}


def test_which_backups_are_kept_over_weeks() -> None:
    made: set[float] = set()
    for step in range(20 * 24 * 6):
        now = step * 600.0 + 7.0
        made = to_keep([*made, now], now)
        assert len(made) <= 6
        assert now in made
        for asked, at_most in ((3600.0, 7200.0), (86400.0, 2 * 86400.0)):
            ages = [now - at for at in made if now - at >= asked]
            assert now < at_most or min(ages) <= at_most
    assert any(now - at > 5 * 86400 for at in made)
    # a pause of a month, then a clock that is set back: neither loses all nor keeps too many
    assert len(to_keep([*made, now + 30 * 86400.0], now + 30 * 86400.0) & made) >= 3
    assert 1 <= len(to_keep(sorted(made), now - 365 * 86400.0)) <= 6


def test_a_copied_folder_does_not_take_the_pilot_of_the_original_for_its_own(typed: Typist) -> None:
    folder = typed.folder
    typed("add", "--", "true")
    take_lease(folder, "run").beat(1)
    shutil.copytree(folder.root, folder.root.parent / "copy")
    copy = folder.root.parent / "copy"
    said: Said = typed("status", "--folder", str(copy))
    assert "alive" not in said.out
    assert "1 done" in typed("run", "--folder", str(copy)).out
    typed.fails("run", code=4)
