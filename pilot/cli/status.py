"""`pilot status`: where things stand."""

from typing import Annotated

import typer

from db.errors import InputError
from db.states import TaskKind, TaskState
from pilot.cli.options import FolderOption
from pilot.cli.status_print import StatusOptions, print_status
from pilot.folder import find_folder


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it for programs: docs/status-schema.md describes it.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All generations, and 40 of the tasks that run.")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="List tasks instead, the newest first.")] = False,
    kind: Annotated[TaskKind | None, typer.Option(help="With --tasks: of this kind only.", show_default=False)] = None,
    state: Annotated[
        TaskState | None, typer.Option(help="With --tasks: in this state only.", show_default=False)
    ] = None,
    allocations: Annotated[
        bool, typer.Option("--allocations", help="List pilots instead: what became of the core-time of each.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --tasks and --allocations: so many at most.")] = 50,
    folder: FolderOption = None,
) -> None:
    """Where things stand: is a pilot alive, what runs, what waits and why, what failed, how the campaign goes.

    It shows what the pilot published last, seconds ago, and says how old that is.
    """
    if allocations:
        from pilot.cli.allocations import print_allocations

        print_allocations(find_folder(folder), limit, as_json=as_json)
    elif tasks:
        from pilot.cli.task_list import print_tasks

        print_tasks(find_folder(folder), kind, state, limit, as_json=as_json)
    elif kind is not None or state is not None:
        raise InputError("--kind and --state choose among tasks", next_step="add --tasks")
    else:
        print_status(StatusOptions(watch, as_json, everything, folder))
