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
    list_examples: Annotated[bool, typer.Option("--list-examples", help="Print the examples that there are.")] = False,
) -> None:
    """Make a campaign folder: with a pilot.toml that explains every key, or as a copy of an example.

    Nothing that is there already is overwritten.
    """
    from pilot.cli import founding

    if list_examples:
        founding.print_examples()
    else:
        founding.found(folder, example)
