"""`pilot log`: what a task has printed."""

from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def log(
    task: Annotated[int, typer.Argument(metavar="TASK", help="The id of a task.", min=1, show_default=False)],
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt, from 1. Default: the last.", show_default=False)
    ] = None,
    stderr: Annotated[bool, typer.Option("--stderr", help="What it printed as errors instead.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-F", help="Go on until the attempt has ended, or Ctrl-C.")
    ] = False,
    folder: FolderOption = None,
) -> None:
    """Print the output of a task: what it wrote to the standard output, or the main output file of its program."""
    from pilot.cli.task_output import print_output

    print_output(find_folder(folder), task, attempt, stderr=stderr, follow=follow)
