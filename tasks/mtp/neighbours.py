"""Neighbour lists for small periodic cells under dynamics: built once per skin, valid while the cell strains."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

#: above these a cell is nonsense (collapsed, or flat as a sheet), not a large cell
_MOST_IMAGES = 30_000
_MOST_PAIRS = 3_000_000
#: above this many trial vectors a search tree is cheaper than looking at all of them
_MOST_TRIALS = 300_000

_ONE = np.eye(3)


class NonsenseCellError(ValueError):
    """The cell cannot be one of matter: not finite, without volume, or with atoms in one place."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who is near whom.

    Attributes:
        js: neighbours of each atom, (atoms, most neighbours); -1 where an atom has fewer.
        shifts: the lattice translation of each neighbour in whole cell vectors, (atoms, most neighbours, 3), for
            the positions as they were given, inside the cell or not.
        blank: True where ``js`` is -1.
    """

    js: Ints
    shifts: Floats
    blank: npt.NDArray[np.bool_]


def find_neighbours(positions: Floats, cell: Floats, cutoff: float) -> Neighbours:
    """All neighbours within ``cutoff`` (Å), images included, of a cell that is periodic in three directions.

    Args:
        positions: Å, (atoms, 3); need not lie inside the cell.
        cell: three rows, Å; any shape and handedness.
        cutoff: Å.

    Raises:
        NonsenseCellError: numbers that are not finite, no volume, or more neighbours than matter can have.
    """
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise NonsenseCellError("positions or cell are not finite")
    volume = abs(float(np.linalg.det(cell)))
    if volume < 1e-3:
        raise NonsenseCellError(f"the cell has no volume ({volume:.1e} Å³)")
    inverse: Floats = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    wraps = np.floor(positions @ inverse)
    wrapped = positions - wraps @ cell
    reach = np.floor(cutoff * np.linalg.norm(inverse, axis=0)).astype(int) + 1
    images = int(np.prod(2 * reach + 1))
    if images > _MOST_IMAGES:
        raise NonsenseCellError(f"the cell is as flat as a sheet: {images} images within {cutoff:.1f} Å")
    steps = [np.arange(-n, n + 1) for n in reach]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
    if len(positions) ** 2 * images <= _MOST_TRIALS:
        i, j, shift = _pairs_by_trial(wrapped, grid, cell, cutoff)
    else:
        i, j, shift = _pairs_by_tree(wrapped, grid, inverse, cutoff)
    if len(i) > _MOST_PAIRS:
        raise NonsenseCellError(f"{len(i)} pairs of neighbours: the cell has collapsed")
    return _pack(i, j, shift + wraps[i] - wraps[j], len(positions))


def _pairs_by_trial(wrapped: Floats, grid: Floats, cell: Floats, cutoff: float) -> tuple[Ints, Ints, Floats]:
    """Look at every atom with every image of every atom: cheapest for a handful of atoms."""
    translations = grid @ cell
    between = wrapped[None, :] - wrapped[:, None]
    square = _squares(between[:, :, None, :] + translations[None, None])
    near = square <= cutoff**2
    home = len(grid) // 2  # the middle of the grid is the cell itself
    atoms = np.arange(len(wrapped))
    near[atoms, atoms, home] = False
    i, j, image = np.nonzero(near)
    return i.astype(np.int32), j.astype(np.int32), grid[image]


def _squares(vectors: Floats) -> Floats:
    square: Floats = np.einsum("...x,...x->...", vectors, vectors)
    return square


def _pairs_by_tree(wrapped: Floats, grid: Floats, inverse: Floats, cutoff: float) -> tuple[Ints, Ints, Floats]:
    """Search trees of the atoms and of those images that are within the cutoff of the cell."""
    cell = np.linalg.inv(inverse)
    margin = cutoff * np.linalg.norm(inverse, axis=0)
    scaled = (wrapped @ inverse)[None] + grid[:, None]
    image, atom = np.nonzero(((scaled > -margin) & (scaled < 1.0 + margin)).all(axis=-1))
    ghosts = wrapped[atom] + grid[image] @ cell
    found = cKDTree(wrapped).sparse_distance_matrix(cKDTree(ghosts), cutoff, output_type="ndarray")
    i, ghost = found["i"], found["j"]
    itself = (atom[ghost] == i) & (grid[image[ghost]] == 0.0).all(axis=-1)
    i, ghost = i[~itself], ghost[~itself]
    order = np.lexsort((ghost, i))
    i, ghost = i[order], ghost[order]
    return i.astype(np.int32), atom[ghost].astype(np.int32), grid[image[ghost]]


def _pack(i: Ints, j: Ints, shift: Floats, atoms: int) -> Neighbours:
    """Pairs sorted by ``i`` into rows of equal length."""
    counts = np.bincount(i, minlength=atoms)
    most = max(int(counts.max(initial=0)), 1)
    column = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    js = np.full((atoms, most), -1, dtype=np.int32)
    js[i, column] = j
    shifts = np.zeros((atoms, most, 3))
    shifts[i, column] = shift
    return Neighbours(js=js, shifts=shifts, blank=js < 0)


class NeighbourKeeper:
    """Interatomic vectors step by step, with the list built anew only when it may have become incomplete.

    A pair that was left out was at least cutoff + skin apart when the list was built. Since then the cell was
    deformed by F (row vectors: r → r F) and each atom moved by u beyond that, so the pair is now at least
    σ_min(F)·(cutoff + skin) - 2·max|u| apart, and σ_min(F) ≥ 1 - ‖F - 1‖ (Frobenius). While that is at least the
    cutoff, nothing is missing. A flip of the cell or an atom put back into it looks like a large move and so
    builds the list anew, which is right.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0
        self.neighbours = Neighbours(np.empty((0, 0), np.int32), np.empty((0, 0, 3)), np.empty((0, 0), bool))
        self._positions: Floats = np.empty((0, 3))
        self._cell: Floats = np.eye(3)
        self._inverse: Floats = np.eye(3)

    def vectors(self, positions: Floats, cell: Floats) -> Floats:
        """From each atom to its neighbours, Å, (atoms, most neighbours, 3); ``neighbours`` says to whom.

        Blank places hold a vector as long as the cutoff, where every radial function is zero.

        Raises:
            NonsenseCellError: as :func:`find_neighbours`.
        """
        if not self._still_complete(positions, cell):
            self.neighbours = find_neighbours(positions, cell, self.cutoff + self.skin)
            self._positions = positions.copy()
            self._cell = cell.copy()
            self._inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
            self.builds += 1
        known = self.neighbours
        vectors: Floats = known.shifts @ cell
        vectors += positions[known.js]
        vectors -= positions[:, None, :]
        vectors[known.blank] = (self.cutoff, 0.0, 0.0)
        return vectors

    def forget(self) -> None:
        """Build the list anew next time: what comes then depends on nothing that was before."""
        self._positions = np.empty((0, 3))

    def _still_complete(self, positions: Floats, cell: Floats) -> bool:
        if len(positions) != len(self._positions):
            return False
        deformation = self._inverse @ cell
        strain = (deformation - _ONE).ravel()
        shrink = math.sqrt(strain @ strain)
        moved = positions - self._positions @ deformation
        furthest = math.sqrt((moved * moved).sum(axis=1).max())
        # a comparison with nan is False: nonsense goes on to be found out
        return (1.0 - shrink) * (self.cutoff + self.skin) - 2.0 * furthest >= self.cutoff
