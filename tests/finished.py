"""Folders with finished runs, made quickly: rows by the functions that the pilot uses, and small folders."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from folders import command
from sqlalchemy import Connection

from db import attempt_table, dataset, pilot_table, task_table
from db.engine import open_writer
from db.records import Attempt, NewTask, Task, Transition
from db.states import Event, TaskKind, TaskState, Verdict
from pilot.contents import count
from pilot.folder import Folder

#: what one run leaves: as one of pw.x, without its scratch
FILES = ("pw.in", "pw.out", "pw.err")


def finish(
    folder: Folder,
    number: int,
    *,
    generation: tuple[int, int] | None = None,
    kind: TaskKind = TaskKind.COMMAND,
    files: Sequence[str] = FILES,
    state: TaskState = TaskState.DONE,
) -> list[Attempt]:
    """So many tasks that have ended, each with one attempt and its files."""
    writer = open_writer(folder.database)
    try:
        with writer.transaction() as connection:
            attempts = _finish(connection, folder, number, generation, kind, state)
            ended = [_with_files(folder, attempt, files) for attempt in attempts]
            attempt_table.record_ends(connection, ended)
        writer.publish_copy(folder.copy)
    finally:
        writer.close()
    return ended


def _finish(
    connection: Connection,
    folder: Folder,
    number: int,
    generation: tuple[int, int] | None,
    kind: TaskKind,
    state: TaskState,
) -> list[Attempt]:
    epoch = pilot_table.begin_pilot(connection, host="here", pid=1, job_id=None, at=1.0)
    pilot_table.campaign_id(connection)
    found = None if generation is None else dataset.add_generation(connection, *generation, 1.0)
    new = [replace(command("true"), kind=kind, generation=found) for _ in range(number)]
    tasks = insert(connection, new)
    first = attempt_table.latest_attempt_id(connection) + 1
    started = [
        Attempt(first + i, task.id, epoch, 1, "here", (0,), (), folder.attempt(first + i), started_at=1.0)
        for i, task in enumerate(tasks)
    ]
    attempt_table.record_starts(connection, started)
    event = Event.SUCCEEDED if state is TaskState.DONE else Event.FAILED
    ways = [(Event.STARTED, TaskState.READY, TaskState.RUNNING), (event, TaskState.RUNNING, state)]
    for what, before, after in ways:
        transitions = [Transition(task.id, what, before, after) for task in tasks]
        task_table.record_transitions(connection, transitions, 1.0, epoch)
    verdict = Verdict.DONE if state is TaskState.DONE else Verdict.CRASHED
    return [replace(attempt, ended_at=2.0, verdict=verdict, wall_s=1.0) for attempt in started]


def insert(connection: Connection, new: Sequence[NewTask]) -> list[Task]:
    """Insert tasks."""
    return task_table.insert_tasks(connection, new, 1.0)[0]


def _with_files(folder: Folder, attempt: Attempt, files: Sequence[str]) -> Attempt:
    place = folder.root / attempt.directory
    place.mkdir(parents=True)
    for name in files:
        (place / name).write_text(content(attempt.id, name))
    number, size = count(place)
    return replace(attempt, files=number, bytes=size)


def content(attempt_id: int, name: str) -> str:
    """What a file of an attempt holds."""
    return f"{name} of attempt {attempt_id}\n" * (attempt_id % 40 + 1)


def inodes(place: Path) -> int:
    """Files and folders below a folder, and it."""
    return count(place, at_most=10**9)[0]
