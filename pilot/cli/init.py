"""`pilot init`: making a campaign folder."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[FOLDER]", help="The folder; made if it is not there. Default: this one.", show_default=False
        ),
    ] = Path(),
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with a copy of this example.", show_default=False)
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Also write pilot.sh, the batch script for this site; a campaign folder that has none gets it.",
            show_default=False,
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --site: the project whose budget pays.", show_default=False),
    ] = None,
    list_examples: Annotated[bool, typer.Option("--list-examples", help="Print the examples that there are.")] = False,
    list_sites: Annotated[
        bool, typer.Option("--list-sites", help="Print the sites that there are, with their limits.")
    ] = False,
) -> None:
    """Make a campaign folder: with a pilot.toml that explains every key, or as a copy of an example.

    With --site it also gets pilot.sh, the script that `pilot submit` hands to SLURM. Nothing that is there already is
    overwritten.
    """
    from pilot.cli import founding, sites

    if list_examples:
        founding.print_examples()
    elif list_sites:
        sites.print_sites()
    else:
        founding.found(folder, founding.Wishes(example, site, account))
