"""Elastic constants: which there are by symmetry, a potential's own, and those from labelled strained cells."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.spacegroup import crystal
from ase.units import GPa
from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import Structure
from pilot.campaign.elastic_cells import elastic_cells
from tasks.formats.atoms import from_atoms, to_atoms
from tasks.model import Floats, Prediction, Types, predict_structure
from tasks.validation.cells import deformed, volume_of
from tasks.validation.curve import relax
from tasks.validation.elastic import Constants, NoConstantsError, elastic_constants
from tasks.validation.elasticity import component_of, deformation, form_of, moduli
from tasks.validation.strained_cells import constants_of_cells
from tasks.validation.symmetry import point_group, primitive


@dataclass
class ByAse:
    """One of ASE's calculators as a potential."""

    calculator: Any
    numbers: list[int]
    cutoff: float = 6.0

    def forget(self) -> None:
        """It remembers nothing."""

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """As the protocol has it."""
        atoms = Atoms(numbers=np.array(self.numbers)[types], positions=positions, cell=cell, pbc=True)
        atoms.calc = self.calculator
        return Prediction(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())


LJ = ByAse(LennardJones(sigma=2.5, epsilon=0.2, rc=6.0, ro=5.0, smooth=True), [18])
EMT_CU = ByAse(EMT(), [29])
HCP = bulk("Ar", "hcp", a=2.75, c=4.5)
#: at zero pressure
COPPER = bulk("Cu", "fcc", a=(4 * 11.565384) ** (1 / 3))


def structure(atoms: Atoms) -> Structure:
    return from_atoms(atoms)[0]


def own(potential: ByAse, atoms: Atoms) -> Constants:
    return elastic_constants(potential, structure(atoms), potential.numbers)


def stresses(potential: ByAse, cells: list[Structure]) -> list[Floats]:
    return [predict_structure(potential, cell, potential.numbers).stress for cell in cells]


CUBIC, HEXAGONAL, TETRAGONAL = "C11 C12 C44", "C11 C12 C13 C33 C44", "C11 C12 C13 C33 C44 C66"
TILTED = bulk("Al", "fcc", a=4.0, cubic=True)
TILTED.rotate(30, (1, 2, 3), rotate_cell=True)
ALLOY = bulk("Al", "fcc", a=4.0, cubic=True)
ALLOY.numbers[0] = 29
DISORDERED = bulk("Al", "fcc", a=4.0, cubic=True)
DISORDERED.rattle(0.1)


@pytest.mark.parametrize(
    ("atoms", "atoms_in_primitive", "operations", "names", "cells"),
    [
        (bulk("Al", "fcc", a=4.0), 1, 48, CUBIC, 5),
        (bulk("Al", "fcc", a=4.0).repeat((1, 1, 2)), 1, 48, CUBIC, 5),
        (bulk("Al", "fcc", a=4.0, cubic=True).repeat((3, 1, 2)), 1, 48, CUBIC, 5),
        (bulk("Li", "bcc", a=3.4).repeat((1, 2, 3)), 1, 48, CUBIC, 5),
        (bulk("Si", "diamond", a=5.4), 2, 48, CUBIC, 5),
        (bulk("GaAs", "zincblende", a=5.6, cubic=True), 2, 24, CUBIC, 5),
        (ALLOY, 4, 48, CUBIC, 5),
        (bulk("Mg", "hcp", a=3.2, c=5.2).repeat((2, 2, 1)), 2, 24, HEXAGONAL, 7),
        (bulk("In", "bct", a=3.2, c=4.9), 1, 16, TETRAGONAL, 9),
        (
            crystal(
                ["Si", "O"],
                [(0.47, 0, 1 / 3), (0.41, 0.27, 0.45)],
                spacegroup=152,
                cellpar=[4.9, 4.9, 5.4, 90, 90, 120],
            ),
            9,
            6,
            "C11 C12 C13 C33 C44 C14",
            7,
        ),
        (bulk("U", "orthorhombic", a=2.8, b=5.8, c=4.9), 1, 8, "C11 C12 C13 C22 C23 C33 C44 C55 C66", 13),
    ],
)
def test_symmetry_says_which_constants_there_are_and_which_cells_they_need(
    atoms: Atoms, atoms_in_primitive: int, operations: int, names: str, cells: int
) -> None:
    smallest = primitive(structure(atoms))
    assert len(smallest.numbers) == atoms_in_primitive
    group = point_group(smallest)
    assert len(group) == operations
    assert form_of(group).names == tuple(names.split())
    planned = elastic_cells(structure(atoms), 0.01)
    assert len(planned) == cells
    assert planned[0] == (structure(atoms), "unstrained")
    assert len({cell.content_hash() for cell, _ in planned}) == cells


