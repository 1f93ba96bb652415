"""What numpy leaves out of Chebyshev polynomials."""

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev


def derivative_matrix(size: int) -> npt.NDArray[np.float64]:
    """The matrix D of dT/dx = T D for the first ``size`` polynomials."""
    matrix = np.zeros((size, size))
    for k in range(1, size):
        lower = chebyshev.chebder(np.eye(size)[k])
        matrix[: len(lower), k] = lower
    return matrix
