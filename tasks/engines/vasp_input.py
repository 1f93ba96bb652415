"""From the table [label.vasp] and a structure to POSCAR, INCAR and KPOINTS.

VASP wants the atoms species by species, and the vectors of the cell right-handed. So a structure is rearranged, and
what comes back is put into the order of its own atoms (:class:`Arrangement`). Positions stay Cartesian, so forces and
stress need not be turned.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.io.vasp import write_vasp

from db.errors import InputError
from db.records import Json, Structure, Vector
from tasks.engines.vasp_settings import PER_ATOM, potcar_names, table
from tasks.formats.atoms import to_atoms
from tasks.kpoints import Grid, explicit, grid

_WHERE = "[label.vasp] in pilot.toml"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the atoms and the cell of a structure stand in POSCAR.

    Attributes:
        counts: atoms of each species that is there, in the order of POSCAR and POTCAR.
        atoms: for each atom of POSCAR the index of ours.
        rows: for each vector of its cell the index of ours.
    """

    counts: Mapping[str, int]
    atoms: tuple[int, ...]
    rows: tuple[int, int, int]

    def ours(self, rows: Sequence[Vector]) -> tuple[Vector, ...]:
        """Rows of POSCAR's atoms in the order of our atoms."""
        found = dict(zip(self.atoms, rows, strict=True))
        return tuple(found[index] for index in range(len(rows)))


def arrange(structure: Structure, species: Sequence[str]) -> Arrangement:
    """The arrangement of a structure: species in the order of the campaign's.

    Raises:
        InputError: it has an element that is not the campaign's, or no cell.
    """
    symbols = [chemical_symbols[number] for number in structure.numbers]
    strange = sorted(set(symbols) - set(species))
    if strange:
        raise InputError(
            f"the structure has {', '.join(strange)}, but the campaign is of {', '.join(species)}",
            where="species",
            next_step="add the element to species in pilot.toml, or take the structure out",
        )
    if any(all(x == 0.0 for x in row) for row in structure.cell):
        raise InputError(
            "VASP needs a cell with three rows, also where the structure is not periodic",
            where="structure",
            next_step="give the structure a box with enough vacuum",
        )
    ranks = {symbol: rank for rank, symbol in enumerate(species)}
    atoms = tuple(sorted(range(len(symbols)), key=lambda index: (ranks[symbols[index]], index)))
    counts = Counter(symbols[index] for index in atoms)
    # a left-handed cell ends VASP: "the triple product of the basis vectors is negative"
    left_handed = float(np.linalg.det(np.array(structure.cell))) < 0.0
    return Arrangement(dict(counts), atoms, (0, 2, 1) if left_handed else (0, 1, 2))


def poscar(structure: Structure, arrangement: Arrangement) -> str:
    """The text of POSCAR: Cartesian, to 10⁻¹⁶ Å."""
    atoms = to_atoms(structure)[list(arrangement.atoms)]
    atoms.set_cell(atoms.cell[:][list(arrangement.rows)])
    text = io.StringIO()
    write_vasp(text, atoms, direct=False, sort=False, vasp5=True)
    return text.getvalue()


def incar(spec: Json, arrangement: Arrangement, title: str) -> dict[str, Any]:
    """The tags of INCAR: what the settings say, then what corrects the failures of earlier attempts."""
    full = table(spec["settings"])
    tags: dict[str, Any] = {
        # says which attempt the output is of
        "SYSTEM": title,
        "PREC": full["prec"],
        "ENCUT": full["encut"],
        "ISMEAR": full["ismear"],
        "SIGMA": full["sigma"],
        "EDIFF": full["ediff"],
        "NELM": full["nelm"],
        "ALGO": full["algo"],
        "ISTART": 0,
        "ICHARG": 2,
        "NSW": 0,
        "IBRION": -1,
        "ISIF": 2,
        "LREAL": False,
        "LWAVE": False,
        "LCHARG": False,
    }
    tags |= {str(tag).upper(): _spread(str(tag).upper(), value, arrangement) for tag, value in full["incar"].items()}
    return tags | dict(spec.get("corrections") or {})


def incar_text(tags: Mapping[str, Any]) -> str:
    """The text of INCAR."""
    return "".join(f"{tag} = {_written(value)}\n" for tag, value in tags.items())


def kpoints(structure: Structure, spec: Json) -> Grid:
    """The grid of a task along the rows of its structure: its own, or from the density; one where not periodic.

    Raises:
        InputError: neither is given, or the cell has no volume.
    """
    by_density = grid(structure.cell, structure.pbc, spec["settings"].get("kspacing") or 1.0)
    if not any(structure.pbc):
        return 1, 1, 1
    if spec.get("kpoints") is not None:
        return explicit(spec["kpoints"])
    if spec["settings"].get("kspacing") is None:
        raise InputError(
            "there are no k-points: neither kpoints nor kspacing is given",
            where=_WHERE,
            next_step="set label.vasp.kspacing, the distance of k-points in 1/Å with the 2π (0.15–0.3 for a metal)",
        )
    return by_density


def kpoints_text(numbers: Grid, arrangement: Arrangement, title: str) -> str:
    """The text of KPOINTS: centred at Γ, which fits cells of any symmetry."""
    a, b, c = (numbers[row] for row in arrangement.rows)
    return f"{title}\n0\nGamma\n{a} {b} {c}\n0 0 0\n"


def names_of_potcars(spec: Json, arrangement: Arrangement) -> dict[str, str]:
    """The name of the potential of each species that is there, in the order of POSCAR."""
    return potcar_names(spec["settings"], list(arrangement.counts))


def _spread(tag: str, value: Any, arrangement: Arrangement) -> Any:
    """A value for each element as VASP wants it: for each atom, or for each species that is there."""
    if not isinstance(value, Mapping):
        return value
    if tag in PER_ATOM:
        return [f"{count}*{_written(value[symbol])}" for symbol, count in arrangement.counts.items()]
    return [value[symbol] for symbol in arrangement.counts]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    if isinstance(value, list | tuple):
        return " ".join(_written(part) for part in value)
    return str(value)
