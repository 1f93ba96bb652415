"""`pilot submit`: handing pilot.sh in to SLURM."""

import difflib
import os
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from db.errors import InputError
from pilot.cli.options import FolderOption
from pilot.folder import find_folder


class COMMAND_CLASS(TyperCommand):  # noqa: N801 — a constant of this module, which happens to be a class
    """Knows that options of sbatch are easily typed without the two dashes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ours = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        for word in args[: args.index("--")] if "--" in args else args:
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if name.startswith("-") and name not in ours:
                raise _no_such(name, word, ours)
        return super().parse_args(ctx, args)


def _no_such(name: str, word: str, ours: set[str]) -> InputError:
    near = difflib.get_close_matches(name, sorted(ours), n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return InputError(
        f"`pilot submit` has no option {name}{meant}",
        next_step=f"for an option of sbatch, two dashes before it: `pilot submit -- {word}`",
    )


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
