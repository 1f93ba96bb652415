"""`pilot submit`: handing pilot.sh in to SLURM."""

import os
from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def submit(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTIONS OF SBATCH …]",
            help="Options for sbatch after two dashes; they go before those of pilot.sh: `-- --nodes=4`.",
            show_default=False,
        ),
    ] = None,
    chain: Annotated[
        bool,
        typer.Option(
            "--chain",
            help="Each allocation that begins queues the next one behind itself, until nothing is left to do.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script, the line and what SLURM says of it; submit nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Submit even if nothing seems to be left to do.")] = False,
    folder: FolderOption = None,
) -> None:
    """Hand pilot.sh in to SLURM (sbatch), so that a pilot works in this folder as soon as there are nodes.

    It is refused while pilot.sh is not filled in, while a job of this folder waits or runs (with --chain it queues
    behind one that runs), and when nothing is left to do. `pilot init --site NAME` writes pilot.sh.
    """
    from pilot.cli import submitting

    wishes = submitting.Wishes(chain, dry_run, force, tuple(options or ()))
    submitting.submit(find_folder(folder), wishes, os.environ)
