"""Opening the database file, and the one guarded way to write it.

One process writes (facts on SQLite and shared file systems: WAL and file locks cannot be trusted there). The
:class:`Writer` checks in each transaction that no later pilot has taken over: by the epoch, by the lease, and by the
file itself, which a successor replaces (:mod:`db.takeover`).
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from db import files
from db.errors import LostLeaseError, PilotError, StorageError
from db.migrations import bring_up_to_date, version_of
from db.schema import VERSION
from db.takeover import is_hot, move_to_a_new_file
from db.words import damaged, storage_error

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

    def __init__(self, path: Path, connection: Connection, guard: Callable[[], None]) -> None:
        self.path = path
        self.epoch = 0
        self._connection = connection
        self._guard = guard
        self._place = _place_of(path)

    def demand(self) -> None:
        """Make sure that we still are the writer, whatever SQLite has in its memory and file locks say.

        Raises:
            LostLeaseError: the lease is another's, or another file is in the place of ours.
        """
        self._guard()
        if _place_of(self.path) != self._place:
            raise LostLeaseError(
                "another pilot has taken over, or the folder was moved: the database is not the file that we opened",
                where=str(self.path),
                next_step="`pilot status` in the folder shows who is there; this one stops without writing",
            )

    def bind(self, epoch: int) -> None:
        """From now on each transaction demands that ``epoch`` is the latest pilot."""
        self.epoch = epoch

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One durable transaction.

        Raises:
            LostLeaseError: a later pilot is there: nothing was written where it, or anybody else, would find it.
            StorageError: the disk is full or the file is damaged: nothing of this transaction was written.
        """
        try:
            with self._connection.begin():
                if self.epoch:
                    self._demand_epoch()
                yield self._connection
                self.demand()
        except DBAPIError as error:
            raise storage_error(error, self.path) from error
        # who was frozen in the commit itself must not act on it
        self.demand()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The same connection for questions."""
        try:
            with self._connection.begin():
                yield self._connection
        except DBAPIError as error:
            raise storage_error(error, self.path) from error

    def publish_copy(self, target: Path) -> None:
        """Write a consistent copy of the whole database to ``target`` (it appears whole).

        Raises:
            LostLeaseError: we are not the writer any more.
            StorageError: it could not be written; the database is unharmed.
        """
        # a name of its own: a predecessor that was frozen while it wrote one may wake up
        beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}.new")
        try:
            raw = self._connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("VACUUM INTO ?", (str(beside),))
            self.demand()
            beside.replace(target)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"the copy of the database could not be written: {error}",
                where=str(target),
                next_step="free some room, or mend what is in the way: the database itself is unharmed",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

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


def _nobody() -> None:
    """There is no lease that could be lost."""


def open_writer(path: Path, guard: Callable[[], None] = _nobody, *, took_over: bool = False) -> Writer:
    """Open (or make) the database for writing. The caller holds the lease.

    Args:
        path: of the database.
        guard: raises LostLeaseError when the lease is lost; asked in each transaction, just before the commit.
        took_over: whoever had it open before did not end in order, and may only be frozen.

    Raises:
        StorageError: not a database, damaged, of a newer schema, or the disk refuses.
        HeldError: another process has it open.
        LostLeaseError: the lease was lost meanwhile.
    """
    _demand_a_file(path)
    if path.exists() and (took_over or is_hot(path)):
        move_to_a_new_file(path, guard)
    if not path.exists():
        # SQLite would make it 0644 whatever the umask: the project's group could not go on with it
        with contextlib.suppress(OSError):
            path.touch()
    engine = _engine(f"sqlite:///{path}", _WRITER_PRAGMAS)
    try:
        connection = engine.connect()
        with connection.begin():
            bring_up_to_date(connection, str(path))
            guard()
        with connection.begin():
            answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if answer != "ok":
            raise damaged(path, str(answer))
        return Writer(path, connection, guard)
    except PilotError:
        engine.dispose()
        raise
    except DBAPIError as error:
        engine.dispose()
        raise storage_error(error, path) from error


def _demand_a_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise StorageError(
            "the database is no file",
            where=str(path),
            next_step="move away what is there; `pilot doctor --repair` says what can be put in its place",
        )


def _place_of(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever its name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.storage_error(error, path) from error
    return found.st_dev, found.st_ino


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
