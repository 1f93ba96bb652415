"""`pilot doctor`: what is here, what is missing, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from db.errors import InputError, MissingError
from pilot.cli.options import FolderOption
from pilot.folder import Folder, find_folder


def doctor(
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Also run a small campaign (aluminium with ASE's EMT; no DFT; about a minute) in a temporary folder.",
        ),
    ] = False,
    allocation: Annotated[
        bool,
        typer.Option(
            "--allocation",
            help="Inside an allocation: look at its nodes, the disk they share, every MPI launcher (two probes at "
            "once, their cores compared) and every way to start the pilot's own ranks. A minute at most, as a rule.",
        ),
    ] = False,
    release_lease: Annotated[
        bool,
        typer.Option(
            "--release-lease",
            help="Take the folder from a pilot on another machine that you know to be dead, and do nothing else.",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Look at the database, its backups and what else pilots keep: what is damaged, and what could be "
            "done about it. Changes nothing.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do it. What is damaged is kept.")] = False,
    folder: FolderOption = None,
) -> None:
    """Say what was found: programs and their versions, MPI, cores, memory, file system, and mistakes in pilot.toml.

    Outside of a campaign folder it looks for all that a campaign could need. Exit code: 3 when something that is
    needed is missing or wrong; each such thing is printed with its cure.
    """
    if release_lease:
        from pilot.cli.checks_folder import release

        release(find_folder(folder))
        return
    if repair or yes:
        if not repair:
            raise InputError("--yes goes with --repair only", next_step="`pilot doctor --repair` says what it would do")
        from pilot.cli.repair import repair as repaired

        raise typer.Exit(repaired(find_folder(folder), yes=yes))
    if allocation:
        from pilot.cli.allocation_print import print_sections
        from pilot.cli.checks_allocation import check_allocation, told_to_end

        with told_to_end():
            healthy = print_sections(check_allocation(_folder_or_none(folder)))
        if not healthy:
            raise typer.Exit(MissingError.exit_code)
        return
    from pilot.cli.checks import check_all, print_checks

    healthy = print_checks(check_all(_folder_or_none(folder)))
    if smoke:
        from pilot.cli.smoke import run_smoke

        healthy = run_smoke() and healthy
    if not healthy:
        raise typer.Exit(MissingError.exit_code)


def _folder_or_none(given: Path | None) -> Folder | None:
    """A folder that was named must be one; where none was named there need not be one."""
    if given is not None:
        return find_folder(given)
    try:
        return find_folder(None)
    except MissingError:
        return None
