"""Functions of the distance of two atoms: Chebyshev polynomials times a smooth cutoff, as the radial part of an MTP.

B_k(r) = T_k(x)·(r_max - r)², x = (2r - r_min - r_max)/(r_max - r_min) (Shapeev, Multiscale Model. Simul. 14, 1153
(2016), section 4); nothing beyond r_max. Below r_min, where no polynomial is to be trusted, the tangent goes on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from db.errors import InputError
from tasks.chebyshev import derivative_matrix

Floats = npt.NDArray[np.float64]

#: what pushes atoms apart that are closer than r_min: the energy of a pair is this times (r_min - r)²/2, eV/Å²
STIFFNESS = 100.0


@dataclass(frozen=True, slots=True)
class PairBasis:
    """The functions of one pair of species.

    Attributes:
        low: r_min, Å.
        high: r_max, Å.
        size: how many.
    """

    low: float
    high: float
    size: int

    def __post_init__(self) -> None:
        """Refuse what is none.

        Raises:
            InputError: it encloses no range of distances, or has no function.
        """
        if not (0.0 <= self.low < self.high < np.inf and self.size >= 1):
            raise InputError(
                f"{self.size} functions between {self.low:g} and {self.high:g} Å are no basis",
                where="min_dist, max_dist, radial_basis_size",
                next_step="set min_dist below max_dist, and use 8 functions if in doubt",
            )

    def values(self, distance: Floats) -> tuple[Floats, Floats]:
        """All functions and their slopes, each (…, size).

        Args:
            distance: Å, of any shape.
        """
        inside = np.clip(distance, self.low, self.high)
        per_angstrom = 2.0 / (self.high - self.low)
        polynomials = chebyshev.chebvander((inside - self.low) * per_angstrom - 1.0, self.size - 1)
        slopes = polynomials @ derivative_matrix(self.size) * per_angstrom
        left = (self.high - inside)[..., None]
        values: Floats = polynomials * left**2
        slopes = slopes * left**2 - 2.0 * left * polynomials
        values += slopes * np.minimum(distance - self.low, 0.0)[..., None]
        return values, slopes

    def push(self, distance: Floats) -> tuple[Floats, Floats]:
        """What is added to every pair below r_min, and its slope; the fit has no say in it."""
        depth = np.maximum(self.low - distance, 0.0)
        return 0.5 * STIFFNESS * depth**2, -STIFFNESS * depth
