"""How many k-points a cell needs. Pure.

A density travels better than a grid: a grid that is right for one cell is wrong for the next one, twice as
long. The density here is the largest distance between neighbouring k-points along a reciprocal vector, in
1/Å with the 2π included (what VASP calls KSPACING).
"""

import math
from collections.abc import Sequence

from db.errors import InputError

Grid = tuple[int, int, int]
Row = Sequence[float]

#: So that a cell exactly on the edge between two grids does not jump to the finer one by rounding.
_SLACK = 1e-9


def reciprocal_lengths(cell: Sequence[Row]) -> tuple[float, float, float]:
    """The lengths of the three reciprocal vectors, 1/Å, with the 2π: 2π · \\|a_j × a_k\\| / V.

    Args:
        cell: three rows, Å; a zero row stands for a direction that is not periodic.

    Returns:
        One length for each row; 0 for a zero row. With zero rows the others are taken in the plane or line
        that they span.

    Raises:
        InputError: the rows that are not zero are not independent.
    """
    rows = [tuple(float(x) for x in row) for row in cell]
    kept = [row for row in rows if _dot(row, row) > 0.0]
    volume = math.sqrt(max(_gram(kept), 0.0))
    scale = math.prod(math.sqrt(_dot(row, row)) for row in kept)
    if volume <= 1e-10 * scale:
        raise InputError(
            "the cell has no volume: its rows are not independent",
            where=f"cell {[list(row) for row in rows]}",
            next_step="check the structure that was given",
        )
    lengths = []
    for i, row in enumerate(rows):
        if _dot(row, row) == 0.0:
            lengths.append(0.0)
            continue
        # |b_i| = 2π / (height of the cell along row i), and the height is volume / area of the other rows
        others = [other for j, other in enumerate(rows) if j != i and _dot(other, other) > 0.0]
        lengths.append(2.0 * math.pi * math.sqrt(_gram(others)) / volume)
    return lengths[0], lengths[1], lengths[2]


def grid(cell: Sequence[Row], pbc: Sequence[bool], kspacing: float) -> Grid:
    """The smallest Monkhorst–Pack grid whose k-points are at most ``kspacing`` apart.

    Args:
        cell: three rows, Å.
        pbc: periodic or not, along each row; one k-point where it is not.
        kspacing: 1/Å, with the 2π.

    Raises:
        InputError: ``kspacing`` is not a positive number, or the cell has no volume.
    """
    if not (math.isfinite(kspacing) and kspacing > 0.0):
        raise InputError(
            f"kspacing must be a positive number of 1/Å, not {kspacing}",
            where="kspacing",
            next_step="set kspacing to something like 0.3 (a metal) in pilot.toml",
        )
    lengths = reciprocal_lengths(cell)
    numbers = [
        max(1, math.ceil(length / kspacing - _SLACK)) if periodic else 1
        for length, periodic in zip(lengths, pbc, strict=True)
    ]
    return numbers[0], numbers[1], numbers[2]


def densities(cell: Sequence[Row], numbers: Grid) -> tuple[float, float] | None:
    """The interval [low, high) of ``kspacing`` for which :func:`grid` gives ``numbers``; None if there is none.

    ``high`` is infinite when one k-point is wanted in each direction.
    """
    lengths = reciprocal_lengths(cell)
    low = max(length / n for length, n in zip(lengths, numbers, strict=True))
    high = min(length / (n - 1) if n > 1 else math.inf for length, n in zip(lengths, numbers, strict=True))
    return (low, high) if low < high else None


def explicit(numbers: Sequence[object]) -> Grid:
    """A grid that the user gave.

    Raises:
        InputError: it is not three whole numbers of at least 1.
    """
    if len(numbers) == 3:
        a, b, c = numbers
        if _is_count(a) and _is_count(b) and _is_count(c):
            return int(str(a)), int(str(b)), int(str(c))
    raise InputError(
        f"kpoints must be three whole numbers of at least 1, not {list(numbers)}",
        where="kpoints",
        next_step='write for instance kpoints = [4, 4, 2], or leave it out and set "kspacing"',
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _dot(a: Row, b: Row) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _gram(rows: Sequence[Row]) -> float:
    """The determinant of the Gram matrix: the square of the volume that the rows span; 1 for no rows."""
    g = [[_dot(a, b) for b in rows] for a in rows]
    if len(g) == 0:
        return 1.0
    if len(g) == 1:
        return g[0][0]
    if len(g) == 2:
        return g[0][0] * g[1][1] - g[0][1] * g[1][0]
    return (
        g[0][0] * (g[1][1] * g[2][2] - g[1][2] * g[2][1])
        - g[0][1] * (g[1][0] * g[2][2] - g[1][2] * g[2][0])
        + g[0][2] * (g[1][0] * g[2][1] - g[1][1] * g[2][0])
    )
