"""`pilot status --tasks`: a list of tasks."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from db import task_table
from db.records import Task
from db.states import TaskKind, TaskState
from pilot import host
from pilot.cli.output import ERROR, FAINT, GOOD, WARNING, show
from pilot.cli.records import published
from pilot.cli.tables import grid
from pilot.durations import say_duration
from pilot.folder import Folder

_STYLES = {TaskState.DONE: GOOD, TaskState.FAILED: ERROR, TaskState.CANCELLED: WARNING, TaskState.RUNNING: "bold"}


def print_tasks(folder: Folder, kind: TaskKind | None, state: TaskState | None, limit: int, *, as_json: bool) -> None:
    """Print the newest tasks of a kind and state.

    Raises:
        MissingError: nothing was published yet.
    """
    with published(folder) as connection:
        tasks = task_table.list_tasks(connection, kind=kind, state=state, limit=limit)
        counts = task_table.count_by_kind_and_state(connection)
    if as_json:
        print(json.dumps([asdict(task) for task in tasks]))
        return
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = grid(
        task=right, state={}, kind={}, name={"overflow": "ellipsis", "no_wrap": True}, cores=right, added=right
    )
    for task in tasks:
        table.add_row(*_cells(task))
    blocks: list[RenderableType] = [table]
    matching = sum(n for (k, s), n in counts.items() if kind in (None, k) and state in (None, s))
    if matching > len(tasks):
        blocks.append(Text(f"the newest {len(tasks)} of {matching}: --limit shows more", style=FAINT))
    show(*blocks)


def _cells(task: Task) -> tuple[Text | str, ...]:
    state = Text(task.state, style=_STYLES.get(task.state, ""))
    ago = say_duration(max(0.0, host.now() - task.added_at)) + " ago"
    return str(task.id), state, task.kind, task.name, str(task.resources.cores), ago
