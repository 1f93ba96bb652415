"""Between rows of the tables and records."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Row

from db.records import Attempt, NewTask, Resources, Share, Task
from db.states import TaskKind, TaskState, Verdict

#: SQLite allows 32766 variables in a statement; questions by id go in pieces of this size.
PIECE = 5000

_Value = TypeVar("_Value")


def pieces(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    """``values`` in lists short enough for one statement."""
    listed = list(values)
    for start in range(0, len(listed), PIECE):
        yield listed[start : start + PIECE]


def task_of_new(number: int, new: NewTask, held: bool, at: float) -> Task:
    """The task that a new one becomes."""
    return Task(
        id=number,
        kind=new.kind,
        engine=new.engine,
        name=new.name,
        state=TaskState.WAITING if held else TaskState.READY,
        spec=new.spec,
        key=new.key,
        priority=new.priority,
        resources=new.resources,
        size=new.size,
        time_request_s=new.time_request_s,
        time_limit_s=new.time_limit_s,
        generation=new.generation,
        added_at=at,
    )


def row_of_task(task: Task) -> dict[str, Any]:
    """Its columns."""
    return {
        "id": task.id,
        "key": task.key,
        "kind": task.kind,
        "engine": task.engine,
        "name": task.name,
        "state": task.state,
        "spec": dict(task.spec),
        "priority": task.priority,
        "ranks": task.resources.ranks,
        "threads": task.resources.threads,
        "gpus": task.resources.gpus,
        "memory_mb": task.resources.memory_mb,
        "nodes": task.resources.nodes,
        "size": task.size,
        "time_request_s": task.time_request_s,
        "time_limit_s": task.time_limit_s,
        "generation": task.generation,
        "added_at": task.added_at,
        "tries": {},
    }


def task_of_row(row: Row[Any], *, with_spec: bool = True) -> Task:
    """The task of a row; without its spec where the question left that out."""
    return Task(
        id=row.id,
        kind=TaskKind(row.kind),
        engine=row.engine,
        name=row.name,
        state=TaskState(row.state),
        spec=row.spec if with_spec else {},
        key=row.key,
        priority=row.priority,
        resources=Resources(row.ranks, row.threads, row.gpus, row.memory_mb, row.nodes),
        size=row.size,
        time_request_s=row.time_request_s,
        time_limit_s=row.time_limit_s,
        generation=row.generation,
        added_at=row.added_at,
        tries={Verdict(verdict): count for verdict, count in row.tries.items()},
    )


def attempt_of_row(row: Row[Any]) -> Attempt:
    """The attempt of a row."""
    return Attempt(
        id=row.id,
        task_id=row.task_id,
        pilot_id=row.pilot_id,
        number=row.number,
        node=row.node,
        cores=tuple(row.cores),
        gpus=tuple(row.gpus),
        directory=row.directory,
        started_at=row.started_at,
        others=tuple(Share.from_json(share) for share in row.others),
        ended_at=row.ended_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reason=row.reason,
        exit_code=row.exit_code,
        signal=row.signal,
        wall_s=row.wall_s,
        cpu_s=row.cpu_s,
        peak_mb=row.peak_mb,
        facts=row.facts,
        resumable=bool(row.resumable),
        archive=row.archive,
        files=row.files,
        bytes=row.bytes,
    )
