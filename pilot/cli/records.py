"""Reading the published copy of the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from db import attempt_table, task_table
from db.engine import open_reader
from db.errors import MissingError
from db.records import Attempt, Edge, Task
from db.states import TaskState
from pilot import host
from pilot.cli.expected import expectation, time_limit
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.scheduler.times import Expectation


@dataclass(frozen=True, slots=True)
class Record:
    """All that is recorded of one task.

    Attributes:
        needs: edges from its parents, with their names and states.
        needed_by: edges to its children, with their names and states.
        events: when (seconds since 1970), what, and why.
        expected: how long it is expected to need.
        limit_s: what ends it if it hangs, s; None: nothing.
    """

    task: Task
    needs: list[tuple[Edge, str, TaskState]]
    needed_by: list[tuple[Edge, str, TaskState]]
    attempts: list[Attempt]
    events: list[tuple[float, str, str]]
    expected: Expectation
    limit_s: float | None


@contextmanager
def published(folder: Folder) -> Iterator[Connection]:
    """The published copy, for reading.

    Raises:
        MissingError: nothing was published yet.
        StorageError: it cannot be read.
    """
    if not folder.copy.exists():
        raise MissingError(
            "there are no tasks in this folder yet",
            where=str(folder.root),
            next_step="`pilot add -- COMMAND` puts one in; `pilot run` begins a campaign",
        )
    with open_reader(folder.copy) as connection:
        yield connection


def read_record(folder: Folder, task_id: int) -> Record:
    """One task with all that belongs to it.

    Raises:
        MissingError: there is no such task, or it was added less than a few seconds ago.
    """
    with published(folder) as connection:
        task = _task(connection, folder, task_id)
        around = task_table.read_edges_around(connection, task_id)
        others = {edge.parent for edge in around} | {edge.child for edge in around}
        known = task_table.read_tasks(connection, others)
        attempts = attempt_table.read_attempts(connection, task_id)
        events = attempt_table.read_events(connection, task_id)
        expected = expectation(folder, connection, task, attempts)
    needs = [(edge, known[edge.parent].name, known[edge.parent].state) for edge in around if edge.child == task_id]
    behind = [(edge, known[edge.child].name, known[edge.child].state) for edge in around if edge.parent == task_id]
    return Record(task, needs, behind, attempts, events, expected, time_limit(folder, task))


def read_attempts(folder: Folder, task_id: int) -> tuple[Task, list[Attempt]]:
    """One task and its attempts.

    Raises:
        MissingError: there is no such task, or it was added less than a few seconds ago.
    """
    with published(folder) as connection:
        return _task(connection, folder, task_id), attempt_table.read_attempts(connection, task_id)


def _task(connection: Connection, folder: Folder, task_id: int) -> Task:
    try:
        return task_table.read_task(connection, task_id)
    except MissingError as error:
        old = say_duration(max(0.0, host.now() - folder.copy.stat().st_mtime))
        raise MissingError(error.what, where=f"{folder.copy}, {old} old", next_step=error.next_step) from error
