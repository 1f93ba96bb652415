"""What is known of the tasks of a generation: the facts on which the campaign plans."""

from collections import Counter
from typing import Any

from sqlalchemy import Connection, func, select

from db.records import Attempt, Task
from db.rows import attempt_of_row, task_of_row
from db.schema import attempts, tasks
from db.states import TaskKind, TaskState, Verdict


def count_states(connection: Connection, generation_id: int, kind: TaskKind) -> Counter[TaskState]:
    """How many tasks of a kind there are in each state."""
    question = (
        select(tasks.c.state, func.count())
        .where(tasks.c.generation == generation_id, tasks.c.kind == kind)
        .group_by(tasks.c.state)
    )
    return Counter({TaskState(state): number for state, number in connection.execute(question)})


def planned_labels(connection: Connection) -> list[str]:
    """The keys of the label tasks that the campaign itself has planned."""
    question = select(tasks.c.key).where(tasks.c.kind == TaskKind.LABEL, tasks.c.generation.is_not(None))
    return [key for key in connection.execute(question).scalars() if key is not None]


def task_with_key(connection: Connection, key: str) -> Task | None:
    """The task of this key."""
    row = connection.execute(select(tasks).where(tasks.c.key == key)).one_or_none()
    return None if row is None else task_of_row(row)


def tasks_of_kind(connection: Connection, generation_id: int, kind: TaskKind) -> list[Task]:
    """The tasks of a kind that a generation has."""
    question = select(tasks).where(tasks.c.generation == generation_id, tasks.c.kind == kind).order_by(tasks.c.id)
    return [task_of_row(row) for row in connection.execute(question)]


def done_attempts(connection: Connection, generation_id: int, kind: TaskKind) -> list[Attempt]:
    """The successful attempts of the tasks of a kind, by task."""
    question = (
        select(attempts)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.generation == generation_id, tasks.c.kind == kind, attempts.c.verdict == Verdict.DONE)
        .order_by(tasks.c.id)
    )
    return [attempt_of_row(row) for row in connection.execute(question)]


def explored(connection: Connection, generation_id: int) -> dict[str, Any]:
    """What the explorations of a generation showed: numbers, and the highest and mean γ."""
    wanted = sum(count_states(connection, generation_id, TaskKind.EXPLORE).values())
    found = [attempt.facts for attempt in done_attempts(connection, generation_id, TaskKind.EXPLORE)]
    steps = sum(facts["steps"] for facts in found)
    return {
        "wanted": wanted,
        "done": len(found),
        "broke": sum(bool(facts["broke"]) for facts in found),
        "preselected": sum(facts["saved"] for facts in found),
        "steps": steps,
        "gamma_max": max((facts["gamma_max"] for facts in found), default=None),
        "gamma_mean": sum(facts["gamma_mean"] * facts["steps"] for facts in found) / steps if steps else None,
    }
