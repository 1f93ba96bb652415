"""Reading the records of a report from the database; with a live pilot from the copy that it publishes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, func, select

from db import attempt_table, dataset, pilot_table, task_table
from db.engine import open_reader
from db.schema import attempts, generations, labels, structures, tasks
from db.states import TaskKind, Verdict
from db.takeover import is_hot
from pilot.campaign.protocol import settings_of
from pilot.cli.allocations import account
from pilot.cli.presence import look
from pilot.cli.records import published
from pilot.folder import Folder
from pilot.report.records import Done, LabelSettings, Ran, Records

#: of failures so many tasks are named
_FAILURES = 200
#: pilots of a folder: more than any has
_PILOTS = 100_000


@contextmanager
def opened(folder: Folder) -> Iterator[tuple[Connection, float]]:
    """The database for reading, and of what time it is.

    With a pilot that lives this is its published copy, else the database itself, if it is newer and whole.

    Raises:
        MissingError: there is none yet.
        StorageError: it cannot be read.
    """
    if _is_newer(folder) and not look(folder).alive:
        with open_reader(folder.database) as connection:
            yield connection, folder.database.stat().st_mtime
        return
    with published(folder) as connection:
        yield connection, folder.copy.stat().st_mtime


def _is_newer(folder: Folder) -> bool:
    """Whether the database says more than its copy, and can be read as it stands."""
    try:
        at = folder.database.stat().st_mtime
        if is_hot(folder.database):
            return False
        return not folder.copy.exists() or at > folder.copy.stat().st_mtime
    except OSError:
        return False


def read_records(folder: Folder) -> Records:
    """All that the database tells.

    Raises:
        MissingError, StorageError: as :func:`opened`.
    """
    with opened(folder) as (connection, now):
        counts: dict[str, dict[str, int]] = {}
        for (kind, state), number in task_table.count_by_kind_and_state(connection).items():
            counts.setdefault(kind, {})[state] = number
        return Records(
            now=now,
            generations=dataset.read_generations(connection),
            ran=_ran(connection),
            explored=_done(connection, TaskKind.EXPLORE),
            trained=_done(connection, TaskKind.TRAIN),
            evaluated=_done(connection, TaskKind.EVALUATE),
            pilots=_pilots(connection),
            labels=_labels(connection),
            tasks=counts,
            failed=[
                (task.id, task.kind, task.name, why)
                for task, why in attempt_table.read_latest_failures(connection, _FAILURES)
            ],
            stage_atoms=_stage_atoms(connection),
        )


def _ran(connection: Connection) -> list[Ran]:
    a = attempts.c
    question = (
        select(
            *(a.task_id, tasks.c.kind, tasks.c.size, tasks.c.generation, a.pilot_id, a.node, a.started_at, a.ended_at),
            *(a.verdict, a.reason, a.resumable, a.wall_s, a.others),
            func.json_array_length(a.cores).label("cores"),
        )
        .join(tasks, tasks.c.id == a.task_id)
        .order_by(a.id)
    )
    return [
        Ran(
            task=row.task_id,
            kind=row.kind,
            size=row.size,
            generation=row.generation,
            pilot=row.pilot_id,
            shares=((row.node, row.cores), *((share["node"], len(share["cores"])) for share in row.others)),
            started_at=row.started_at,
            ended_at=row.ended_at,
            verdict=row.verdict or "",
            reason=row.reason,
            resumable=bool(row.resumable),
            wall_s=row.wall_s,
        )
        for row in connection.execute(question)
    ]


def _done(connection: Connection, kind: TaskKind) -> list[Done]:
    a = attempts.c
    question = (
        select(
            *(a.id, tasks.c.key, tasks.c.name, tasks.c.generation, a.facts, a.directory, a.archive, a.wall_s),
            (tasks.c.ranks * tasks.c.threads).label("cores"),
        )
        .join(tasks, tasks.c.id == a.task_id)
        .where(tasks.c.kind == kind, a.verdict == Verdict.DONE)
        .order_by(tasks.c.id)
    )
    return [
        Done(
            row.id,
            row.key or "",
            row.name,
            row.generation,
            row.facts,
            row.directory,
            row.archive,
            row.cores,
            row.wall_s or 0.0,
        )
        for row in connection.execute(question)
    ]


def _pilots(connection: Connection) -> list[dict[str, Any]]:
    spent = pilot_table.core_time_by_verdict(connection)
    newest_first = pilot_table.read_pilots(connection, _PILOTS)
    return [account(pilot, spent.get(pilot["id"], {})) for pilot in reversed(newest_first)]


def _labels(connection: Connection) -> list[LabelSettings]:
    found: dict[str, dict[str, int]] = {}
    question = (
        select(labels.c.settings, structures.c.role, func.count())
        .join(structures, structures.c.id == labels.c.structure_id)
        .group_by(labels.c.settings, structures.c.role)
    )
    for settings, role, number in connection.execute(question):
        found.setdefault(settings, {})[role] = number
    return [_settings(connection, name, counts) for name, counts in found.items()]


def _settings(connection: Connection, name: str, counts: dict[str, int]) -> LabelSettings:
    """What is known of these settings, from one of the tasks that were planned with them."""
    engine, version = (func.json_extract(labels.c.provenance, f"$.{key}") for key in ("engine", "version"))
    known = select(engine, version, func.count()).where(labels.c.settings == name).group_by(engine, version)
    sources = {" ".join(filter(None, row[:2])) or "not recorded": row[2] for row in connection.execute(known)}
    question = (
        select(tasks.c.engine, tasks.c.spec, tasks.c.key)
        .join(attempts, attempts.c.task_id == tasks.c.id)
        .join(labels, labels.c.attempt_id == attempts.c.id)
        .where(labels.c.settings == name)
        .limit(1)
    )
    row = connection.execute(question).one_or_none()
    if row is None or settings_of(row.key) != name:
        return LabelSettings(name, counts, sources=sources)
    return LabelSettings(name, counts, row.engine, row.spec.get("settings", {}), sources)


def _stage_atoms(connection: Connection) -> dict[int, int]:
    """How many atoms each stage explores: those of its latest exploration."""
    latest = (
        select(func.max(tasks.c.id))
        .join(generations, generations.c.id == tasks.c.generation)
        .where(tasks.c.kind == TaskKind.EXPLORE)
        .group_by(generations.c.stage)
    )
    numbers = func.json_array_length(tasks.c.spec, "$.structure.numbers")
    question = (
        select(generations.c.stage, numbers)
        .join(tasks, tasks.c.generation == generations.c.id)
        .where(tasks.c.id.in_(latest))
    )
    return {stage: atoms for stage, atoms in connection.execute(question) if atoms}
