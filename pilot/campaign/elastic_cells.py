"""The strained cells whose stresses, once labelled, are the elastic constants of the reference. Pure."""

from db.records import Structure
from tasks.validation.cells import deformed
from tasks.validation.elasticity import deformation, form_of
from tasks.validation.symmetry import point_group, primitive

_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def elastic_cells(cell: Structure, strain: float) -> list[tuple[Structure, str]]:
    """The cell itself, and cells under plus and minus the strain in as few components as its symmetry allows.

    A cubic crystal along its axes needs two components, xx and yz: five cells; an hexagonal one three. Atoms move with
    the cell: constants from these cells are those of clamped atoms.

    Args:
        cell: any cell of the crystal, supercells too, periodic in three directions.
        strain: of each component; shears as Voigt has them, twice the entry of the matrix.

    Returns:
        Each cell with what it is, in words; the unstrained one first.
    """
    form = form_of(point_group(primitive(cell)))
    cells = [(cell, "unstrained")]
    for component in form.components():
        cells += [
            (deformed(cell, deformation(component, sign * strain)), f"{_NAMES[component]} {sign * strain:+g}")
            for sign in (1.0, -1.0)
        ]
    return cells
