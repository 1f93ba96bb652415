"""`pilot export`: the training set and the potential, for others."""

from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder


def export(
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to; made if it is not there. Default: results/ in the campaign folder.",
            show_default=False,
        ),
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Write the labelled sets and the newest potential in the formats of others.

    train.extxyz, train.db (ASE), train.cfg (MLIP); holdout, test, sample, eos, elastic as .extxyz and .cfg where there
    are such; labels of other settings apart in other-settings/; provenance.csv (where each label comes from),
    settings.json (what the names of settings stand for), the potential (as MLIP-3 reads it) with its active set, and
    README.txt with counts, units, settings and errors. A campaign that runs can be exported at any time; files of an
    earlier export are replaced.
    """
    from pilot.cli.exporting import export_campaign

    place = find_folder(folder)
    export_campaign(place, to or place.results)
