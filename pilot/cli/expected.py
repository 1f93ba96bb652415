"""How long a task is expected to need, and how that is known: as the pilot sees it, from what is published."""

import contextlib
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from db import attempt_table
from db.errors import PilotError
from db.records import Attempt, Task
from db.states import TaskKind, Verdict
from pilot.config import read_config
from pilot.folder import Folder
from pilot.ledger import LEARN_FROM
from pilot.scheduler.times import Expectation, Times


def expectation(folder: Folder, connection: Connection, task: Task, attempts: Sequence[Attempt]) -> Expectation:
    """Of a task with these attempts."""
    times = Times(_guesses(folder))
    times.learn_all(reversed(attempt_table.read_durations(connection, LEARN_FROM)))
    return times.explain(task.kind, task.size, task.time_request_s, _had_in_vain(attempts))


def time_limit(folder: Folder, task: Task) -> float | None:
    """What ends the task if it hangs, s: its own limit, or else that of its kind; None: nothing."""
    if task.time_limit_s is not None:
        return task.time_limit_s
    with contextlib.suppress(PilotError, OSError):
        return read_config(folder.config).resources.limits().get(task.kind)
    return None


def _guesses(folder: Folder) -> dict[TaskKind, float]:
    # a pilot.toml that cannot be read is told of elsewhere
    with contextlib.suppress(PilotError, OSError):
        return read_config(folder.config).resources.guesses()
    return {}


def _had_in_vain(attempts: Iterable[Attempt]) -> float:
    """The longest time after which an attempt was interrupted from which nothing goes on."""
    return max(
        (
            attempt.wall_s or 0.0
            for attempt in attempts
            if attempt.verdict is Verdict.INTERRUPTED and not attempt.resumable
        ),
        default=0.0,
    )
