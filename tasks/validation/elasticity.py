"""Elastic constants from stresses and strains, with the symmetry of the crystal. Pure numbers: no potential here.

Stress σ and strain ε in Voigt's order xx, yy, zz, yz, xz, xy (1 … 6), shears of the strain doubled, and
C_ij = ∂σ_i/∂ε_j (Nye, Physical Properties of Crystals, chapter VIII; from the stresses of strained cells: Nielsen and
Martin, Phys. Rev. B 32, 3792 (1985)). Where the unstrained cell is itself under stress, ∂σ/∂ε is that of the stressed
crystal (Wallace, Thermodynamics of Crystals (1972)), and what of it has the symmetry of a crystal at rest is taken.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: row and column of each Voigt component
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
#: the entries of the upper half, those first after which constants are named where there is a choice
_ENTRIES = tuple(
    sorted(
        ((i, j) for i in range(6) for j in range(i, 6)),
        key=lambda e: (0 if e[1] < 3 else 1 if e[0] == e[1] else 2, e),
    )
)
_MANDEL = np.diag([1.0, 1.0, 1.0, *[math.sqrt(2.0)] * 3])
_RANK = 1e-6


def deformation(component: int, strain: float) -> Floats:
    """The symmetric matrix 1 + ε of one Voigt component (0 … 5); lengths become ``row @ matrix``."""
    i, j = VOIGT[component]
    matrix = np.eye(3)
    matrix[i, j] += strain if i == j else strain / 2.0
    if i != j:
        matrix[j, i] += strain / 2.0
    return matrix


def component_of(matrix: Floats, tolerance: float = 1e-7) -> tuple[int, float] | None:
    """The inverse of :func:`deformation`; None for another deformation; the strain is 0 for none at all."""
    strain = matrix - np.eye(3)
    if np.abs(strain - strain.T).max() > tolerance:
        return None
    voigt = np.array([strain[i, j] * (1.0 if i == j else 2.0) for i, j in VOIGT])
    large = np.flatnonzero(np.abs(voigt) > tolerance)
    if len(large) > 1:
        return None
    return (int(large[0]), float(voigt[large[0]])) if len(large) else (0, 0.0)


@dataclass(frozen=True, slots=True)
class Form:
    """What symmetry leaves of the elastic constants.

    Attributes:
        basis: the matrices (n, 6, 6) of which each allowed one is a sum.
        names: the n constants that determine all the others: C11, C12, C44 of a cubic crystal along its axes.
    """

    basis: Floats
    names: tuple[str, ...]

    def components(self) -> tuple[int, ...]:
        """The fewest Voigt components of strain from whose stresses all constants follow."""
        for count in range(1, 7):
            for chosen in itertools.combinations(range(6), count):
                if self._rank(chosen) == len(self.basis):
                    return chosen
        return tuple(range(6))

    def solve(self, slopes: Mapping[int, Floats]) -> Floats | None:
        """The matrix of this form nearest to the measured columns; None where they do not determine it.

        Args:
            slopes: ∂σ/∂ε_j, (6,), for each component j that was strained.
        """
        if self._rank(tuple(slopes)) < len(self.basis):
            return None
        wanted = np.concatenate([slopes[j] for j in slopes])
        columns = np.array([np.concatenate([matrix[:, j] for j in slopes]) for matrix in self.basis]).T
        weights = np.linalg.lstsq(columns, wanted, rcond=None)[0]
        return np.asarray(np.tensordot(weights, self.basis, axes=1))

    def named(self, constants: Floats) -> dict[str, float]:
        """The independent constants of a matrix of this form by name."""
        return {name: float(constants[int(name[1]) - 1, int(name[2]) - 1]) for name in self.names}

    def _rank(self, components: tuple[int, ...]) -> int:
        if not components:
            return 0
        seen = self.basis[:, :, components].reshape(len(self.basis), -1)
        return int(np.linalg.matrix_rank(seen, tol=_RANK))


def form_of(rotations: Floats) -> Form:
    """The form of the elastic constants of a crystal with these symmetry operations, (n, 3, 3)."""
    turns = np.array([_mandel_rotation(rotation) for rotation in rotations])
    averaged = []
    for i, j in _ENTRIES:
        unit = np.zeros((6, 6))
        unit[i, j] = unit[j, i] = 1.0
        turned = turns @ (_MANDEL @ unit @ _MANDEL) @ turns.transpose(0, 2, 1)
        averaged.append(turned.mean(axis=0) / _MANDEL.diagonal()[:, None] / _MANDEL.diagonal()[None, :])
    # each row an allowed matrix, each column an entry
    table = np.array([[matrix[i, j] for i, j in _ENTRIES] for matrix in averaged])
    rows = _independent(table)
    columns = _independent(table.T)
    names = tuple(f"C{_ENTRIES[k][0] + 1}{_ENTRIES[k][1] + 1}" for k in columns)
    return Form(np.array([averaged[k] for k in rows]), names)


def _independent(rows: Floats) -> list[int]:
    """The first rows of which all others are sums."""
    chosen: list[int] = []
    for k in range(len(rows)):
        if np.linalg.matrix_rank(rows[[*chosen, k]], tol=_RANK) > len(chosen):
            chosen.append(k)
    return chosen


def _mandel_rotation(rotation: Floats) -> Floats:
    """How a rotation turns a symmetric matrix that is written as six numbers, shears times √2: orthogonal."""
    basis = []
    for i, j in VOIGT:
        matrix = np.zeros((3, 3))
        matrix[i, j] = matrix[j, i] = 1.0 if i == j else math.sqrt(0.5)
        basis.append(matrix)
    turned = [rotation.T @ matrix @ rotation for matrix in basis]
    return np.array([[float((a * b).sum()) for b in turned] for a in basis])


def moduli(constants: Floats) -> dict[str, float | bool]:
    """Voigt's averages, and whether the crystal is stable.

    - ``bulk``, ``shear``: in the unit of the constants (Hill, Proc. Phys. Soc. A 65, 349 (1952)).
    - ``stable``: the matrix is positive definite (Born and Huang; Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014)).
    """
    c = constants
    diagonal, off = c[0, 0] + c[1, 1] + c[2, 2], c[0, 1] + c[0, 2] + c[1, 2]
    return {
        "bulk": float((diagonal + 2.0 * off) / 9.0),
        "shear": float((diagonal - off + 3.0 * (c[3, 3] + c[4, 4] + c[5, 5])) / 15.0),
        "stable": bool(np.linalg.eigvalsh((c + c.T) / 2.0).min() > 0.0),
    }
