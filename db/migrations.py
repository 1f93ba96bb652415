"""From an older schema to this one, a step at a time.

``STEPS[n]`` brings a database of version n to n + 1. A step is SQL text and is never edited once it was
released: a test builds each old version and compares the migrated database with a fresh one.
"""

from pathlib import Path

from sqlalchemy import Connection

from db.errors import StorageError
from db.schema import VERSION, metadata, triggers

STEPS: dict[int, tuple[str, ...]] = {
    # allocations of many nodes: what a pilot had of them, and what an attempt holds beyond its first node
    1: (
        "ALTER TABLE pilots ADD COLUMN seen_at FLOAT",
        "ALTER TABLE pilots ADD COLUMN nodes JSON DEFAULT '{}' NOT NULL",
        "ALTER TABLE pilots ADD COLUMN reserved_core_s FLOAT DEFAULT '0' NOT NULL",
        "ALTER TABLE tasks ADD COLUMN nodes INTEGER DEFAULT '1' NOT NULL CHECK (nodes >= 1)",
        "ALTER TABLE attempts ADD COLUMN others JSON DEFAULT '[]' NOT NULL",
    ),
    # attempts that can be gone on from, and what their folders hold until they are packed
    2: (
        "ALTER TABLE attempts ADD COLUMN resumable INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE attempts ADD COLUMN archive VARCHAR DEFAULT '' NOT NULL",
        "ALTER TABLE attempts ADD COLUMN files INTEGER DEFAULT '0' NOT NULL",
        "ALTER TABLE attempts ADD COLUMN bytes INTEGER DEFAULT '0' NOT NULL",
    ),
    # more roles of structures (a CHECK, which no ALTER TABLE reaches; no row changes), and where a label comes from
    3: (
        "PRAGMA writable_schema = ON",
        (
            "UPDATE sqlite_master SET sql = replace(sql, '''holdout'', ''eos''', "
            "'''holdout'', ''eos'', ''elastic'', ''sample'', ''test''') WHERE name = 'structures'"
        ),
        "PRAGMA writable_schema = RESET",
        "ALTER TABLE labels ADD COLUMN provenance JSON DEFAULT '{}' NOT NULL",
    ),
}


def create(connection: Connection) -> None:
    """Make all tables in an empty database."""
    metadata.create_all(connection)
    for trigger in triggers():
        connection.exec_driver_sql(trigger)
    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def version_of(connection: Connection) -> int:
    """The version of the schema in the file; 0 for an empty file."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def stored_version(path: Path) -> int:
    """The version that a file says it is of, without opening it as a database; 0 if it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return 0
    return int.from_bytes(head[60:64], "big") if head.startswith(b"SQLite format 3\0") else 0


def bring_up_to_date(connection: Connection, where: str) -> None:
    """Create the tables in an empty file, or take an older file up to :data:`db.schema.VERSION`.

    Raises:
        StorageError: the file is of a newer schema, or is not ours.
    """
    version = version_of(connection)
    if version > VERSION:
        raise StorageError(
            f"this database is of schema {version}; this pilot knows schemas up to {VERSION}",
            where=where,
            next_step="use the newer pilot that wrote it (upgrade the installation): nothing was changed",
        )
    if version == 0:
        strangers = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        if strangers:
            raise StorageError(
                "this is an SQLite file of another program",
                where=where,
                next_step="`pilot doctor --repair` says what can be put in its place; or start in another folder with "
                "`pilot init FOLDER`",
            )
        create(connection)
        return
    for step in range(version, VERSION):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {step + 1}")
