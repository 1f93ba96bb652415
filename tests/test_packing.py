"""Finished runs lie in a few archives, and nothing of them is ever lost."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
from command_line import Typist
from finished import FILES, content, finish, inodes
from folders import command, make_folder
from sqlalchemy import select

from db import room, task_table
from db.engine import Writer, open_reader, open_writer
from db.records import Attempt, Transition
from db.schema import attempts, tasks
from db.states import Event, TaskKind, TaskState
from pilot import host
from pilot.cli.attempt_files import files_of
from pilot.config import read_config
from pilot.folder import Folder
from pilot.ledger import _latest_folder
from pilot.packing import choice, packer
from pilot.packing.archive import Archive
from pilot.packing.choice import Packable, choose
from pilot.packing.packer import Packer
from pilot.snapshot import read_snapshot
from pilot.supervisor import run_pilot

PATIENCE_S = 60.0
EMT = """
[campaign]
name = "short"
species = ["Al"]
seed = 5
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 4
holdout = 1
eos_points = 0
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 1]
temperatures = [600]
max_generations = 1
[select]
limit = 2
[explore]
steps = 20
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
radial_basis_size = 4
first_iterations = 5
iterations = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "campaign", "[run]\ncores = 2\n")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so few runs there are archives already."""
    monkeypatch.setattr(choice, "KEEP", 5)
    monkeypatch.setattr(choice, "GATHERED", 10)
    monkeypatch.setattr(packer, "LOOK_S", 0.0)
    monkeypatch.setattr(packer, "LOOK_AFTER", 1)
    monkeypatch.setattr(packer, "FINISH_S", 300.0)


def run(folder: Folder) -> str:
    """A pilot that finds nothing else to do."""
    return run_pilot(folder, read_config(folder.config))


def all_attempts(folder: Folder) -> list[Attempt]:
    from db.rows import attempt_of_row

    with open_reader(folder.copy) as connection:
        return [attempt_of_row(row) for row in connection.execute(select(attempts).order_by(attempts.c.id))]


def pack(folder: Folder) -> None:
    """What a pilot packs at its end."""
    writer = open_writer(folder.database)
    try:
        with Packer(folder, writer, wanted=True, largest=1_000_000) as packs:
            while not packs.has_finished():
                pass
        writer.publish_copy(folder.copy)
    finally:
        writer.close()


def demand_all_files(folder: Folder, number: int) -> None:
    """Every file of every run can be read, wherever it lies."""
    found = all_attempts(folder)
    assert len(found) == number
    archives = {path.relative_to(folder.root).as_posix(): Archive(path) for path in folder.packed.glob("*.zip")}
    for attempt in found:
        place = folder.root / attempt.directory
        if place.is_dir():
            assert {path.name: path.read_text() for path in place.iterdir()} == contents(attempt), attempt
        else:
            archive = archives[attempt.archive]
            files = [name for name, _ in archive.files(place.name)]
            assert {name: archive.open(place.name, name).read().decode() for name in files} == contents(attempt)


def contents(attempt: Attempt) -> dict[str, str]:
    return {name: content(attempt.id, name) for name in FILES}


def packable(number: int, generation: int | None = None, first: int = 1, size: int = 0) -> list[Packable]:
    return [Packable(first + i, f"runs/000/{first + i:06d}", size, generation, (0, 7)) for i in range(number)]


def test_a_generation_is_packed_when_it_is_over() -> None:
    lot = choose([*packable(300), *packable(7, 3, 301)], busy=[])
    assert lot is not None
    assert (lot.group, len(lot.attempts)) == ("s1g07", 7)
    assert choose([*packable(300), *packable(7, 3, 301)], busy=[3]) is None


def test_what_gathers_otherwise_is_packed_when_there_is_much_of_it() -> None:
    lot = choose([*packable(300), *packable(100, 3, 301)], busy=[3])
    assert lot is not None
    assert (lot.group, len(lot.attempts)) == ("tasks", 300)
    lot = choose([*packable(30), *packable(3000, 3, 301)], busy=[3])
    assert lot is not None
    assert (lot.group, len(lot.attempts)) == ("s1g07", choice.MOST_ATTEMPTS)


def test_one_archive_does_not_become_huge() -> None:
    lot = choose(packable(900, size=choice.MOST_BYTES // 3), busy=[])
    assert lot is not None
    assert len(lot.attempts) == 3
    lot = choose(packable(900, size=choice.MOST_BYTES * 2), busy=[])
    assert lot is not None
    assert len(lot.attempts) == 1


def test_two_thousand_finished_runs_lie_in_few_files_and_are_all_there(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # however slow the disk is today
    monkeypatch.setattr(packer, "FINISH_S", 300.0)
    for generation in range(4):
        finish(folder, 350, generation=(0, generation), kind=TaskKind.LABEL)
    finish(folder, 600)
    assert inodes(folder.runs) > 8000
    run(folder)
    assert inodes(folder.runs) < 4 * choice.KEEP + 50
    names = sorted(path.name for path in folder.packed.iterdir())
    assert names == ["s1g00.zip", "s1g01.zip", "s1g02.zip", "s1g03.zip", "tasks.zip"]
    demand_all_files(folder, 2000)
    assert _latest_folder(folder) == 2000
    # what people see of it
    typed = Typist(folder.root, capsys, monkeypatch)
    snapshot = read_snapshot(folder)
    assert snapshot is not None
    assert snapshot.room is not None
    assert (snapshot.room.run_files, snapshot.room.packed, snapshot.room.archives) == (400, 1900, 5)
    assert "1900 runs packed into 5 archives" in " ".join(typed("status").out.split())
    assert json.loads(typed("status", "--json").out)["room"]["packed"] == 1900
    assert typed("log", "351").out == content(351, "pw.out")
    assert typed("log", "351", "--stderr").out == content(351, "pw.err")
    assert typed("log", "2000").out == content(2000, "pw.out")
    shown = typed("show", "351").out
    assert "packed into" in shown
    assert "s1g01.zip '000351/*'" in " ".join(shown.split())
    (attempt,) = json.loads(typed("show", "351", "--json").out)["attempts"]
    assert attempt["archive"] == str(folder.packed / "s1g01.zip")
    assert attempt["contents"] == {name: len(content(351, name)) for name in FILES}
    # an archive that is gone is said in words
    (folder.packed / "s1g01.zip").write_bytes(b"no archive any more")
    assert "cannot be read" in typed.fails("log", "351", code=6)
    assert "cannot be read" in typed("show", "351").out
    (folder.packed / "s1g01.zip").unlink()
    assert "is gone" in typed.fails("log", "351", code=3)


def test_what_comes_late_goes_into_a_further_archive(folder: Folder, few: None) -> None:
    finish(folder, 8, generation=(0, 3), kind=TaskKind.LABEL)
    finish(folder, 5)
    pack(folder)
    finish(folder, 2, generation=(0, 3), kind=TaskKind.LABEL)
    finish(folder, 5)
    pack(folder)
    names = {path.name for path in folder.packed.iterdir()}
    assert {"s1g03.zip", "s1g03-2.zip"} <= names
    demand_all_files(folder, 20)


def test_a_folder_that_wants_no_archives_gets_none(tmp_path: Path, few: None) -> None:
    folder = make_folder(tmp_path / "plain", "[run]\ncores = 2\npack = false\n")
    finish(folder, 40)
    run(folder)
    assert not folder.packed.exists()


#: where a pilot is killed: the function that it comes to, and how often before
POINTS = [
    ("pilot.packing.archive._copy", 20),
    ("pilot.packing.archive._read_back", 0),
    ("pilot.packing.archive.sync_folder", 0),
    ("pilot.packing.packer.room.record_packed", 0),
    ("pilot.packing.packer.Packer._remove", 0),
    ("pilot.packing.archive.remove", 0),
    ("pilot.packing.archive.remove", 7),
    ("pathlib.Path.rmdir", 3),
]


@pytest.mark.parametrize(("where", "after"), POINTS)
def test_a_pilot_that_is_killed_while_it_packs_loses_nothing(folder: Folder, few: None, where: str, after: int) -> None:
    finish(folder, 40)
    assert killed(folder, where, after)
    pack(folder)
    demand_all_files(folder, 40)
    assert inodes(folder.runs) < 5 * 4 + 10
    assert not [path for path in folder.packed.iterdir() if path.suffix != ".zip"]
    in_archives = [name for path in folder.packed.iterdir() for name in Archive(path).names()]
    assert len(in_archives) == len(set(in_archives)) == 35
    assert not {attempt.archive for attempt in all_attempts(folder)} - {"", "runs/packed/tasks.zip"}


def killed(folder: Folder, where: str, after: int) -> bool:
    """Pack in a process that is killed when it comes to a function the next time after so many."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(where, after)
            pack(folder)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _die_at(where: str, after: int) -> None:
    place, name = where.rsplit(".", 1)
    owner, left = resolve_name(place), [after]
    original = getattr(owner, name)

    def dying(*arguments: object, **more: object) -> object:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return original(*arguments, **more)

    setattr(owner, name, dying)


