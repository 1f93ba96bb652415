"""`pilot show`: one task."""

from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def show(
    task: Annotated[int, typer.Argument(metavar="TASK", help="The id of a task.", min=1, show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
    folder: FolderOption = None,
) -> None:
    """Show one task: its state, what it needs and what needs it, its attempts with their files, what happened when.

    This is read from the copy of the database that the pilot publishes every few seconds.
    """
    from pilot.cli.showing import print_task

    print_task(find_folder(folder), task, as_json=as_json)
