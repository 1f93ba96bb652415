"""The fast evaluation gives what motep's calculator gives, whatever the cell, and keeps doing so along a trajectory."""

import csv
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import primitive_neighbor_list
from fixtures_mtp import AL, SAMPLES, aluminium, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from motep.calculator import make_calculator
from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from db.records import Structure
from tasks.formats.atoms import from_atoms
from tasks.formats.mtp import write_potential
from tasks.mtp.basis import untrained
from tasks.mtp.data_sets import read_samples
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.neighbours import NeighbourKeeper, NonsenseCellError, find_neighbours


def random_potential(level: int, species: list[int]) -> MTPData:
    potential = untrained(level, len(species), 1.8, 5.2, 7)
    potential.species = np.array(species, dtype=np.int32)
    potential.initialize(np.random.default_rng(level))
    return potential


def distorted(seed: int, repeat: tuple[int, int, int], symbols: list[str]) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("Al", "fcc", a=4.0).repeat(repeat)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0.0, 0.08, (3, 3))), scale_atoms=True)
    atoms.rattle(0.3, rng=rng)
    atoms.symbols = rng.choice(symbols, len(atoms))
    return atoms


def motep_says(potential: MTPData, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = make_calculator(potential, mode="train")
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    return energy, forces, stress, atoms.calc.engine.jac_energy(atoms).parameters


@pytest.mark.parametrize("level", [2, 8, 12])
@pytest.mark.parametrize("repeat", [(1, 1, 1), (1, 1, 2), (3, 3, 3)])
@pytest.mark.parametrize("symbols", [["Al"], ["Al", "Cu"]])
def test_agrees_with_motep(level: int, repeat: tuple[int, int, int], symbols: list[str]) -> None:
    species = [13, 29][: len(symbols)]
    potential = random_potential(level, species)
    atoms = distorted(3, repeat, symbols)
    evaluator = Evaluator(potential)
    seen = evaluator.predict_structure(from_atoms(atoms)[0], species)
    energy, forces, stress, gradient = motep_says(potential, atoms)
    assert seen.energy == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(seen.forces, forces, rtol=1e-10, atol=1e-10 * np.abs(forces).max() + 1e-13)
    np.testing.assert_allclose(seen.stress, stress, rtol=1e-10, atol=1e-10 * np.abs(stress).max())
    mine = evaluator.gradient()
    assert len(mine) == evaluator.parameters
    np.testing.assert_allclose(mine, gradient, rtol=1e-10, atol=1e-10 * np.abs(gradient).max())


def test_gradient_is_the_derivative_of_the_energy() -> None:
    potential = random_potential(8, [13])
    structure = from_atoms(distorted(1, (1, 1, 2), ["Al"]))[0]
    evaluator = Evaluator(potential)
    evaluator.predict_structure(structure, AL)
    gradient = evaluator.gradient()
    before = np.array(potential.parameters)
    for k in (0, 4, 9, 12, 20):
        energies = []
        for step in (-1e-5, 1e-5):
            shifted = before.copy()
            shifted[k] += step
            potential.parameters = shifted
            energies.append(evaluator.predict_structure(structure, AL).energy)
        assert (energies[1] - energies[0]) / 2e-5 == pytest.approx(gradient[k], rel=1e-5, abs=1e-6)


def test_a_partly_periodic_structure_has_no_images_across() -> None:
    potential = random_potential(6, [13])
    slab = bulk("Al", "fcc", a=4.0).repeat((2, 2, 1))
    slab.pbc = (True, True, False)
    cluster = Atoms("Al3", positions=[(0, 0, 0), (2.5, 0, 0), (0.5, 2.4, 0.3)])
    evaluator = Evaluator(potential)
    for atoms in (slab, cluster):
        seen = evaluator.predict_structure(from_atoms(atoms)[0], AL)
        atoms.calc = make_calculator(potential)
        assert seen.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
        np.testing.assert_allclose(seen.forces, atoms.get_forces(), atol=1e-10)
        assert np.isnan(seen.stress).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(2.0, 7.0))