def test_axes_that_are_not_those_of_the_cube_need_no_more_constants() -> None:
    assert len(form_of(point_group(primitive(structure(TILTED)))).names) == 3
    assert len(form_of(point_group(primitive(structure(DISORDERED)))).names) == 21


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_symmetry_leaves_is_what_no_operation_changes(seed: int) -> None:
    group = point_group(structure(HCP))
    form = form_of(group)
    matrix = np.tensordot(np.random.default_rng(seed).normal(size=len(form.basis)), form.basis, axes=1)
    strain = np.random.default_rng(seed).normal(size=(3, 3))
    strain += strain.T

    def energy(e: Floats) -> float:
        voigt = np.array([e[0, 0], e[1, 1], e[2, 2], 2 * e[1, 2], 2 * e[0, 2], 2 * e[0, 1]])
        return float(voigt @ matrix @ voigt)

    assert [energy(r.T @ strain @ r) for r in group] == pytest.approx([energy(strain)] * len(group))
    assert form.named(matrix) == pytest.approx({n: matrix[int(n[1]) - 1, int(n[2]) - 1] for n in form.names})
    slopes = {k: matrix[:, k] for k in form.components()}
    again = form.solve(slopes)
    assert again is not None
    np.testing.assert_allclose(again, matrix, atol=1e-10)


@given(st.integers(0, 5), st.floats(-0.05, 0.05).filter(lambda e: abs(e) > 1e-4))
def test_a_strain_is_read_off_its_cell(component: int, strain: float) -> None:
    found = component_of(deformation(component, strain))
    assert found is not None
    assert found[0] == component
    assert found[1] == pytest.approx(strain)
    assert component_of(deformation(component, strain) @ deformation((component + 1) % 6, 0.01)) is None


def test_planned_cells_say_in_words_what_they_are() -> None:
    words = [about for _, about in elastic_cells(structure(bulk("Al", "fcc", a=4.0)), 0.02)]
    assert words == ["unstrained", "xx +0.02", "xx -0.02", "yz +0.02", "yz -0.02"]


def test_pair_forces_obey_cauchys_relation() -> None:
    found = own(LJ, bulk("Ar", "fcc", a=3.9))
    assert found.named["C12"] == pytest.approx(found.named["C44"], rel=1e-3)
    assert found.moduli["stable"]


def test_constants_are_the_curvature_of_the_energy() -> None:
    rest = structure(COPPER)
    found = elastic_constants(EMT_CU, rest, [29])
    c11, c12, c44 = found.named.values()

    def curvature(strain: Floats) -> float:
        """d²E/dε² an Å³, in GPa, of a symmetric strain times ε."""
        h = 2e-3
        energies = [
            predict_structure(EMT_CU, deformed(rest, np.eye(3) + sign * h * strain), [29]).energy for sign in (1, 0, -1)
        ]
        return float((energies[0] - 2 * energies[1] + energies[2]) / h**2 / volume_of(rest) / GPa)

    assert curvature(np.diag([1.0, 0.0, 0.0])) == pytest.approx(c11, rel=2e-3)
    assert curvature(np.eye(3)) == pytest.approx(3 * c11 + 6 * c12, rel=2e-3)
    assert curvature(np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0.0]])) == pytest.approx(c44, rel=2e-3)
    assert found.moduli["bulk"] == pytest.approx((c11 + 2 * c12) / 3)
    assert found.moduli["shear"] == pytest.approx((c11 - c12 + 3 * c44) / 5)


