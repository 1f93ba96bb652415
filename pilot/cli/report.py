"""`pilot report`: the campaign as a page to read."""

from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def report(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page; its folder is made if need be. Default: results/report.html in the campaign folder.",
            show_default=False,
        ),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Write each figure as PNG, too.")] = False,
    folder: FolderOption = None,
) -> None:
    """Write one HTML page with all figures of the campaign: γ, errors, physics, and what became of the machine's time.

    The page needs no network and no other file; beside it, in a folder that is called like it, each figure lies as CSV
    and SVG. A report can be written at any time, while the campaign runs, too: it shows what there is.
    """
    from pilot.cli.output import note, plural, say
    from pilot.report.writing import write_report

    place = find_folder(folder)
    written = write_report(place, output or place.results / "report.html", png=png, said=note)
    say(f"{written.page}")
    say(f"{written.figures}: {plural(len(written.shown), 'figure')} and tables, each as data and as a picture")
    if written.lacking:
        say(f"nothing to show yet for {', '.join(written.lacking)}")
