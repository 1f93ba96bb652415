"""The process of one step that is done in Python: ``python -P -m tasks.steps``, started in the attempt's folder.

Reads task.json, does the step, and writes result.json whole, last of all, with the attempt's id: so a result that is
there is complete and is this attempt's. Exit code 0: done; 3: bad input, with the reason in result.json and on stderr.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from db.errors import InputError, MissingError, PilotError
from db.files import settle, write_whole
from db.records import Json
from tasks import checkpoint

BAD_INPUT = 3
TASK_FILE = "task.json"
RESULT_FILE = "result.json"

Step = Callable[[Json, Path, Path], dict[str, Any]]


def step_of(name: str) -> Step:
    """The function that does the step; the heavy libraries of the others are not imported.

    Raises:
        InputError: there is no such step.
    """
    # imported here so that motep never starts MPI in this process: no step is parallel
    sys.modules.setdefault("mpi4py", None)  # type: ignore[arg-type]
    if name == "explore":
        from tasks.mtp.exploring import explore

        return explore
    if name == "select":
        from tasks.mtp.selecting import select

        return select
    if name == "train":
        from tasks.mtp.training import train

        return train
    if name == "train-pair":
        from tasks.pair.training import train as train_pair

        return train_pair
    if name == "evaluate":
        from tasks.validation.evaluating import evaluate

        return evaluate
    if name == "train-mlip":
        from tasks.engines.mlip_training import train as train_by_mlip

        return train_by_mlip
    if name == "explore-mlip":
        from tasks.engines.lammps_mlip_run import explore as explore_by_mlip

        return explore_by_mlip
    raise InputError(f"there is no step {name!r}", where=TASK_FILE)


def main() -> int:
    """Do the step that task.json in the current folder asks for; returns the exit code."""
    where = Path.cwd()
    task = json.loads((where / TASK_FILE).read_text())
    attempt_id = task["attempt_id"]
    if task.get("note"):
        print(task["note"], flush=True)
    try:
        facts = step_of(task["step"])(task["spec"], Path(task["root"]), where)
    except (InputError, MissingError) as error:
        return _refuse(where, attempt_id, str(error))
    # what is told by the result must outlive a loss of power, too: other tasks read our files
    settle(where.parent, where.parent.parent)
    write_whole(where / RESULT_FILE, json.dumps({"attempt_id": attempt_id, "facts": facts}))
    if not facts.get("stopped"):
        with contextlib.suppress(OSError):  # it is not needed any more, and may be large
            (where / checkpoint.FILE).unlink()
    return 0


def _refuse(where: Path, attempt_id: int, text: str) -> int:
    print(text, file=sys.stderr)
    write_whole(where / RESULT_FILE, json.dumps({"attempt_id": attempt_id, "error": text}))
    return BAD_INPUT


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PilotError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code if error.exit_code != BAD_INPUT else 1)
