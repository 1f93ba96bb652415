"""`pilot status`: where things stand. Answers at once: nothing heavy is imported for it."""

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from db.errors import InputError
from db.states import TaskKind, TaskState
from pilot import host
from pilot.cli.options import FolderOption
from pilot.cli.presence import look
from pilot.folder import Folder, find_folder
from pilot.snapshot import SCHEMA, Snapshot, read_snapshot

_EVERY_S = 1.0


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it for programs: docs/status-schema.md describes it.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All generations and all that runs, however many.")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="List tasks instead, the newest first.")] = False,
    kind: Annotated[TaskKind | None, typer.Option(help="With --tasks: of this kind only.", show_default=False)] = None,
    state: Annotated[
        TaskState | None, typer.Option(help="With --tasks: in this state only.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --tasks: so many at most.")] = 50,
    folder: FolderOption = None,
) -> None:
    """Where things stand: is a pilot alive, what runs, what waits and why, what failed, how the campaign goes.

    It shows what the pilot published last, seconds ago, and says how old that is.
    """
    place = find_folder(folder)
    if tasks:
        from pilot.cli.task_list import print_tasks

        print_tasks(place, kind, state, limit, as_json=as_json)
    elif kind is not None or state is not None:
        raise InputError("--kind and --state choose among tasks", next_step="add --tasks")
    elif as_json:
        print(json.dumps(as_data(place)))
    elif watch:
        _watch(place, everything=everything)
    else:
        from pilot.cli.output import show
        from pilot.cli.view import status_blocks

        show(*status_blocks(place, everything=everything))


def as_data(folder: Folder) -> dict[str, Any]:
    """The snapshot for programs, with ``alive`` and ``age_s`` (s; None if nothing was published yet)."""
    snapshot = read_snapshot(folder)
    now = host.now()
    age_s = None if snapshot is None else max(0.0, now - snapshot.at)
    shown = snapshot or Snapshot(at=now, folder=str(folder.root), pilot=None)
    return {"schema": SCHEMA, "alive": look(folder).alive, "age_s": age_s} | asdict(shown)


def _watch(folder: Folder, *, everything: bool) -> None:
    from rich.live import Live

    from pilot.cli.output import console
    from pilot.cli.view import fitted, status_blocks

    output = console()
    if not sys.stdout.isatty():
        raise InputError("--watch needs a terminal", next_step="`pilot status`, as often as you like; or --json")
    try:
        with Live(console=output, screen=True, auto_refresh=False) as live:
            while True:
                live.update(fitted(output, status_blocks(folder, everything=everything)), refresh=True)
                time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return
