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
    """Write the training set, the holdout and the newest potential in the formats of others.

    train.extxyz, train.db (ASE), train.cfg (MLIP), holdout.extxyz, holdout.cfg, provenance.csv (where each structure
    comes from), potential.mtp (as MLIP-3 reads it), active.npz (its active set), and README.txt with counts, units,
    settings and errors. A campaign that runs can be exported at any time; files of an earlier export are replaced.
    """
    from pilot.cli.exporting import export_campaign

    place = find_folder(folder)
    export_campaign(place, to or place.results)
