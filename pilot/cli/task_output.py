"""Finding and printing the output of a task."""

import shutil
import sys
from typing import BinaryIO

from db.errors import MissingError, StateError
from db.records import Attempt, Task
from db.states import TERMINAL
from pilot import host
from pilot.cli.attempt_files import AttemptFiles, files_of
from pilot.cli.output import note
from pilot.cli.records import read_attempts
from pilot.folder import Folder

#: The main output of the programs that we know, and what they print as errors: whichever is the largest is shown.
_OUTPUTS = ("stdout", "pw.out", "OUTCAR", "log.lammps")
_ERRORS = ("stderr", "pw.err")
_POLL_S = 0.3
#: The published copy is looked at again after so many polls.
_POLLS_A_LOOK = 7


def print_output(folder: Folder, task_id: int, number: int | None, *, stderr: bool, follow: bool) -> None:
    """Print what an attempt of a task has written.

    Raises:
        MissingError: there is no such task or attempt, or its file is gone.
        StorageError: the archive that holds it cannot be read.
        StateError: the task has not been started yet.
    """
    task, attempts = read_attempts(folder, task_id)
    attempt = _chosen(task, attempts, number)
    files = files_of(folder, attempt)
    name, size = _output_of(files, _ERRORS if stderr else _OUTPUTS)
    if not name:
        raise MissingError(
            f"attempt {attempt.number} of task {task_id} has left no output",
            where=str(files.archive or files.directory),
            next_step=f"`pilot show {task_id}` lists its files",
        )
    with files.open(name) as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
        if follow and attempt.ended_at is None:
            _follow(folder, task_id, attempt, file)
    if not follow and size == 0:
        other = "" if stderr else "; --stderr shows what it printed as errors"
        note(f"{files.directory / name} is empty{other}")


def _chosen(task: Task, attempts: list[Attempt], number: int | None) -> Attempt:
    if not attempts:
        raise StateError(
            f"task {task.id} ({task.name}) has not been started: it is {task.state}",
            next_step=f"`pilot show {task.id}` tells what it needs",
        )
    if number is None:
        return attempts[-1]
    for attempt in attempts:
        if attempt.number == number:
            return attempt
    raise MissingError(
        f"task {task.id} has no attempt {number}",
        next_step=f"`pilot log {task.id} --attempt {attempts[-1].number}` is the last one",
    )


def _output_of(files: AttemptFiles, names: tuple[str, ...]) -> tuple[str, int]:
    """The largest of the files with these names, and its size; "" if there is none."""
    there = [(name, size) for name, size in files.listed() if name in names]
    return max(there, key=lambda found: found[1], default=("", 0))


def _follow(folder: Folder, task_id: int, attempt: Attempt, file: BinaryIO) -> None:
    try:
        ended = False
        while not ended:
            for _ in range(_POLLS_A_LOOK):
                host.pause(_POLL_S)
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.flush()
            ended = _has_ended(folder, task_id, attempt.number)
        # what came between the last look at the file and its end
        shutil.copyfileobj(file, sys.stdout.buffer)
    except KeyboardInterrupt:
        return


def _has_ended(folder: Folder, task_id: int, number: int) -> bool:
    task, attempts = read_attempts(folder, task_id)
    return task.state in TERMINAL or any(a.number == number and a.ended_at is not None for a in attempts)
