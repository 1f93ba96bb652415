"""Finding the best that can be put in the place of a damaged database, and putting it there.

What can be read of the damaged file itself is preferred if nothing is missing that the pilot decides by: it is the
newest. Else it is the newest copy or backup that is whole.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from db.errors import PilotError
from db.files import sync_folder
from db.migrations import stored_version
from db.salvage import Salvaged, salvage
from db.schema import VERSION
from db.takeover import copy_settled, journal_of, settle
from pilot.backups import backups
from pilot.folder import Folder
from pilot.lease import last_epoch
from pilot.snapshot import last_snapshot


@dataclass(frozen=True, slots=True)
class Candidate:
    """A database that could be put in place.

    Attributes:
        path: a file that is whole, and flushed.
        origin: what it was made from, for people.
        salvaged: it is what could be read of the damaged file.
        at: the last that it knows of, seconds since 1970; 0 if it knows of nothing.
        last_attempt: the highest id of an attempt that it knows.
        last_pilot: the highest id of a pilot that it knows.
        under_way: so many attempts had not ended.
    """

    path: Path
    origin: str
    salvaged: bool = False
    at: float = 0.0
    last_attempt: int = 0
    last_pilot: int = 0
    under_way: int = 0


def best(folder: Folder, damaged: Path | None, scratch: Path) -> Candidate | None:
    """The best that can be put in place; None if there is nothing.

    Args:
        folder: the campaign folder; nothing in it is changed.
        damaged: the database, if there is one at all.
        scratch: an empty folder for copies.
    """
    read = None if damaged is None else _salvaged(damaged, scratch)
    if read is not None and read[1].complete:
        return read[0]
    for number, path in enumerate(_copies(folder)):
        copy = scratch / f"copy{number}.db"
        try:
            copy_settled(path, copy)
            if 0 < stored_version(copy) <= VERSION:
                return _described(Candidate(copy, str(path.relative_to(folder.root))))
        except (PilotError, sqlite3.Error, OSError):
            continue
    return read[0] if read is not None and read[1].consistent and read[1].rows["tasks"] else None


def _copies(folder: Folder) -> Iterator[Path]:
    if folder.copy.is_file():
        yield folder.copy
    yield from backups(folder).values()


def _salvaged(damaged: Path, scratch: Path) -> tuple[Candidate, Salvaged] | None:
    raw, target = scratch / "damaged.db", scratch / "salvaged.db"
    try:
        shutil.copyfile(damaged, raw)
        if journal_of(damaged).exists():
            shutil.copyfile(journal_of(damaged), journal_of(raw))
        found = salvage(raw, target)
        settle(target, target)
        what = "what can be read of it" + (f", without some rows of {', '.join(found.torn)}" if found.torn else "")
        return _described(Candidate(target, what, salvaged=True)), found
    except (PilotError, sqlite3.Error, OSError):
        return None


def _described(candidate: Candidate) -> Candidate:
    with closing(sqlite3.connect(candidate.path)) as raw:
        (at,) = raw.execute("SELECT coalesce(max(at), 0) FROM events").fetchone()
        last, under_way = raw.execute("SELECT coalesce(max(id), 0), sum(ended_at IS NULL) FROM attempts").fetchone()
        (pilot,) = raw.execute("SELECT coalesce(max(id), 0) FROM pilots").fetchone()
    return replace(candidate, at=at, last_attempt=last, last_pilot=pilot, under_way=under_way or 0)


def put_in_place(folder: Folder, candidate: Candidate, aside: Path) -> None:
    """Move the damaged database and its journal aside, and let the candidate be the database.

    A crash on the way leaves no database, never a mixture: another repair goes on from there.

    Raises:
        OSError, StorageError: the disk refuses.
    """
    beside = folder.database.with_name(f".{folder.database.name}.new")
    shutil.copyfile(candidate.path, beside)
    _skip_what_was_used(folder, beside)
    settle(beside, beside)
    # the journal first: it must never be applied to the new file
    for path in (journal_of(folder.database), folder.database):
        if os.path.lexists(path):
            aside.mkdir(exist_ok=True)
            path.rename(aside / path.name)
    beside.replace(folder.database)
    sync_folder(folder.state)


def last_folder(folder: Folder) -> int:
    """The highest attempt that has, or had, a folder."""
    numbers = [int(path.name) for path in folder.runs.glob("[0-9]*/[0-9]*") if path.name.isdecimal()]
    return max(numbers, default=0)


def _skip_what_was_used(folder: Folder, path: Path) -> None:
    """No pilot gets the id of one that the candidate does not know: by it, the dead are told from the living.

    That no attempt does is seen to by whoever reads the database (:meth:`pilot.ledger.Ledger.load`).
    """
    snapshot = last_snapshot(folder)
    used = [last_epoch(folder), 0 if snapshot is None or snapshot.pilot is None else snapshot.pilot.id]
    used += [int(file.name.partition(".")[0]) for file in folder.ends.glob("[0-9]*.jsonl")]
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'pilots', 0 "
            "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'pilots')"
        )
        raw.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'pilots'", (max(used),))