def test_neighbours_are_those_of_ase(seed: int, atoms: int, cutoff: float) -> None:
    rng = np.random.default_rng(seed)
    cell = 3.0 * np.cbrt(atoms) * (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
    if abs(np.linalg.det(cell)) < 5.0 * atoms:
        return
    positions = rng.uniform(-1.5, 2.5, (atoms, 3)) @ cell
    found = find_neighbours(positions, cell, cutoff)
    vectors = found.shifts @ cell + positions[found.js] - positions[:, None]
    distances = np.sort(np.linalg.norm(vectors[~found.blank], axis=1))
    expected = np.sort(primitive_neighbor_list("d", (True,) * 3, cell, positions, cutoff))
    np.testing.assert_allclose(distances, expected, atol=1e-9)


def test_the_list_stays_complete_while_cell_and_atoms_move() -> None:
    rng = np.random.default_rng(0)
    atoms = bulk("Al", "fcc", a=4.0).repeat((1, 2, 2))
    positions, cell = atoms.positions.copy(), atoms.cell.array.copy()
    keeper = NeighbourKeeper(5.0, 0.5)
    for step in range(90):
        strain = np.eye(3) + rng.normal(0.0, 0.004, (3, 3))
        cell = cell @ strain
        positions = positions @ strain + rng.normal(0.0, 0.01, positions.shape)
        if step % 30 == 17:  # as LAMMPS does when it puts an atom back into the cell or flips the cell
            positions[1] += cell[0]
            cell = np.array([cell[0], cell[1] + cell[0], cell[2]])
        distances = np.linalg.norm(keeper.vectors(positions, cell), axis=-1)[~keeper.neighbours.blank]
        expected = primitive_neighbor_list("d", (True,) * 3, cell, positions, 5.0)
        np.testing.assert_allclose(np.sort(distances[distances < 5.0]), np.sort(expected), atol=1e-9)
    assert keeper.builds < 80


@pytest.mark.parametrize(
    ("positions", "cell"),
    [
        ([[np.nan, 0, 0], [1, 1, 1]], np.eye(3) * 3),
        ([[0, 0, 0], [np.inf, 0, 0]], np.eye(3) * 3),
        ([[0, 0, 0], [1, 1, 1]], np.eye(3) * np.nan),
        ([[0, 0, 0], [1, 1, 1]], np.diag([3.0, 3.0, 0.0])),
        ([[0, 0, 0], [1, 1, 1]], np.diag([300.0, 300.0, 1e-5])),
        (np.zeros((400, 3)), np.eye(3) * 0.4),
    ],
)
def test_nonsense_cells_are_found_out(positions: list[list[float]], cell: np.ndarray) -> None:
    evaluator = Evaluator(trained().potential, skin=0.5)
    with pytest.raises(NonsenseCellError):
        evaluator.predict(np.zeros(len(positions), np.int32), np.array(positions, dtype=float), cell)


def test_nonsense_in_the_middle_of_a_run_is_found_out() -> None:
    evaluator = Evaluator(trained().potential, skin=0.5)
    structure = aluminium((1, 1, 2))
    positions, cell = np.array(structure.positions), np.array(structure.cell)
    types = np.zeros(2, np.int32)
    evaluator.predict(types, positions, cell)
    with pytest.raises(NonsenseCellError):
        evaluator.predict(types, positions * np.nan, cell)


def test_species_and_state_of_the_potential_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown to the potential"):
        Evaluator(trained().potential).predict_structure(
            Structure((29,), ((0, 0, 0),), ((4, 0, 0), (0, 4, 0), (0, 0, 4))), AL
        )
    with pytest.raises(InputError, match="for 1 species"):
        open_potential(trained().root / "pot.mtp", [13, 29])
    write_potential(tmp_path / "raw.mtp", untrained(4, 1, 2.0, 5.0, 4))
    with pytest.raises(InputError, match="not trained"):
        open_potential(tmp_path / "raw.mtp", AL)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
def test_energies_are_those_of_mlip_3() -> None:
    evaluator = Evaluator(open_potential(SAMPLES / "K_cfg08.almtp", [19]))
    reference = list(csv.DictReader((SAMPLES / "K_cfg08_reference.csv").read_text().splitlines()))
    for sample, row in zip(read_samples(SAMPLES / "K_cfg08_train.cfg", ["K"]), reference, strict=True):
        seen = evaluator.predict_structure(sample.structure, [19])
        volume = abs(np.linalg.det(np.array(sample.structure.cell)))
        assert seen.energy == pytest.approx(float(row["energy_eV"]), abs=1e-9)
        assert -volume * seen.stress[0] == pytest.approx(float(row["plusstress_xx_eV"]), abs=1e-4)
