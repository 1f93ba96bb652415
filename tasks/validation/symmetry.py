"""The symmetry of a crystal, as its elastic constants need it: its primitive cell, and what maps it to itself.

Everything stays in the Cartesian axes of the given cell: constants are named after these.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ase.geometry import minkowski_reduce

from db.records import Structure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Å; what lies nearer is the same place
TOLERANCE = 1e-3
_FEW = 4
_STEPS: Ints = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


def primitive(structure: Structure) -> Structure:
    """The smallest cell that, repeated, gives the same crystal; atoms stay where they are.

    Args:
        structure: periodic in three directions.
    """
    numbers = np.array(structure.numbers)
    positions = np.array(structure.positions, dtype=float)
    cell = _reduced(np.array(structure.cell, dtype=float))
    shifts = [s for s in _shifts(numbers, positions, positions, cell) if np.linalg.norm(s) > TOLERANCE]
    if not shifts:
        vectors, kept = cell, np.arange(len(numbers))
    else:
        vectors = _shortest(shifts, cell, abs(np.linalg.det(cell)) / (len(shifts) + 1))
        kept = _apart(positions, vectors)
    return _structure(numbers[kept], positions[kept], vectors)


def point_group(cell: Structure) -> Floats:
    """The rotations and reflections of the crystal, translations left out, (operations, 3, 3), Cartesian.

    Args:
        cell: a primitive cell.
    """
    numbers = np.array(cell.numbers)
    positions = np.array(cell.positions, dtype=float)
    vectors = _reduced(np.array(cell.cell, dtype=float))
    # in a reduced cell the images of its vectors are sums and differences of them
    trials = np.array(list(itertools.product((-1, 0, 1), repeat=9)), dtype=float).reshape(-1, 3, 3)
    trials = trials[np.abs(np.abs(np.linalg.det(trials)) - 1.0) < 0.5]
    images = trials @ vectors
    strange = np.abs(images @ images.transpose(0, 2, 1) - vectors @ vectors.T).max(axis=(1, 2))
    lengths = np.linalg.norm(vectors, axis=1)
    rotations = np.linalg.inv(vectors) @ images[strange < TOLERANCE * lengths.max()]
    return np.array([r for r in rotations if _shifts(numbers, positions @ r, positions, vectors, enough=1)])


def _shifts(numbers: Ints, moved: Floats, positions: Floats, cell: Floats, enough: int | None = None) -> list[Floats]:
    """The translations that bring all of ``moved`` onto atoms of the same species; of those a lattice apart one."""
    kinds, counts = np.unique(numbers, return_counts=True)
    rarest = np.flatnonzero(numbers == kinds[counts.argmin()])
    found: list[Floats] = []
    for target in positions[rarest]:
        shift = _nearest(target - moved[rarest[0]], cell)
        # most are refused after a look at a few atoms
        if all(_all_there(numbers, moved + shift, positions, cell, some) for some in (slice(_FEW), slice(None))):
            found.append(shift)
            if len(found) == enough:
                break
    return found


def _all_there(numbers: Ints, moved: Floats, positions: Floats, cell: Floats, some: slice) -> bool:
    """Whether each of some moved atoms lies on an atom of its species."""
    apart = _distances(moved[some], positions, cell)
    apart[numbers[some, None] != numbers[None, :]] = np.inf
    return bool(apart.min(axis=1).max() < TOLERANCE)


def _distances(a: Floats, b: Floats, cell: Floats) -> Floats:
    """Of each of ``a`` to the nearest image of each of ``b``."""
    return np.asarray(np.linalg.norm(_nearest(a[:, None] - b[None, :], cell), axis=-1))


def _nearest(vectors: Floats, cell: Floats) -> Floats:
    """The vectors brought home: as short as rounding in a reduced cell makes them."""
    fractions = vectors @ np.linalg.inv(cell)
    return np.asarray((fractions - np.round(fractions)) @ cell)


def _shortest(shifts: Sequence[Floats], cell: Floats, volume: float) -> Floats:
    """The three shortest independent vectors of the finer lattice: in three dimensions they are a basis of it."""
    everything = np.concatenate([_STEPS @ cell, *(shift + _STEPS @ cell for shift in shifts)])
    lengths = np.linalg.norm(everything, axis=1)
    order = [k for k in np.argsort(lengths, kind="stable") if lengths[k] > TOLERANCE]
    chosen: list[Floats] = []
    for k in order:
        if np.linalg.matrix_rank(np.array([*chosen, everything[k]]), tol=1e-3 * volume ** (1 / 3)) > len(chosen):
            chosen.append(everything[k])
        if len(chosen) == 3:
            break
    return np.array(chosen)


def _apart(positions: Floats, cell: Floats) -> Ints:
    """The first of each group of atoms that are images of each other."""
    same = _distances(positions, positions, cell) < TOLERANCE
    return np.flatnonzero(same.argmax(axis=1) == np.arange(len(positions)))


def _reduced(cell: Floats) -> Floats:
    return np.asarray(minkowski_reduce(cell)[0], dtype=float)


def _structure(numbers: Ints, positions: Floats, cell: Floats) -> Structure:
    return Structure.from_json(
        {"numbers": numbers.tolist(), "positions": positions.tolist(), "cell": cell.tolist(), "pbc": [True] * 3}
    )
