"""What tasks have left in their files: what was selected and sampled; a potential is published."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db import dataset, progress
from db.dataset import Candidate
from db.records import Attempt, Task
from db.states import TaskKind
from pilot.campaign.files import publish_potential, read_samples, read_selected
from pilot.campaign.protocol import Protocol, member_of, study_of
from pilot.folder import Folder
from tasks import registry
from tasks.mtp.sampling import choose_uniform


def read_result(
    connection: Connection, folder: Folder, protocol: Protocol, task: Task, attempt: Attempt
) -> list[Candidate]:
    """What a task that seems to have succeeded has left; see :meth:`pilot.campaign.driver.Driver.read_result`."""
    if task.generation is None or task.kind not in {TaskKind.SELECT, TaskKind.TRAIN}:
        return []
    now = dataset.read_generation(connection, task.generation)
    if task.kind is TaskKind.TRAIN:
        published = folder.root / place_of(folder, task, now)
        publish_potential(folder.root / attempt.directory, published, registry.POTENTIALS[task.engine])
        return []
    name = f"s{now.stage + 1}g{now.number:02d}"
    selected = read_selected(attempt, folder, protocol, name)
    explored = progress.done_attempts(connection, now.id, TaskKind.EXPLORE)
    return selected + _sample(read_samples(explored, folder, protocol, name), selected, now, protocol)


def place_of(folder: Folder, task: Task, now: dataset.Generation) -> str:
    """Where the potential is published that a task trains, relative to the campaign folder."""
    point, member = study_of(task.key), member_of(task.key)
    if point is not None:
        return f"potentials/{point}"
    return folder.potential(now.stage, now.number) + (f"-m{member}" if member else "")


def _sample(
    drawn: list[Candidate], selected: Sequence[Candidate], now: dataset.Generation, protocol: Protocol
) -> list[Candidate]:
    """Of what all explorations of a sweep have drawn so many as are asked for, none that is trained on."""
    if not drawn:
        return []
    trained = {candidate.structure.content_hash() for candidate in selected}
    drawn = [candidate for candidate in drawn if candidate.structure.content_hash() not in trained]
    questions, seed = protocol.config.questions, protocol.seed("sample", now.stage, now.number)
    low, high = questions.gamma
    grades = [candidate.grade or 0.0 for candidate in drawn]
    return [drawn[k] for k in choose_uniform(grades, questions.sample, low, high, seed)]
