"""Elastic constants from the stresses of strained cells as they were labelled: those of a reference."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from db.records import Structure
from tasks.mtp.errors_of_fit import Pair
from tasks.validation.cells import deformed
from tasks.validation.elastic import Constants, NoConstantsError, constants_in_gpa
from tasks.validation.elasticity import component_of, deformation, form_of
from tasks.validation.symmetry import point_group, primitive

Floats = npt.NDArray[np.float64]

#: eV/Å: atoms of the reference that feel this in a strained cell would move
_MOVES = 0.01


def constants_of_cells(structures: Sequence[Structure], stresses: Sequence[Floats]) -> Constants:
    """The constants from the stresses of strained cells as they are: those of clamped atoms.

    Which strain a cell is under is read off the cells themselves. For each component that was strained a straight line
    is laid through the stresses: with plus and minus the strain, and nothing between or the unstrained cell, that is
    the central difference. A component of which one sign is missing counts only where it is needed.

    Args:
        structures: the unstrained cell, if it is there, and cells under one Voigt component of strain each.
        stresses: of each, eV/Å³, (6,).

    Raises:
        NoConstantsError: the cells do not belong together, or too few of them are there.
    """
    if not np.isfinite(stresses).all():
        raise NoConstantsError("a stress is not finite")
    zero = _unstrained(np.array([structure.cell for structure in structures], dtype=float))
    found = [component_of(np.linalg.solve(zero, np.array(structure.cell))) for structure in structures]
    strains = [strain for strain in found if strain is not None]  # all of them: so was zero chosen
    at_rest = deformed(structures[0], np.asarray(np.linalg.inv(deformation(*strains[0])), dtype=float))
    form = form_of(point_group(primitive(at_rest)))
    slopes, both = {}, {}
    for component in sorted({component for component, strain in strains if strain != 0.0}):
        rows = [(e, s) for (c, e), s in zip(strains, stresses, strict=True) if c == component or e == 0.0]
        signs = {np.sign(e) for e, _ in rows}
        if len(signs) < 2:
            continue
        slopes[component] = np.polyfit([e for e, _ in rows], np.array([s for _, s in rows]), 1)[0]
        if {-1.0, 1.0} <= signs:
            both[component] = slopes[component]
    matrix = form.solve(both)
    matrix = form.solve(slopes) if matrix is None else matrix
    if matrix is None:
        raise NoConstantsError("too few of the strained cells are labelled")
    return constants_in_gpa(form, matrix)


def _unstrained(cells: Floats) -> Floats:
    """The cell of which all others are strained in one component each, by as little as possible.

    It may be missing itself; then it lies in the middle of two that are there.
    """
    best, least = None, np.inf
    for zero in [*cells, *((a + b) / 2.0 for a, b in combinations(cells, 2))]:
        if abs(np.linalg.det(zero)) < 1e-6:
            continue
        found = [component_of(np.linalg.solve(zero, cell)) for cell in cells]
        strains = [abs(strain[1]) for strain in found if strain is not None]
        if len(strains) == len(cells) and 1e-6 < max(strains) < 0.99 * least:
            best, least = zero, max(strains)
    if best is None:
        raise NoConstantsError("the cells are not strained copies of one cell in single components")
    return np.asarray(best, dtype=float)


def atoms_would_move(pairs: Sequence[Pair]) -> bool:
    """Whether the reference found forces in the strained cells: its constants are then those of clamped atoms only."""
    return any(np.abs(np.array(label.forces)).max() > _MOVES for _, label in pairs)
