"""The cells of a campaign: the crystal, its multiples, strained and rattled copies. Pure but for a given file."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from db.errors import InputError
from db.records import Structure
from pilot.tables import CrystalTable
from tasks.formats.atoms import from_atoms, read_structures, to_atoms


def unit_cell(crystal: CrystalTable, species: list[str], root: Path, cell: str) -> Structure:
    """The primitive or conventional cell of the crystal.

    Raises:
        InputError: the crystal cannot be built, or its file not read.
    """
    if crystal.file is not None:
        return read_structures(root / crystal.file)[0][0]
    try:
        # ASE knows a conventional cell of the cubic lattices only
        conventional = cell == "conventional" and crystal.structure not in {"hcp", "wurtzite"}
        # half a second, which a folder without a campaign need not wait for
        from ase.build import bulk

        atoms = bulk(crystal.formula or species[0], crystal.structure, a=crystal.a, c=crystal.c, cubic=conventional)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"the crystal cannot be built: {error}",
            where="[crystal] in pilot.toml",
            next_step='name what sits on the sites (formula = "NaCl"), or give `file` a structure',
        ) from error
    return from_atoms(atoms)[0]


def repeated(structure: Structure, repeat: list[int]) -> Structure:
    """A multiple of a cell along its three vectors."""
    from ase.build import make_supercell

    atoms = make_supercell(to_atoms(structure), np.diag(repeat))
    return from_atoms(atoms)[0]


def occupied(structure: Structure, composition: Mapping[str, float], seed: int) -> Structure:
    """The same sites, a species drawn for each: a random alloy.

    Args:
        structure: the sites.
        composition: the share of each species; they need not add up to 1.
        seed: the same seed, the same alloy.
    """
    rng = random.Random(seed)
    drawn = rng.choices(list(composition), weights=list(composition.values()), k=len(structure.numbers))
    return replace(structure, numbers=tuple(atomic_number(name) for name in drawn))


def scaled(structure: Structure, factor: float) -> Structure:
    """All lengths times ``factor``."""
    atoms = to_atoms(structure)
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return from_atoms(atoms)[0]


def strained(structure: Structure, strain: float, rattle: float, seed: int) -> Structure:
    """A copy under a random symmetric strain, with randomly displaced atoms.

    Args:
        structure: the cell.
        strain: each of the six components is uniform within ±this.
        rattle: standard deviation of each coordinate's displacement, Å.
        seed: the same seed, the same copy.
    """
    rng = random.Random(seed)
    e = [rng.uniform(-strain, strain) for _ in range(6)]
    deformation = np.eye(3) + np.array(
        [[e[0], e[5] / 2, e[4] / 2], [e[5] / 2, e[1], e[3] / 2], [e[4] / 2, e[3] / 2, e[2]]]
    )
    atoms = to_atoms(structure)
    atoms.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=True)
    shifts = [[rng.gauss(0.0, rattle) for _ in range(3)] for _ in range(len(atoms))]
    atoms.set_positions(atoms.get_positions() + np.array(shifts))
    return from_atoms(atoms)[0]


def volume_per_atom(structure: Structure) -> float:
    """Å³."""
    return abs(float(np.linalg.det(np.array(structure.cell)))) / len(structure.numbers)


def nearest_distance(structure: Structure) -> float:
    """The shortest distance between two atoms or an atom and its own image, Å."""
    atoms: Atoms = to_atoms(structure)
    images = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    shifts = np.array(images) @ np.asarray(atoms.cell)
    positions = atoms.get_positions()
    separations = positions[None, :, None, :] + shifts[None, None, :, :] - positions[:, None, None, :]
    distances = np.linalg.norm(separations, axis=-1)
    return float(distances[distances > 1e-6].min())


def lattice_scales(points: int, reach: float) -> list[float]:
    """``points`` factors from 1 − ``reach`` to 1 + ``reach``."""
    if points == 1:
        return [1.0]
    return [1.0 - reach + 2.0 * reach * i / (points - 1) for i in range(points)]


def atomic_number(symbol: str) -> int:
    """Of a chemical symbol."""
    return int(atomic_numbers[symbol])


def is_element(symbol: str) -> bool:
    """Whether it is the symbol of an element."""
    return bool(atomic_numbers.get(symbol, 0) > 0)


def symbol(number: int) -> str:
    """The chemical symbol of an atomic number."""
    return str(chemical_symbols[number])
