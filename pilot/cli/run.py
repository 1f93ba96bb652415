"""`pilot run`: a pilot on this machine, now."""

import sys
from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def run(
    walltime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help='Everything must be over after so long ("2 h", "1:30:00"); it drains in time. '
            "Default: run.walltime of pilot.toml, or no end.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use so many cores of this machine. Default: run.cores of pilot.toml, or all.",
            show_default=False,
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print what happens line by line, also on a terminal, instead of a view.")
    ] = False,
    folder: FolderOption = None,
) -> None:
    """Run what there is to run, here and now, until nothing is left or the time is over.

    It goes on where the last pilot left off, however that ended: finished work is never done again. Ctrl-C drains:
    nothing new starts, what runs may finish; a second Ctrl-C ends what runs at once, and the next `pilot run` starts
    it again. All that happens is also written to pilot.log.

    Exit code: 0 all is done, or drained in order; 1 something failed or can never run; 130 ended by a second Ctrl-C.
    """
    from pilot.cli.running import Wishes, run_here
    from pilot.durations import parse_duration

    wishes = Wishes(None if walltime is None else parse_duration(walltime), cores)
    raise typer.Exit(run_here(find_folder(folder), wishes, live=sys.stdout.isatty() and not plain))
