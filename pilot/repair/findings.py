"""What is wrong with the files in state/, and what could be done about it: found out without changing anything.

Nothing is ever removed: what is damaged is moved into state/damaged-TIME/.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from db.errors import PilotError, StorageError
from db.migrations import stored_version
from db.schema import VERSION
from db.takeover import copy_settled, is_hot, journal_of
from pilot import host, mailbox
from pilot.backups import backups, demand_history
from pilot.folder import Folder
from pilot.lease import held, read_holder
from pilot.repair.rescue import Candidate, best, last_folder, put_in_place
from pilot.snapshot import read_snapshot

_OUR_TABLES = {"meta", "pilots", "tasks", "edges", "attempts", "events"}


@dataclass(frozen=True, slots=True)
class Found:
    """One file or folder, and what is to be said of it.

    Attributes:
        what: which one, in a word.
        said: what was found.
        ok: nothing is wrong with it.
        plan: what would be done; "" if nothing can be.
        cure: what only the user can do.
        do: does it.
    """

    what: str
    said: str
    ok: bool = True
    plan: str = ""
    cure: str = ""
    do: Callable[[], None] | None = None


def demand_nobody(folder: Folder) -> None:
    """Make sure that no pilot, and no command, is at work.

    Raises:
        HeldError: somebody is, or may be.
    """
    try:
        holder = read_holder(folder)
    except StorageError:
        return  # that is one of the things that are looked at
    if holder is not None and not holder.is_gone():
        raise held(holder, folder)


def examine(folder: Folder, scratch: Path) -> Iterator[Found]:
    """Look at all that pilots keep in state/.

    Args:
        folder: the campaign folder. Nothing in it is changed until a ``do`` is called.
        scratch: an empty folder for copies.
    """
    now = _local(host.now())
    aside = folder.state / f"damaged-{now:%Y%m%dT%H%M%S}"
    yield _lease(folder, aside)
    yield _database(folder, scratch, aside)
    yield from _journal(folder, aside)
    yield from _copies(folder, scratch, aside)
    yield _status(folder, aside)
    yield _inbox(folder, aside)


def _lease(folder: Folder, aside: Path) -> Found:
    try:
        holder = read_holder(folder)
    except StorageError as error:
        return _moved("lease", error.what, "nobody holds the folder then", aside, folder.lease)
    if holder is None:
        return Found("lease", "nobody holds the folder")
    return Found("lease", f"of pid {holder.pid} on {holder.host}, which is gone: the next pilot takes it over")


def _database(folder: Folder, scratch: Path, aside: Path) -> Found:
    path = folder.database
    if os.path.lexists(path) and not os.access(path, os.R_OK) and path.exists():
        return Found("database", "it may not be read", ok=False, cure=f"chmod u+rw {path}")
    version = stored_version(path)
    if version > VERSION:
        newer = f"it is of schema {version}; this pilot knows schemas up to {VERSION}"
        return Found("database", newer, ok=False, cure="use the newer pilot that wrote it (upgrade the installation)")
    try:
        demand_history(folder)
        if not os.path.lexists(path) or (path.is_file() and path.stat().st_size == 0):
            return Found("database", "there is none yet: nothing has run here")
        copy_settled(path, scratch / "database.db")
        _demand_ours(scratch / "database.db")
    except PilotError as error:
        return _without_journal(folder, scratch, aside, error) or _replaced(folder, scratch, aside, error.what)
    unfinished = "; a transaction was not finished: it is rolled back at the next start" if is_hot(path) else ""
    return Found("database", f"whole, {_counted(scratch / 'database.db')}{unfinished}")


def _journal(folder: Folder, aside: Path) -> Iterator[Found]:
    """What is in the way of the journal; its content is looked at together with the database."""
    path = journal_of(folder.database)
    if not os.path.lexists(path):
        return
    if not path.is_file():
        yield _moved("journal", f"{path.name} is no file", "SQLite makes a new one", aside, path)
    elif path.stat().st_mode & 0o600 != 0o600:
        yield Found("journal", f"{path.name} may not be written", ok=False, cure=f"chmod u+rw {path}")


def _without_journal(folder: Folder, scratch: Path, aside: Path, error: PilotError) -> Found | None:
    """A journal that does not belong to the database makes of a good one a damaged one."""
    if not is_hot(folder.database):
        return None
    alone = scratch / "alone.db"
    try:
        copy_settled(folder.database, alone, with_journal=False)
        _demand_ours(alone)
    except PilotError:
        return None
    return _moved(
        "database",
        f"{error.what}, but without its journal it is whole, {_counted(alone)}",
        "the journal does not belong to it",
        aside,
        journal_of(folder.database),
    )


def _replaced(folder: Folder, scratch: Path, aside: Path, said: str) -> Found:
    """The database cannot be used: what can be put in its place."""
    readable = folder.database if folder.database.is_file() else None
    candidate = best(folder, readable, scratch)
    if candidate is None:
        cure = "nothing was found that could be put in its place: a backup of your own, or another folder"
        return Found("database", said, ok=False, cure=cure)
    return Found(
        "database",
        said,
        ok=False,
        plan=f"put {candidate.origin} in its place, {_counted(candidate.path)}, as of {_time(candidate.at)}"
        + _losses(folder, candidate),
        do=partial(put_in_place, folder, candidate, aside),
    )


def _losses(folder: Folder, candidate: Candidate) -> str:
    if candidate.salvaged:
        return ". Nothing is lost that the pilot decides by" if candidate.under_way == 0 else ""
    later = max(0, last_folder(folder) - candidate.last_attempt)
    said = ". Lost is what was asked for since (add, cancel, retry)"
    if candidate.under_way:
        said += (
            f"; {candidate.under_way} attempts that were under way then are judged at the next start: "
            "what their files prove to be finished is adopted"
        )
    if later:
        said += (
            f"; up to {later} attempts that began later are unknown to it: their folders stay, their tasks run again"
        )
    return said


def _demand_ours(path: Path) -> None:
    """Make sure that a file which SQLite finds whole is a database of ours, in which nothing hangs in the air.

    Raises:
        StorageError: it is not.
    """
    try:
        with closing(sqlite3.connect(path)) as raw:
            tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            sound = raw.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
            loose = raw.execute("PRAGMA foreign_key_check").fetchone() is not None
    except sqlite3.Error as error:
        raise StorageError(f"the database is damaged: {error}") from error
    if not tables >= _OUR_TABLES:
        raise StorageError("this is an SQLite file of another program")
    if not sound:
        raise StorageError("the database is damaged: an index does not agree with its table")
    if loose:
        raise StorageError("the database is damaged: rows speak of others that are not there")


def _copies(folder: Folder, scratch: Path, aside: Path) -> Iterator[Found]:
    good = 0
    newest = ""
    for path in (folder.copy, *backups(folder).values()):
        name = str(path.relative_to(folder.state))
        if not path.exists():
            continue
        try:
            copy_settled(path, scratch / "looked-at.db")
        except PilotError as error:
            then = "the pilot publishes it again" if path == folder.copy else "the others stay"
            yield _moved(name, error.what, then, aside, path)
            continue
        if path != folder.copy:
            good += 1
            newest = newest or path.name
        else:
            yield Found(name, "whole")
    yield Found("backups", f"{good} whole, the newest {newest}" if good else "none")


def _status(folder: Folder, aside: Path) -> Found:
    try:
        snapshot = read_snapshot(folder)
    except StorageError as error:
        return _moved("status.json", error.what, "the pilot publishes it again", aside, folder.status)
    return Found("status.json", "none yet" if snapshot is None else "readable")


def _inbox(folder: Folder, aside: Path) -> Found:
    requests, strangers = mailbox.waiting_requests(folder)
    if not strangers:
        return Found("inbox", f"{len(requests)} waiting for the next pilot" if requests else "empty")
    names = ", ".join(path.name for path in strangers)
    return _moved("inbox", f"these are no requests: {names}", "whoever asked may ask again", aside, *strangers)


def _moved(what: str, said: str, then: str, aside: Path, *paths: Path) -> Found:
    """Something that is out of the way once it is moved aside."""

    def do() -> None:
        aside.mkdir(exist_ok=True)
        for path in paths:
            path.rename(aside / path.name)

    names = "it" if len(paths) == 1 else "them"
    if what == "database":
        names = paths[0].name
    return Found(what, said, ok=False, plan=f"move {names} to state/{aside.name}: {then}", do=do)


def _counted(path: Path) -> str:
    with closing(sqlite3.connect(path)) as raw:
        (tasks,) = raw.execute("SELECT count(*) FROM tasks").fetchone()
        (done,) = raw.execute("SELECT count(*) FROM tasks WHERE state = 'done'").fetchone()
        (ended,) = raw.execute("SELECT count(*) FROM attempts WHERE ended_at IS NOT NULL").fetchone()
    return f"with {tasks} tasks, {done} of them done, and the ends of {ended} attempts"


def _time(at: float) -> str:
    """A moment as people write it; short if it was today."""
    if not at:
        return "before the first task"
    then, now = _local(at), _local(host.now())
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()
