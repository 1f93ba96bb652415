"""A training set as arrays: configurations put together into blocks of a few hundred atoms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.model import enclosing_cell, types_of
from tasks.mtp.errors_of_fit import Pair
from tasks.mtp.evaluator import volume_of
from tasks.mtp.neighbours import NeighbourKeeper

Floats = npt.NDArray[np.float64]
Types = npt.NDArray[np.int32]

#: atoms that are treated together
_MOST_ATOMS = 256


@dataclass(frozen=True, slots=True)
class Block:
    """Some configurations, as if they were one.

    Attributes:
        first: the first configuration.
        vectors: from each atom to its neighbours, Å, (atoms, most neighbours, 3); blank ones at the cutoff.
        js: neighbours of each atom within the block, -1 for blank ones.
        types: of the atoms.
        owner: for each atom the configuration, counted from ``first``.
        energies: wanted, eV, (configurations,).
        forces: wanted, eV/Å, (atoms, 3).
        virials: volume times stress, wanted, eV, (configurations, 3, 3).
        stressed: 1.0 where a configuration has a stress, else 0.0.
    """

    first: int
    vectors: Floats
    js: Types
    types: Types
    owner: npt.NDArray[np.int64]
    energies: Floats
    forces: Floats
    virials: Floats
    stressed: Floats


def blocks_of(pairs: Sequence[Pair], shifts: Floats, species: Sequence[int], cutoff: float) -> list[Block]:
    """The training set in pieces; a configuration is not divided.

    Args:
        pairs: the training set.
        shifts: to be taken from the energy of each, eV.
        species: atomic numbers in the order of the types.
        cutoff: Å.

    Raises:
        InputError: an unknown species.
        NonsenseCellError: a configuration is not one of matter.
    """
    pieces: list[list[int]] = []
    atoms = _MOST_ATOMS
    for index, (structure, _) in enumerate(pairs):
        if atoms + len(structure.numbers) > _MOST_ATOMS:
            pieces.append([])
            atoms = 0
        pieces[-1].append(index)
        atoms += len(structure.numbers)
    keeper = NeighbourKeeper(cutoff, 0.0)
    return [_block([pairs[k] for k in piece], shifts[piece], piece[0], species, keeper) for piece in pieces]


def _block(pairs: Sequence[Pair], shifts: Floats, first: int, species: Sequence[int], keeper: NeighbourKeeper) -> Block:
    sizes = [len(structure.numbers) for structure, _ in pairs]
    starts = np.cumsum([0, *sizes[:-1]])
    found = []
    for structure, _ in pairs:
        positions = np.array(structure.positions, dtype=float).reshape(-1, 3)
        cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, keeper.cutoff)
        keeper.forget()
        found.append((keeper.vectors(positions, cell), keeper.neighbours.js))
    most = max(js.shape[1] for _, js in found)
    vectors = np.zeros((sum(sizes), most, 3))
    vectors[..., 0] = keeper.cutoff  # blank
    js = np.full((sum(sizes), most), -1, dtype=np.int32)
    for (own, mine), start, size in zip(found, starts, sizes, strict=True):
        vectors[start : start + size, : mine.shape[1]] = own
        js[start : start + size, : mine.shape[1]] = np.where(mine < 0, -1, mine + start)
    virials = np.zeros((len(pairs), 3, 3))
    for number, (structure, label) in enumerate(pairs):
        if label.stress is not None:
            xx, yy, zz, yz, xz, xy = label.stress
            stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            virials[number] = stress * volume_of(np.array(structure.cell))
    return Block(
        first=first,
        vectors=vectors,
        js=js,
        types=np.concatenate([types_of(structure.numbers, species) for structure, _ in pairs]),
        owner=np.repeat(np.arange(len(pairs)), sizes),
        energies=np.array([label.energy for _, label in pairs]) - shifts,
        forces=np.concatenate([np.array(label.forces).reshape(-1, 3) for _, label in pairs]),
        virials=virials,
        stressed=np.array([label.stress is not None for _, label in pairs], dtype=float),
    )
