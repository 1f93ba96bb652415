"""The part of the energies that only counts the atoms: one energy for each species."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.mtp.errors_of_fit import Pair

Floats = npt.NDArray[np.float64]


def reference_energies(pairs: Sequence[Pair], species: Sequence[int]) -> tuple[Floats, Floats]:
    """Find them by least squares, so that a fit sees only what they do not explain.

    A DFT energy holds hundreds or thousands of eV an atom; a fit that had to find them would lose its digits.

    Args:
        pairs: the training set.
        species: atomic numbers in the order of the types.

    Returns:
        One for each species, eV, and what they make of each configuration, eV.
    """
    counts = np.array([[structure.numbers.count(z) for z in species] for structure, _ in pairs], dtype=float)
    energies = np.array([label.energy for _, label in pairs])
    found, _, rank, _ = np.linalg.lstsq(counts, energies, rcond=None)
    if rank < len(species):
        print(
            "the compositions of the training set do not tell the energies of the species apart: between other "
            "compositions energies cannot be compared (forces are not touched)",
            flush=True,
        )
    return found, counts @ found
