"""Opening the database file, and the one guarded way to write it.

One process writes (facts on SQLite and shared file systems: WAL and file locks cannot be trusted there). The
:class:`Writer` checks in each transaction that no later pilot has taken over.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import StaticPool

from db.errors import HeldError, LostLeaseError, PilotError, StorageError
from db.migrations import bring_up_to_date, version_of
from db.schema import VERSION

_WRITER_PRAGMAS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA mmap_size = 0",
)


class Writer:
    """The one connection that writes.

    Attributes:
        path: the database file.
        epoch: the id of our row in ``pilots``; 0 until :meth:`bind`.
    """

    def __init__(self, path: Path, connection: Connection) -> None:
        self.path = path
        self.epoch = 0
        self._connection = connection

    def bind(self, epoch: int) -> None:
        """From now on each transaction demands that ``epoch`` is the latest pilot."""
        self.epoch = epoch

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One durable transaction.

        Raises:
            LostLeaseError: a later pilot is in the database: nothing was written.
            StorageError: the disk is full or the file is damaged: nothing of this transaction was written.
        """
        try:
            with self._connection.begin():
                if self.epoch:
                    self._demand_epoch()
                yield self._connection
        except DBAPIError as error:
            raise storage_error(error, self.path) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The same connection for questions."""
        try:
            with self._connection.begin():
                yield self._connection
        except DBAPIError as error:
            raise storage_error(error, self.path) from error

    def publish_copy(self, target: Path) -> None:
        """Write a consistent copy of the whole database to ``target`` (it appears whole)."""
        beside = target.with_name(f".{target.name}.new")
        try:
            beside.unlink(missing_ok=True)
            raw = self._connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("VACUUM INTO ?", (str(beside),))
            beside.replace(target)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise StorageError(
                f"the copy of the database could not be written: {error}",
                where=str(target),
                next_step="free some room, or mend what is in the way: the database itself is unharmed",
            ) from error

    def close(self) -> None:
        """Close the file."""
        engine = self._connection.engine
        self._connection.close()
        engine.dispose()

    def _demand_epoch(self) -> None:
        latest = self._connection.exec_driver_sql("SELECT max(id) FROM pilots").scalar_one()
        if latest != self.epoch:
            raise LostLeaseError(
                f"pilot {latest} has taken over from pilot {self.epoch}",
                where=str(self.path),
                next_step="nothing: this one stops without writing",
            )


def open_writer(path: Path) -> Writer:
    """Open (or make) the database for writing. The caller holds the lease.

    Raises:
        StorageError: not a database, damaged, of a newer schema, or the disk refuses.
        HeldError: another process has it open.
    """
    engine = _engine(f"sqlite:///{path}", _WRITER_PRAGMAS)
    try:
        connection = engine.connect()
        with connection.begin():
            bring_up_to_date(connection, str(path))
        with connection.begin():
            answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if answer != "ok":
            raise damaged(path, str(answer))
    except PilotError:
        engine.dispose()
        raise
    except DBAPIError as error:
        engine.dispose()
        raise storage_error(error, path) from error
    return Writer(path, connection)


@contextmanager
def open_reader(path: Path) -> Iterator[Connection]:
    """Open a published copy, or a database that no pilot holds, for reading only.

    Raises:
        StorageError: not a database, damaged, or of another schema.
    """
    engine = _engine(f"sqlite:///file:{path}?immutable=1&uri=true", ("PRAGMA query_only = ON",))
    try:
        with engine.connect() as connection:
            version = version_of(connection)
            if version != VERSION:
                raise StorageError(
                    f"this database is of schema {version}; this pilot reads schema {VERSION}",
                    where=str(path),
                    next_step="use the pilot that wrote it; an older one is brought up to date by `pilot run`",
                )
            yield connection
    except DBAPIError as error:
        raise storage_error(error, path) from error
    finally:
        engine.dispose()


def storage_error(error: DBAPIError, path: Path) -> PilotError:
    """What SQLite said, in words, with what to do."""
    said = str(error.orig)
    if "full" in said:
        return StorageError(
            "the disk or the quota is full: the database cannot be written",
            where=str(path),
            next_step="free some room, then type `pilot run` again: all that was committed is safe",
        )
    if "locked" in said or "busy" in said:
        return HeldError(
            "another process has the database open",
            where=str(path),
            next_step="`pilot status` shows which pilot is alive; `pilot drain` ends it in order",
        )
    if isinstance(error, OperationalError) and ("unable to open" in said or "readonly" in said):
        return StorageError(
            f"the database cannot be opened: {said}",
            where=str(path),
            next_step="check that the folder exists and may be written",
        )
    if isinstance(error, DatabaseError) and ("malformed" in said or "not a database" in said):
        return damaged(path, said)
    return StorageError(f"the database refuses: {said}", where=str(path), next_step="type `pilot doctor`")


def damaged(path: Path, said: str) -> StorageError:
    """The file is not what we wrote."""
    return StorageError(
        f"the database is damaged: {said}",
        where=str(path),
        next_step=f"the last published copy is {path.with_name('copy.db')}: put it in place by hand "
        "after you have moved the damaged file away",
    )


def _engine(url: str, pragmas: tuple[str, ...]) -> Engine:
    engine = create_engine(url, poolclass=StaticPool)

    # sqlite3 opens transactions late and by its own rules; we say BEGIN ourselves, and mean to write
    @event.listens_for(engine, "connect")
    def _connected(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None
        for pragma in pragmas:
            raw.execute(pragma)

    immediate = "query_only" not in pragmas[0]

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