def test_an_older_copy_of_the_database_finds_the_archives_that_were_made_since(folder: Folder, few: None) -> None:
    finish(folder, 40)
    older = folder.database.read_bytes()
    pack(folder)
    assert len(list(folder.packed.iterdir())) == 1
    folder.database.write_bytes(older)
    pack(folder)
    demand_all_files(folder, 40)
    assert len(list(folder.packed.iterdir())) == 1
    assert sum(attempt.archive != "" for attempt in all_attempts(folder)) == 35


def test_an_archive_of_runs_that_nobody_knows_stays(folder: Folder, few: None) -> None:
    finish(folder, 40)
    pack(folder)
    shutil.copy(folder.packed / "tasks.zip", folder.packed / "s9g99.zip")
    folder.database.unlink()
    finish(folder, 1)
    pack(folder)
    assert {path.name for path in folder.packed.iterdir()} == {"tasks.zip", "s9g99.zip"}
    assert Archive(folder.packed / "tasks.zip").is_whole()


def test_what_cannot_be_packed_stays_and_is_said_once(
    folder: Folder, few: None, caplog: pytest.LogCaptureFixture
) -> None:
    outside = folder.root.parent / "outside"
    finish(folder, 40)
    group = folder.runs / "000"
    Path(os.fsdecode(bytes(group / "000004") + b"/\xff")).touch()
    # the user has moved one elsewhere, and changed nothing else
    (group / "000005").rename(outside)
    (group / "000005").symlink_to(outside)
    os.truncate(group / "000006" / "pw.out", 2_000_000_000)
    with caplog.at_level("INFO", logger="pilot"):
        pack(folder)
    left = {path.name for path in group.iterdir()}
    assert left == {"000004", "000005", "000006", *(f"{n:06d}" for n in range(36, 41))}
    assert sorted(path.name for path in outside.iterdir()) == sorted(FILES)
    assert caplog.text.count("a finished run is not packed") == 2
    assert "does not lie in" in caplog.text
    with open_reader(folder.copy) as connection:
        packed = connection.execute(select(attempts.c.id).where(attempts.c.archive != "")).scalars().all()
    assert packed == [1, 2, 3, *range(7, 36)]


