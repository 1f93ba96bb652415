"""Grids from a density."""

import math

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError
from tasks.kpoints import densities, explicit, grid, reciprocal_lengths

BCC = bulk("Li", "bcc", a=3.44)
CUBE = bulk("Li", "bcc", a=3.44, cubic=True)
PERIODIC = (True, True, True)


def test_lengths_are_those_of_the_inverse_cell():
    for cell in (BCC.cell, CUBE.cell, (BCC * (1, 2, 3)).cell, bulk("Mg").cell):
        expected = 2 * np.pi * np.linalg.norm(cell.reciprocal()[:], axis=1)
        assert reciprocal_lengths(cell[:]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("atoms", "numbers"),
    [
        (BCC, (4, 4, 4)),
        (BCC * (1, 1, 2), (4, 4, 2)),
        (BCC * (1, 1, 4), (4, 4, 1)),
        (BCC * (1, 1, 6), (4, 4, 1)),
        (BCC * (1, 2, 4), (4, 2, 1)),
        (CUBE * (2, 2, 2), (2, 2, 2)),
        (CUBE * (3, 3, 3), (1, 1, 1)),
    ],
)
def test_one_density_serves_cells_of_all_sizes(atoms, numbers):
    assert grid(atoms.cell[:], PERIODIC, 0.7) == numbers


def test_the_published_grids_of_the_six_stages_are_not_of_one_density():
    """4×4×2 is right for the first cell; kept for longer ones, and 4×4×4 for 16 atoms, it is ever denser."""
    first = densities((BCC * (1, 1, 2)).cell[:], (4, 4, 2))
    assert first == pytest.approx((0.6458, 0.8610), abs=1e-3)
    assert densities((BCC * (1, 1, 4)).cell[:], (4, 4, 2)) is None
    assert densities((BCC * (1, 2, 4)).cell[:], (4, 4, 2)) is None
    assert densities((CUBE * (2, 2, 2)).cell[:], (4, 4, 4)) == pytest.approx((0.2283, 0.3044), abs=1e-3)
    assert densities((CUBE * (3, 3, 3)).cell[:], (2, 2, 2)) == pytest.approx((0.3044, 0.6088), abs=1e-3)


def test_a_cell_on_the_edge_does_not_jump_by_rounding():
    length = reciprocal_lengths(CUBE.cell[:])[0]
    for n in range(1, 40):
        assert grid(CUBE.cell[:], PERIODIC, length / n) == (n, n, n)


def test_one_point_where_it_is_not_periodic():
    assert grid(CUBE.cell[:], (True, True, False), 0.5) == (4, 4, 1)
    wire = ((3.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert grid(wire, (True, False, False), 0.5) == (math.ceil(2 * math.pi / 3.0 / 0.5), 1, 1)
    none = ((0.0, 0.0, 0.0),) * 3
    assert grid(none, (False, False, False), 0.5) == (1, 1, 1)


@given(
    st.lists(st.floats(-8, 8), min_size=9, max_size=9),
    st.floats(0.05, 2.0),
)
def test_the_grid_is_the_smallest_that_is_dense_enough(numbers, kspacing):
    cell = np.array(numbers).reshape(3, 3)
    scale = np.prod(np.linalg.norm(cell, axis=1))
    if scale < 1e-2 or abs(np.linalg.det(cell)) < 1e-2 * scale:
        return
    lengths = reciprocal_lengths(cell.tolist())
    found = grid(cell.tolist(), PERIODIC, kspacing)
    for length, n in zip(lengths, found, strict=True):
        assert length / n <= kspacing * (1 + 1e-6)
        assert n == 1 or length / (n - 1) > kspacing


@pytest.mark.parametrize("kspacing", [0.0, -0.3, math.nan, math.inf])
def test_a_density_must_be_positive(kspacing):
    with pytest.raises(InputError, match="kspacing"):
        grid(BCC.cell[:], PERIODIC, kspacing)


def test_a_flat_cell_is_refused():
    with pytest.raises(InputError, match="no volume"):
        grid([[1, 0, 0], [0, 1, 0], [1, 1, 0]], PERIODIC, 0.3)


def test_a_grid_given_by_hand():
    assert explicit([4, 4, 2]) == (4, 4, 2)
    for wrong in ([4, 4], [4, 4, 0], [4, 4, 2.5], [True, 1, 1], ["4", 4, 4]):
        with pytest.raises(InputError, match="three whole numbers"):
            explicit(wrong)
