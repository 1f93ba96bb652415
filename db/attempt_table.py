"""Attempts and events: what was started, what became of it, and what happened when."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, insert, select, update

from db.records import LOST, Attempt, Task
from db.rows import attempt_of_row, task_of_row
from db.schema import attempts, events, tasks
from db.states import TERMINAL, TaskKind, TaskState, Verdict

_END_COLUMNS = (
    "ended_at",
    "verdict",
    "reason",
    "exit_code",
    "signal",
    "wall_s",
    "cpu_s",
    "peak_mb",
    "resumable",
    "files",
    "bytes",
    "facts",
)

# statements of every turn are made once: SQLAlchemy spends more time on making one than SQLite on running it
_START = insert(attempts)
_END = (
    update(attempts)
    .where(attempts.c.id == bindparam("b_id"))
    .values({column: bindparam(f"b_{column}") for column in _END_COLUMNS})
)


def record_starts(connection: Connection, started: Sequence[Attempt]) -> None:
    """Write the attempts that are about to be started."""
    if started:
        connection.execute(
            _START,
            [
                {
                    "id": a.id,
                    "task_id": a.task_id,
                    "pilot_id": a.pilot_id,
                    "number": a.number,
                    "node": a.node,
                    "cores": list(a.cores),
                    "gpus": list(a.gpus),
                    "directory": a.directory,
                    "started_at": a.started_at,
                    "others": [share.to_json() for share in a.others],
                    "facts": {},
                }
                for a in started
            ],
        )


def record_ends(connection: Connection, ended: Sequence[Attempt]) -> None:
    """Write what became of attempts."""
    if not ended:
        return
    connection.execute(
        _END,
        [
            {"b_id": a.id}
            | {f"b_{column}": getattr(a, column) for column in _END_COLUMNS[:-1]}
            | {"b_facts": dict(a.facts)}
            for a in ended
        ],
    )


def read_attempts(connection: Connection, task_id: int) -> list[Attempt]:
    """The attempts of one task, first to last."""
    question = select(attempts).where(attempts.c.task_id == task_id).order_by(attempts.c.id)
    return [attempt_of_row(row) for row in connection.execute(question)]


def read_running_attempts(connection: Connection) -> list[Attempt]:
    """The attempts of which no end is recorded."""
    question = select(attempts).where(attempts.c.ended_at.is_(None)).order_by(attempts.c.id)
    return [attempt_of_row(row) for row in connection.execute(question)]


def count_attempts_of_open_tasks(connection: Connection) -> dict[int, int]:
    """How many attempts each task has had that has not ended; tasks without any are left out."""
    question = (
        select(attempts.c.task_id, func.max(attempts.c.number))
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.state.not_in(TERMINAL))
        .group_by(attempts.c.task_id)
    )
    return {row[0]: row[1] for row in connection.execute(question)}


def read_where_to_go_on(connection: Connection) -> dict[int, str]:
    """For open tasks: the folder of the latest resumable attempt, if all that came after it was interrupted too."""
    question = (
        select(attempts.c.task_id, attempts.c.verdict, attempts.c.resumable, attempts.c.archive, attempts.c.directory)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.state.not_in(TERMINAL), attempts.c.verdict.is_not(None))
        .order_by(attempts.c.id)
    )
    found: dict[int, str] = {}
    for task_id, verdict, resumable, archive, directory in connection.execute(question):
        # one that was packed meanwhile was of a task that had ended, and was revived
        if resumable and not archive:
            found[task_id] = directory
        elif resumable or verdict != Verdict.INTERRUPTED:
            found.pop(task_id, None)
    return found


def read_kept_in_vain(connection: Connection) -> list[str]:
    """The folders of attempts that could be gone on from, but never will: their tasks have ended, or begin afresh."""
    wanted = set(read_where_to_go_on(connection).values())
    question = select(attempts.c.directory).where(attempts.c.resumable == 1, attempts.c.archive == "")
    return [directory for directory in connection.execute(question).scalars() if directory not in wanted]


def count_attempts(connection: Connection, task_id: int) -> int:
    """How many attempts a task has had."""
    question = select(func.count()).where(attempts.c.task_id == task_id)
    return int(connection.execute(question).scalar_one())


def latest_attempt_id(connection: Connection) -> int:
    """The highest id that an attempt has had; ids only grow."""
    return int(connection.execute(select(func.coalesce(func.max(attempts.c.id), 0))).scalar_one())


def read_losses(connection: Connection) -> dict[int, int]:
    """How many attempts in a row each open task has lost with their nodes or pilots; drains do not break a row."""
    question = (
        select(attempts.c.task_id, attempts.c.verdict, attempts.c.facts)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.state.not_in(TERMINAL), attempts.c.verdict.is_not(None))
        .order_by(attempts.c.id)
    )
    found: dict[int, int] = {}
    for task_id, verdict, facts in connection.execute(question):
        if LOST in facts:
            found[task_id] = found.get(task_id, 0) + 1
        elif verdict != Verdict.INTERRUPTED:
            found.pop(task_id, None)
    return found


def read_interruptions(connection: Connection) -> list[tuple[int, float, bool]]:
    """Interrupted attempts of open tasks, in order: task, wall time (s), and whether it can be gone on from."""
    question = (
        select(attempts.c.task_id, attempts.c.wall_s, attempts.c.resumable)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(
            tasks.c.state.not_in(TERMINAL), attempts.c.verdict == Verdict.INTERRUPTED, attempts.c.wall_s.is_not(None)
        )
        .order_by(attempts.c.id)
    )
    return [(task_id, wall, bool(resumable)) for task_id, wall, resumable in connection.execute(question)]


def read_durations(connection: Connection, limit: int) -> list[tuple[TaskKind, int, float]]:
    """Kind, size and wall time (s) of the latest successful attempts: what times are learned from.

    The time of one that went on from others is that of all of them.
    """
    before = attempts.alias("before")
    had = (
        select(func.coalesce(func.sum(before.c.wall_s), 0.0))
        .where(before.c.task_id == attempts.c.task_id, before.c.resumable == 1, before.c.id < attempts.c.id)
        .scalar_subquery()
    )
    question = (
        select(tasks.c.kind, tasks.c.size, attempts.c.wall_s + had)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(attempts.c.verdict == Verdict.DONE, attempts.c.wall_s.is_not(None))
        .order_by(attempts.c.id.desc())
        .limit(limit)
    )
    return [(TaskKind(kind), size, wall) for kind, size, wall in connection.execute(question)]


def read_latest_failures(connection: Connection, limit: int) -> list[tuple[Task, str]]:
    """The tasks that failed last, each with the reason of its last attempt."""
    # of failed tasks only: this is asked every second, and most of many attempts are of tasks that are done
    failed = select(tasks.c.id).where(tasks.c.state == TaskState.FAILED)
    last = select(func.max(attempts.c.id)).where(attempts.c.task_id.in_(failed)).group_by(attempts.c.task_id)
    question = (
        select(tasks, attempts.c.verdict, attempts.c.reason)
        .join(attempts, attempts.c.task_id == tasks.c.id)
        .where(tasks.c.state == TaskState.FAILED, attempts.c.id.in_(last))
        .order_by(attempts.c.id.desc())
        .limit(limit)
    )
    return [(task_of_row(row), f"{row.verdict}: {row.reason}") for row in connection.execute(question)]


def read_events(connection: Connection, task_id: int) -> list[tuple[float, str, str]]:
    """When, what and why, for one task."""
    question = select(events).where(events.c.task_id == task_id).order_by(events.c.id)
    return [(row.at, row.event, row.detail) for row in connection.execute(question)]
