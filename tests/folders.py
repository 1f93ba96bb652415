"""Campaign folders and rows for tests."""

from pathlib import Path
from typing import Any

from db.records import NewTask, Resources
from db.states import EdgeKind, TaskKind, TaskState
from pilot.folder import Folder


def make_folder(root: Path, config: str = "") -> Folder:
    """A campaign folder with this pilot.toml."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "pilot.toml").write_text(config)
    folder = Folder(root)
    folder.make()
    return folder


def task_row(task_id: int, state: TaskState) -> dict[str, Any]:
    """A row of the tasks table."""
    return {
        "id": task_id,
        "kind": TaskKind.COMMAND,
        "engine": "command",
        "name": f"task {task_id}",
        "state": state,
        "spec": {},
        "priority": 0,
        "ranks": 1,
        "threads": 1,
        "gpus": 0,
        "memory_mb": 0,
        "size": 0,
        "added_at": 0.0,
        "tries": {},
    }


def command(
    *argv: str,
    key: str | None = None,
    after: tuple[str | int, ...] = (),
    after_ended: tuple[str | int, ...] = (),
    resources: Resources = Resources(),
    **more: Any,
) -> NewTask:
    """A task that runs a command."""
    edges = [(parent, EdgeKind.DONE) for parent in after] + [(parent, EdgeKind.ENDED) for parent in after_ended]
    return NewTask(
        kind=TaskKind.COMMAND,
        engine="command",
        name=" ".join(argv),
        spec={"argv": list(argv), "cwd": None, "env": {}, "mpi": False, "shell": False},
        key=key,
        resources=resources,
        after=tuple(edges),
        **more,
    )
