"""What can still be read of a damaged database, row by row, into a new one.

Pages have no checksums: what is torn shows as an error where SQLite walks over it. Each table is read from its
beginning and from its end up to such a place; what lies between is lost. A damaged index costs nothing.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine

from db.errors import StorageError
from db.migrations import create, stored_version
from db.schema import VERSION, metadata
from db.words import damaged


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What came out.

    Attributes:
        rows: how many rows of each table.
        torn: the tables of which rows are missing.
        consistent: no row speaks of another that is not there.
    """

    rows: dict[str, int] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    consistent: bool = True

    @property
    def complete(self) -> bool:
        """Nothing is missing of what the pilot decides by: the history of events is only told."""
        return self.consistent and not set(self.torn) - {"events"}


def salvage(source: Path, target: Path) -> Salvaged:
    """Read what can be read of ``source``, a copy that nobody else has open, into the new database ``target``.

    Raises:
        StorageError: nothing can be read, or it is of another schema.
    """
    if stored_version(source) != VERSION:
        raise damaged(source, "its first page is not ours")
    engine = create_engine(f"sqlite:///{target}")
    with engine.begin() as connection:
        create(connection)
    engine.dispose()
    rows: dict[str, int] = {}
    torn: list[str] = []
    try:
        with (
            closing(sqlite3.connect(source, isolation_level=None)) as old,
            closing(sqlite3.connect(target, isolation_level=None)) as new,
        ):
            # what is not text any more is not ours, but no reason to stop
            old.text_factory = bytes
            new.execute("BEGIN")
            for table in metadata.sorted_tables:
                rows[table.name], whole = _copy(old, new, table.name, [column.name for column in table.columns])
                if not whole:
                    torn.append(table.name)
            new.execute("COMMIT")
            consistent = new.execute("PRAGMA foreign_key_check").fetchone() is None
    except sqlite3.Error as error:
        raise StorageError(f"nothing can be read of it: {error}", where=str(source)) from error
    return Salvaged(rows, tuple(torn), consistent)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str, columns: list[str]) -> tuple[int, bool]:
    """Copy one table; how many rows, and whether none is missing."""
    names = ", ".join(f'"{name}"' for name in columns)
    put = f"INSERT OR IGNORE INTO {table} (rowid, {names}) VALUES ({', '.join('?' * (len(columns) + 1))})"
    # the table itself, by its rows' numbers: no index is used
    ask = f"SELECT rowid, {names} FROM {table} NOT INDEXED ORDER BY rowid"
    number, whole = 0, True
    for order in ("", " DESC"):
        try:
            for row in old.execute(ask + order):
                number += new.execute(put, [_value(value) for value in row]).rowcount
        except sqlite3.DatabaseError:
            whole = False
        if whole:
            break
    return number, whole


def _value(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
