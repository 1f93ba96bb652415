"""`pilot import`: labels that the user has already."""

from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import FolderOption
from pilot.folder import find_folder

NEEDS_ARGUMENTS = True


def import_labels(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE …",
            help="OUTCAR, vasprun.xml (also .gz), output or XML of pw.x, extxyz, ASE's .db or .json, MLIP's .cfg, or "
            "folders that hold such, at any depth.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        str | None,
        typer.Option(
            metavar="this|NAME",
            help="this: they were computed with the settings of [label] of this campaign, which then trains on them "
            "and never labels these structures again (this/NAME: with those of [label.fidelity.NAME]). Any other name "
            "keeps them apart: not trained on, exported under that name.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            help="train; holdout: never trained on, errors of each generation are measured on them; test: errors are "
            "measured on them, too, whatever their settings."
        ),
    ] = "train",
    glob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="In folders only files of such names, as 'OUTCAR*'; give it again for more.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of files with many steps every N-th, from the first.")
    ] = 1,
    last: Annotated[bool, typer.Option("--last", help="Of files with many steps the last one.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="At most so many of all. Default: no limit.", show_default=False),
    ] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPECIES=eV",
            help="Energy to take off for each atom of a species, where the zero of their energies is not that of your "
            "[label]; give it again for more.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and compare all, and add nothing.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --settings this: even where a file says that its settings were others."),
    ] = False,
    folder: FolderOption = None,
) -> None:
    """Bring labels that you have: they are trained on, or errors are measured on them.

    Each ionic step counts that is whole and converged; its energy is the free energy to which the forces belong.
    What is there already with the same settings is left out as a duplicate; where the numbers differ, both sources are
    told, and nothing is changed. What cannot be used is told with file and number, and does not stop the rest.

    Examples: `pilot import runs/ --settings this`; `pilot import test.extxyz --role test --settings pbe-520eV`;
    `pilot import old/ --glob 'OUTCAR*' --last --dry-run --settings this`.
    """
    from pilot.cli.import_reading import Wanted
    from pilot.cli.importing import bring

    wanted = Wanted(
        files=tuple(files),
        settings=settings,
        role=role,
        glob=tuple(glob or ()),
        every=every,
        last=last,
        limit=limit,
        shift=tuple(shift or ()),
        dry_run=dry_run,
        force=force,
    )
    code = bring(find_folder(folder), wanted)
    if code:
        raise typer.Exit(code)
