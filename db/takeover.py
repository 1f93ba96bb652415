"""A database that a dead process has left, or one that is only frozen: moved into a file that it does not know.

A writer that was stopped in the middle of a commit, on this machine or another, goes on writing when it wakes, into
the file that it has open. So whoever takes a folder over from a process that did not end in order copies the database
and its rollback journal byte by byte (no lock of SQLite is asked for), lets SQLite roll the copy back, checks it, and
renames it over the old file: what wakes up writes into a file that has no name any more.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from db.errors import PilotError, StorageError
from db.files import storage_error, sync_folder
from db.words import damaged, in_words

#: the database is copied again if it has changed meanwhile, so often
_TRIES = 3


def journal_of(path: Path) -> Path:
    """Where SQLite keeps what it needs to roll back."""
    return path.with_name(f"{path.name}-journal")


def is_hot(path: Path) -> bool:
    """Whether a transaction was not finished: the journal is not empty. After an orderly end it is."""
    try:
        seen = journal_of(path).stat()
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_size > 0


def move_to_a_new_file(path: Path, guard: Callable[[], None]) -> None:
    """Let ``path`` be a new file with all that was committed. The caller holds the lease.

    A crash at any moment leaves either the old file with its journal, or the new one: the journal, should it still
    be there, would bring back what the new file holds anyway.

    Args:
        path: of the database.
        guard: raises when the lease is lost; asked last before the rename.

    Raises:
        StorageError: it is damaged, or the disk refuses; nothing was changed.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.new")
    try:
        copy_settled(path, beside)
        guard()
        beside.replace(path)
        sync_folder(path.parent)
        # not before: with the old file, it is needed
        journal_of(path).unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        _remove(beside)


def copy_settled(source: Path, target: Path, *, with_journal: bool = True) -> None:
    """Copy a database that nobody writes; what was not committed is rolled back in the copy, which is checked.

    Raises:
        StorageError: the database is damaged, or the disk refuses; there is no ``target`` then.
    """
    source = source.resolve()
    try:
        _copy(source, target, with_journal=with_journal)
        settle(target, source)
    except OSError as error:
        _remove(target)
        raise storage_error(error, target) from error
    except PilotError:
        _remove(target)
        raise


def _copy(source: Path, target: Path, *, with_journal: bool) -> None:
    for _ in range(_TRIES):
        _remove(target)
        before = _look(source)
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
        if with_journal and is_hot(source):
            shutil.copyfile(journal_of(source), journal_of(target))
        if _look(source) == before:
            return
    raise StorageError(
        "the database changes while it is copied: whoever held the folder is still at work",
        where=str(source),
        next_step="end that process, then try again",
    )


def settle(path: Path, of: Path) -> None:
    """Roll back what was not committed, check the whole file, and flush it to the disk.

    Args:
        path: a file that nobody else has open.
        of: the file to be named if something is wrong.

    Raises:
        StorageError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            (answer,) = raw.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise in_words(error, of) from error
    if answer != "ok":
        raise damaged(of, str(answer))
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _look(source: Path) -> list[tuple[int, int]]:
    """What changes when somebody writes: size and time of the database and of its journal."""
    found = []
    for path in (source, journal_of(source)):
        try:
            seen = path.stat()
        except FileNotFoundError:
            found.append((-1, 0))
        else:
            found.append((seen.st_size, seen.st_mtime_ns))
    return found


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    journal_of(path).unlink(missing_ok=True)
