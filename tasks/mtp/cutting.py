"""Extrapolative neighbourhoods of large cells, cut out so that the reference can label them.

A neighbourhood is an atom with all atoms within a radius. In vacuum it is a cluster that no other touches (MLIP-3's
paper, Podryabinkin et al., J. Chem. Phys. 159, 084112 (2023), section IV: radius 8 Å, vacuum 9 Å along each direction
for copper). A cell that is no larger than its neighbourhood is taken as it is, periodic.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.records import Structure
from tasks.model import enclosing_cell

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Piece:
    """What was cut out.

    Attributes:
        structure: a cluster in the middle of a box, periodic in no direction; or the whole cell as it was.
        centre: the index in it of the atom about which it was cut: 0 in a cluster, whose atoms are sorted by distance.
        whole: whether it is the whole cell.
    """

    structure: Structure
    centre: int
    whole: bool

    @property
    def box(self) -> tuple[float, float, float]:
        """Lengths of a cluster's box, Å."""
        (x, _, _), (_, y, _), (_, _, z) = self.structure.cell
        return x, y, z


def extrapolative(grades: Floats, above: float) -> list[int]:
    """The atoms with a γ above a threshold, the highest first."""
    order = np.argsort(-grades, kind="stable")
    return [int(atom) for atom in order if grades[atom] > above]


def cut(structure: Structure, atom: int, radius: float, vacuum: float) -> Piece:
    """The neighbourhood of an atom.

    Args:
        structure: the cell it is in; images count as atoms along the directions in which it is periodic.
        atom: index of the atom in the middle.
        radius: Å; atoms at most so far away belong to it.
        vacuum: Å between what was cut out and its next image, along x, y and z.
    """
    positions = np.array(structure.positions, dtype=float).reshape(-1, 3)
    cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, radius)
    inverse = np.linalg.inv(cell)
    reach = radius * np.linalg.norm(inverse, axis=0)  # radius over the widths of the cell
    images = [int(n) + 1 if periodic else 0 for n, periodic in zip(reach, structure.pbc, strict=True)]
    who, vectors = _sphere(positions, atom, radius, cell, images)
    if all(structure.pbc) and (reach.max() > 1.0 or len(who) >= len(positions)):
        return Piece(structure, atom, whole=True)
    box = np.ptp(vectors, axis=0) + vacuum
    placed = vectors - vectors.min(axis=0) + 0.5 * vacuum
    cluster = Structure.from_json(
        {
            "numbers": [structure.numbers[k] for k in who],
            "positions": placed.tolist(),
            "cell": np.diag(box).tolist(),
            "pbc": [False, False, False],
        }
    )
    return Piece(cluster, 0, whole=False)


def _sphere(positions: Floats, atom: int, radius: float, cell: Floats, images: list[int]) -> tuple[list[int], Floats]:
    """The atoms about one, images among them, and where they are from it (Å); sorted by distance."""
    fractions = (positions - positions[atom]) @ np.linalg.inv(cell)
    periodic = np.array(images) > 0
    fractions -= np.where(periodic, np.rint(fractions), 0.0)
    steps = [np.arange(-n, n + 1) for n in images]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    # plane by plane: all images of thousands of atoms are many
    found = ((np.arange(len(positions)), (fractions + shift) @ cell) for shift in grid)
    near = [(who[close], vectors[close]) for who, vectors in found if (close := _within(vectors, radius)).any()]
    who = np.concatenate([some for some, _ in near])
    vectors = np.concatenate([some for _, some in near])
    order = np.lexsort((who, np.round(np.linalg.norm(vectors, axis=1), 9)))
    return [int(k) for k in who[order]], vectors[order]


def _within(vectors: Floats, radius: float) -> npt.NDArray[np.bool_]:
    close: npt.NDArray[np.bool_] = np.einsum("kx,kx->k", vectors, vectors) <= radius**2
    return close
