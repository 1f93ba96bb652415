"""What the tasks of a campaign are told only when they start, and the files that tell it."""

from typing import Any

from sqlalchemy import Connection

from db import dataset, progress
from db.records import Task
from db.states import Role, TaskKind, TaskState
from pilot.campaign.explorations import member_files
from pilot.campaign.files import Written, write_set
from pilot.campaign.protocol import Protocol, Source, key_of, member_of, questions_key, study_of
from pilot.folder import Folder


def complete_spec(
    connection: Connection, folder: Folder, protocol: Protocol, task: Task, written: Written
) -> dict[str, Any]:
    """The spec of a task that is about to start, with what is known only now; writes the files it names.

    Args:
        written: what is in the files that were written before; grows.
    """
    spec = dict(task.spec)
    if task.generation is None:
        return spec
    now = dataset.read_generation(connection, task.generation)
    if task.kind is TaskKind.SELECT:
        spec["candidates"] = [
            f"{attempt.directory}/preselected.cfg"
            for attempt in progress.done_attempts(connection, task.generation, TaskKind.EXPLORE)
        ]
    elif task.kind is TaskKind.TRAIN:
        for role in (Role.TRAIN, Role.HOLDOUT):
            spec[role] = write_set(connection, folder, protocol, role, now, written)
        if member_of(task.key) and spec.get("start") and not (folder.root / spec["start"]).exists():
            # its training failed the last time; from another member's potential it would become that one again
            spec |= {"start": None, "iterations": protocol.train.first_iterations}
    elif task.kind is TaskKind.EVALUATE:
        spec |= _evaluation(connection, folder, protocol, task, now, written)
    return spec


def _evaluation(
    connection: Connection,
    folder: Folder,
    protocol: Protocol,
    task: Task,
    now: dataset.Generation,
    written: Written,
) -> dict[str, Any]:
    if task.key == questions_key(now.stage, now.number):
        sample = write_set(connection, folder, protocol, Role.SAMPLE, now, written, of_this_generation=True)
        return {"sample": sample}
    found: dict[str, Any] = {
        role: write_set(connection, folder, protocol, role, now, written)
        for role in (Role.HOLDOUT, Role.EOS, Role.ELASTIC, Role.TEST)
    }
    # as it was trained on: labels may have come in since
    trained_on = f"{folder.generation(now.stage, now.number)}/{Role.TRAIN}.cfg"
    if (folder.root / trained_on).exists():
        found[Role.TRAIN] = trained_on
    point = study_of(task.key)
    place = f"potentials/{point}" if point else folder.potential(now.stage, now.number)
    found["potential"] = f"{place}/{protocol.potential_file}"
    if point is None:
        source = Source(now.stage, now.number, place, "")
        found["members"] = [
            file
            for member, file in enumerate(member_files(protocol, source), 1)
            if _is_trained(connection, now, member)
        ]
    return {key: value for key, value in found.items() if value}


def _is_trained(connection: Connection, now: dataset.Generation, member: int) -> bool:
    fit = progress.task_with_key(connection, key_of(TaskKind.TRAIN, now.stage, now.number, member))
    return fit is not None and fit.state is TaskState.DONE
