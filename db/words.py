"""What SQLite says, in words: what is wrong with the database, and what to do."""

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from db.errors import HeldError, PilotError, StorageError

_REPAIR = "`pilot doctor --repair` says what can be saved, and changes nothing"


def storage_error(error: DBAPIError, path: Path) -> PilotError:
    """What SQLAlchemy was told."""
    return in_words(_cause(error.orig or error), path)


def _cause(error: BaseException) -> BaseException:
    """What was wrong first: on a full disk SQLite takes the whole transaction back, and with it our savepoint."""
    cause: BaseException | None = error
    while cause is not None and "no such savepoint" in str(cause):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def in_words(error: BaseException, path: Path) -> PilotError:
    """What SQLite said, in words, with what to do."""
    said = str(error)
    if "full" in said:
        return StorageError(
            "the disk or the quota is full: the database cannot be written",
            where=str(path),
            next_step="free some room, then type it again: all that was committed is safe",
        )
    if "locked" in said or "busy" in said:
        return HeldError(
            "another process has the database open",
            where=str(path),
            next_step="`pilot status` shows which pilot is alive; `pilot drain` ends it in order",
        )
    if "I/O error" in said:
        return StorageError(
            f"the disk refuses: {said} (it fails, has become read-only, or a quota is full)",
            where=str(path),
            next_step="when that is mended (`pilot doctor` looks at the disk), type `pilot run` again: "
            "all that was committed is safe",
        )
    if isinstance(error, sqlite3.OperationalError) and ("unable to open" in said or "readonly" in said):
        return StorageError(
            f"the database cannot be opened: {said}" if "unable" in said else f"the database cannot be written: {said}",
            where=str(path),
            next_step="check that the folder exists and may be written, and that the file system is not read-only",
        )
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in said or "not a database" in said):
        return damaged(path, said)
    return StorageError(f"the database refuses: {said}", where=str(path), next_step="type `pilot doctor`")


def damaged(path: Path, said: str) -> StorageError:
    """The file is not what we wrote."""
    # SQLite's check names the part of the connection, on a line of its own
    said = " ".join(said.removeprefix("*** in database main ***").split())
    return StorageError(f"the database is damaged: {said}", where=str(path), next_step=_REPAIR)