def test_atoms_answer_to_the_strain_where_symmetry_lets_them() -> None:
    """C11 − C12 of hcp from cells that ASE relaxes one by one."""
    found = own(LJ, HCP)
    rest = _at_rest_in_all_directions(found)
    e = 2e-3
    stress = []
    for sign in (1.0, -1.0):
        atoms = to_atoms(deformed(rest, deformation(0, sign * e)))
        atoms.calc = LJ.calculator
        atoms.set_constraint(FixAtoms([0]))
        BFGS(atoms, logfile=None).run(fmax=1e-5)
        stress.append(atoms.get_stress())
    slope = (stress[0] - stress[1]) / (2 * e) / GPa
    assert slope[0] == pytest.approx(found.named["C11"], rel=5e-3)
    assert slope[1] == pytest.approx(found.named["C12"], rel=5e-3)
    assert slope[2] == pytest.approx(found.named["C13"], rel=5e-3)
    # and it matters: clamped atoms are a tenth stiffer
    cells = [cell for cell, _ in elastic_cells(rest, 1e-3)]
    clamped = constants_of_cells(cells, stresses(LJ, cells))
    assert clamped.named["C11"] > 1.05 * found.named["C11"]
    assert clamped.named["C33"] == pytest.approx(found.named["C33"], rel=5e-3)


def _at_rest_in_all_directions(found: Constants) -> Structure:
    """hcp at zero stress, c/a too, by Newton's steps with the constants found."""
    rest = structure(HCP)
    for _ in range(20):
        stress = stresses(LJ, [rest])[0] / GPa
        strain = -np.linalg.solve(found.matrix, stress)
        rest = deformed(rest, np.eye(3) + np.diag(strain[:3]))
    assert np.abs(stresses(LJ, [rest])[0]).max() < 1e-5
    return rest


def test_a_supercell_has_the_constants_of_its_crystal() -> None:
    one = own(EMT_CU, COPPER)
    more = own(EMT_CU, bulk("Cu", "fcc", a=3.6, cubic=True))
    assert more.named == pytest.approx(one.named, rel=1e-4)


def test_constants_from_cells_are_those_of_the_potential_that_labelled_them() -> None:
    rest = structure(COPPER)
    direct = elastic_constants(EMT_CU, rest, [29])
    cells = [cell for cell, _ in elastic_cells(rest, 0.005)]
    seen = stresses(EMT_CU, cells)
    full = constants_of_cells(cells, seen)
    assert full.named == pytest.approx(direct.named, rel=5e-3)
    # in any order; without the unstrained cell; and from a supercell
    assert constants_of_cells(cells[::-1], seen[::-1]).named == pytest.approx(full.named)
    assert constants_of_cells(cells[1:], seen[1:]).named == pytest.approx(full.named)
    doubled = [structure(to_atoms(cell).repeat((1, 1, 2))) for cell in cells]
    assert constants_of_cells(doubled, seen).named == pytest.approx(full.named)
    # one sign is enough where the other was never labelled
    assert constants_of_cells(cells[:-1], seen[:-1]).named == pytest.approx(direct.named, rel=0.05)


def test_cells_that_do_not_suffice_or_do_not_belong_together_give_no_constants() -> None:
    cells = [cell for cell, _ in elastic_cells(structure(bulk("Cu", "fcc", a=3.6)), 0.01)]
    seen = stresses(EMT_CU, cells)
    with pytest.raises(NoConstantsError, match="too few"):
        constants_of_cells(cells[:3], seen[:3])
    with pytest.raises(NoConstantsError, match="not strained copies"):
        constants_of_cells(cells[:1], seen[:1])
    other = structure(bulk("Cu", "fcc", a=4.0).repeat((1, 2, 1)))
    with pytest.raises(NoConstantsError, match="not strained copies"):
        constants_of_cells([*cells, other], [*seen, seen[0]])


def test_an_unstable_crystal_is_said_to_be_one() -> None:
    """bcc is no minimum for pair forces of so short a reach."""
    lowest, reason = relax(LJ, structure(bulk("Ar", "bcc", a=3.1)), [18])
    assert lowest is not None, reason
    found = own(LJ, bulk("Ar", "bcc", a=(2 * lowest.volume) ** (1 / 3)))
    assert found.moduli["stable"] is False
    stable = np.diag([3.0, 3.0, 3.0, 1.0, 1.0, 1.0])
    stable[:3, :3] += 1.0
    assert moduli(stable) == {"bulk": 2.0, "shear": pytest.approx(1.2), "stable": True}
    stable[3, 3] = -0.1
    assert moduli(stable)["stable"] is False


def test_a_potential_that_explodes_has_no_constants() -> None:
    class Nonsense(ByAse):
        def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
            seen = super().predict(types, positions, cell)
            return Prediction(seen.energy, seen.forces, np.full(6, math.nan))

    with pytest.raises(NoConstantsError, match="not finite"):
        elastic_constants(Nonsense(LennardJones(), [18]), structure(bulk("Ar", "fcc", a=3.9)), [18])
