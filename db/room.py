"""What the attempts take on the disk, which of them nothing needs any more, and where they were packed.

Functions that write take a :class:`sqlalchemy.Connection` inside a :meth:`db.engine.Writer.transaction`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from db.rows import pieces
from db.schema import attempts, edges, generations, meta, tasks
from db.states import TERMINAL, TaskKind, TaskState

_ARCHIVES = "archives"
_BESIDE = "beside_runs"


@dataclass(frozen=True, slots=True)
class Room:
    """What is recorded of the room that is taken.

    Attributes:
        files, bytes: of the attempts that have folders of their own, as they were when they ended.
        packed: attempts that were packed.
        archives: the archives by name, relative to the campaign folder, with their bytes.
        beside: files and bytes of what else pilots wrote in the campaign folder; None: nobody has counted yet.
    """

    files: int = 0
    bytes: int = 0
    packed: int = 0
    archives: Mapping[str, int] | None = None
    beside: tuple[int, int] | None = None


def read_room(connection: Connection) -> Room:
    """What is recorded; reads all attempts."""
    question = select(
        func.coalesce(func.sum(attempts.c.files).filter(attempts.c.archive == ""), 0),
        func.coalesce(func.sum(attempts.c.bytes).filter(attempts.c.archive == ""), 0),
        func.count().filter(attempts.c.archive != ""),
    )
    files, size, packed = connection.execute(question).one()
    beside = _read(connection, _BESIDE)
    return Room(
        int(files),
        int(size),
        int(packed),
        {str(name): int(number) for name, number in (_read(connection, _ARCHIVES) or {}).items()},
        None if beside is None else (int(beside[0]), int(beside[1])),
    )


def count_unpacked(connection: Connection) -> int:
    """How many attempts have folders of their own, or never had any."""
    return int(connection.execute(select(func.count()).where(attempts.c.archive == "")).scalar_one())


def read_packable(connection: Connection, until: int) -> list[tuple[int, str, int, int | None, int, int]]:
    """The attempts up to this id that no task needs any more, and that were not packed, the oldest first.

    Their tasks have ended. An exploration is needed until its selection is done, and a task without a generation as
    long as one that needs it may still run, or be retried.

    Returns:
        Id, directory, bytes, the id of the generation, its stage and number (0, 0 without one).
    """
    selection, child = tasks.alias("selection"), tasks.alias("child")
    selected = exists().where(
        selection.c.generation == tasks.c.generation,
        selection.c.kind == TaskKind.SELECT,
        selection.c.state == TaskState.DONE,
    )
    needed = exists().where(
        edges.c.parent == tasks.c.id,
        child.c.id == edges.c.child,
        child.c.state.not_in([TaskState.DONE, TaskState.CANCELLED]),
    )
    free = or_(
        and_(tasks.c.generation.is_(None), ~needed),
        and_(tasks.c.generation.is_not(None), or_(tasks.c.kind != TaskKind.EXPLORE, selected)),
    )
    question = (
        select(
            attempts.c.id,
            attempts.c.directory,
            attempts.c.bytes,
            tasks.c.generation,
            func.coalesce(generations.c.stage, 0),
            func.coalesce(generations.c.number, 0),
        )
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .outerjoin(generations, generations.c.id == tasks.c.generation)
        .where(
            attempts.c.archive == "",
            attempts.c.id <= until,
            attempts.c.ended_at.is_not(None),
            tasks.c.state.in_(TERMINAL),
            free,
        )
        .order_by(attempts.c.id)
    )
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in connection.execute(question)]


def read_busy_generations(connection: Connection, after: int) -> set[int]:
    """The generations with tasks that have not ended, or with attempts after this id."""
    working = select(tasks.c.generation).where(tasks.c.state.not_in(TERMINAL), tasks.c.generation.is_not(None))
    recent = (
        select(tasks.c.generation)
        .join(attempts, attempts.c.task_id == tasks.c.id)
        .where(attempts.c.id > after, tasks.c.generation.is_not(None))
    )
    found = [*connection.execute(working.distinct()), *connection.execute(recent.distinct())]
    return {row[0] for row in found}


def record_packed(connection: Connection, archive: str, size: int, ids: Iterable[int]) -> list[int]:
    """Record that attempts lie in an archive of this size; those that are needed again meanwhile are left out.

    Returns:
        The ids that were recorded.
    """
    recorded: list[int] = []
    ended = select(tasks.c.id).where(tasks.c.id == attempts.c.task_id, tasks.c.state.in_(TERMINAL))
    for piece in pieces(ids):
        change = (
            update(attempts)
            .where(attempts.c.id.in_(piece), attempts.c.archive == "", attempts.c.ended_at.is_not(None), ended.exists())
            .values(archive=archive)
            .returning(attempts.c.id)
        )
        recorded += connection.execute(change).scalars()
    if recorded:
        _write(connection, _ARCHIVES, (_read(connection, _ARCHIVES) or {}) | {archive: size})
    return recorded


def record_beside(connection: Connection, files: int, size: int) -> None:
    """Record what else pilots wrote in the campaign folder: how many files, of how many bytes together."""
    _write(connection, _BESIDE, [files, size])


def read_archives(connection: Connection) -> set[str]:
    """The archives that attempts name."""
    question = select(attempts.c.archive).where(attempts.c.archive != "").distinct()
    return set(connection.execute(question).scalars())


def read_packed(connection: Connection, ids: Iterable[int]) -> list[tuple[str, str]]:
    """Of these attempts those that were packed: directory and archive."""
    found: list[tuple[str, str]] = []
    for piece in pieces(ids):
        question = select(attempts.c.directory, attempts.c.archive).where(
            attempts.c.id.in_(piece), attempts.c.archive != ""
        )
        found += [(row[0], row[1]) for row in connection.execute(question)]
    return found


def directories_of(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """The directories of attempts, relative to the campaign folder."""
    found: dict[int, str] = {}
    for piece in pieces(ids):
        question = select(attempts.c.id, attempts.c.directory).where(attempts.c.id.in_(piece))
        found |= {row[0]: row[1] for row in connection.execute(question)}
    return found


def _read(connection: Connection, key: str) -> Any:
    text = connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()
    return None if text is None else json.loads(text)


def _write(connection: Connection, key: str, value: Any) -> None:
    statement = sqlite_insert(meta).values(key=key, value=json.dumps(value))
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": json.dumps(value)}))