def test_a_disk_that_refuses_does_not_disturb_the_pilot(
    folder: Folder, few: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    finish(folder, 40)
    monkeypatch.setattr("pilot.packing.files.write", full)
    with caplog.at_level("INFO", logger="pilot"):
        assert run(folder) == "nothing is left that could run"
    assert caplog.text.count("No space left") == 1
    demand_all_files(folder, 40)


def test_what_was_changed_after_it_was_packed_stays(
    folder: Folder, few: None, caplog: pytest.LogCaptureFixture
) -> None:
    finish(folder, 40)
    assert killed(folder, "pilot.packing.packer.Packer._remove", 1)
    late = folder.runs / "000" / "000002" / "pw.out"
    late.write_text("somebody still writes here\n")
    with caplog.at_level("INFO", logger="pilot"):
        pack(folder)
    assert late.read_text() == "somebody still writes here\n"
    assert "pw.out in it is not the same" in caplog.text
    assert not (folder.runs / "000" / "000001").exists()


@pytest.fixture
def writer(folder: Folder) -> Iterator[Writer]:
    finish(folder, 2, generation=(0, 1), kind=TaskKind.EXPLORE)
    finish(folder, 1, generation=(0, 1), kind=TaskKind.SELECT, state=TaskState.FAILED)
    finish(folder, 3, generation=(0, 1), kind=TaskKind.LABEL)
    finish(folder, 4)
    opened = open_writer(folder.database)
    yield opened
    opened.close()


def ids(rows: list[tuple[int, str, int, int | None, int, int]]) -> list[int]:
    return [row[0] for row in rows]


def test_an_exploration_is_needed_until_its_selection_is_done(writer: Writer) -> None:
    with writer.transaction() as connection:
        assert ids(room.read_packable(connection, 100)) == [3, 4, 5, 6, 7, 8, 9, 10]
        assert ids(room.read_packable(connection, 5)) == [3, 4, 5]
        ways = [
            (Event.REVIVED, TaskState.FAILED, TaskState.WAITING),
            (Event.RELEASED, TaskState.WAITING, TaskState.READY),
            (Event.STARTED, TaskState.READY, TaskState.RUNNING),
            (Event.SUCCEEDED, TaskState.RUNNING, TaskState.DONE),
        ]
        for way in ways:
            task_table.record_transitions(connection, [Transition(3, *way)], 1.0, 1)
        assert ids(room.read_packable(connection, 100)) == list(range(1, 11))
        assert room.read_busy_generations(connection, 3) == {1}
        assert room.read_busy_generations(connection, 6) == set()


def test_a_command_is_needed_as_long_as_one_behind_it_may_run(writer: Writer) -> None:
    with writer.transaction() as connection:
        child = task_table.insert_tasks(connection, [command("true", after=(7,))], 1.0)[0][0]
        assert 7 not in ids(room.read_packable(connection, 100))
        task_table.record_transitions(
            connection, [Transition(child.id, Event.CANCELLED, TaskState.READY, TaskState.CANCELLED)], 1.0, 1
        )
        assert 7 in ids(room.read_packable(connection, 100))
        assert connection.execute(select(tasks.c.id).where(tasks.c.state == TaskState.READY)).all() == []


def test_a_task_that_was_revived_while_it_was_packed_keeps_its_folder(writer: Writer) -> None:
    with writer.transaction() as connection:
        task_table.record_transitions(
            connection, [Transition(3, Event.REVIVED, TaskState.FAILED, TaskState.WAITING)], 1.0, 1
        )
        recorded = room.record_packed(connection, "runs/packed/s1g01.zip", 1, [3, 4, 5])
        assert sorted(recorded) == [4, 5]
        assert ids(room.read_packable(connection, 100)) == [6, 7, 8, 9, 10]


def test_a_drain_that_stops_tasks_gives_up_the_archive_that_is_made(folder: Folder, few: None) -> None:
    finish(folder, 400)
    writer = open_writer(folder.database)
    with Packer(folder, writer, wanted=True, largest=1_000_000) as packing_now:
        deadline = host.monotonic() + PATIENCE_S
        while not (folder.packed.is_dir() and list(folder.packed.iterdir())):
            packing_now.turn()
            assert host.monotonic() < deadline
        packing_now.give_up()
    writer.close()
    assert [path.name for path in folder.packed.iterdir()] == []
    demand_all_files(folder, 400)


def test_a_campaign_that_is_packed_on_the_way_ends_as_one_that_is_not(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_folder(tmp_path / "plain", EMT + "[run]\npack = false\n")
    packed = make_folder(tmp_path / "packed", EMT)
    monkeypatch.setattr(choice, "KEEP", 0)
    monkeypatch.setattr(choice, "GATHERED", 5)
    for folder in (plain, packed):
        run(folder)
    assert {path.name for path in packed.packed.iterdir()} >= {"s1g00.zip", "s1g01.zip"}
    for path in [*plain.root.glob("potentials/*/*.mtp"), *plain.root.glob("generations/*/*.cfg")]:
        assert (packed.root / path.relative_to(plain.root)).read_bytes() == path.read_bytes(), path
    for one, other in zip(all_attempts(plain), all_attempts(packed), strict=True):
        assert {name for name, _ in files_of(plain, one).listed()} == {
            name for name, _ in files_of(packed, other).listed()
        }


def test_a_highest_folder_that_is_empty_still_counts(folder: Folder) -> None:
    (folder.runs / "003").mkdir()
    (folder.runs / "002" / "000410").mkdir(parents=True)
    (folder.runs / "packed").mkdir()
    assert _latest_folder(folder) == 799
