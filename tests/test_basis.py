"""The generator of untrained potentials: which functions there are, and that the program computes them."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from motep.calculator import make_calculator
from motep.io.mlip.mtp import read_mtp
from motep.potentials.mtp.data import MTPData
from scipy.spatial.transform import Rotation

from db.errors import InputError
from tasks.formats.mtp import parse_potential, read_potential, write_potential
from tasks.mtp.basis import LEVELS, template_text, untrained
from tasks.mtp.graphs import Graph, level_of, normal, scalars

Floats = npt.NDArray[np.float64]

#: by level; known from elsewhere: 6 and 8 (printed), 12 and 16 (from 54 and 125 parameters), 22 (a published file)
COUNTS = {2: 1, 4: 2, 6: 5, 8: 9, 10: 16, 12: 29, 14: 52, 16: 92, 18: 163, 20: 288, 22: 500}


@pytest.mark.parametrize(("level", "count"), COUNTS.items())
def test_number_of_scalar_functions(level: int, count: int) -> None:
    assert len(scalars(level)) == count


@pytest.mark.parametrize(("level", "parameters"), [(8, 26), (12, 54), (16, 125)])
def test_number_of_parameters_is_the_published_one(level: int, parameters: int) -> None:
    assert _trained(level).number_of_parameters_optimized == parameters


def test_level_6_is_the_printed_basis() -> None:
    moments = [graph.moments for graph in scalars(6)]
    assert moments == [((0, 0),), ((1, 0),), ((0, 0),) * 2, ((0, 1),) * 2, ((0, 0),) * 3]
    assert untrained(6, 1, 2.0, 5.0, 8).radial_funcs_count == 2


def test_level_8_is_the_printed_file() -> None:
    data = untrained(8, 1, 2.25, 6.2, 8)
    assert data.radial_funcs_count == 2
    assert (data.alpha_moments_count, data.alpha_scalar_moments) == (18, 9)
    assert data.alpha_index_basic.tolist() == [
        [0, 0, 0, 0],
        *([0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]),
        *([0, 2, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 2, 0], [0, 0, 1, 1], [0, 0, 0, 2]),
        [1, 0, 0, 0],
    ]
    assert data.alpha_index_times.tolist() == [
        [0, 0, 1, 11],
        *([1, 1, 1, 12], [2, 2, 1, 12], [3, 3, 1, 12]),
        *([4, 4, 1, 13], [5, 5, 2, 13], [6, 6, 2, 13], [7, 7, 1, 13], [8, 8, 2, 13], [9, 9, 1, 13]),
        *([0, 10, 1, 14], [0, 11, 1, 15], [0, 12, 1, 16], [0, 15, 1, 17]),
    ]
    assert data.alpha_moment_mapping.tolist() == [0, 10, 11, 12, 13, 14, 15, 16, 17]


def test_programs_stay_compact() -> None:
    sixteen = untrained(16, 1, 2.0, 5.0, 8)
    assert sixteen.alpha_moments_count <= 310
    assert sixteen.alpha_index_times_count <= 850


def test_normal_form_knows_isomorphic_graphs() -> None:
    moments = ((0, 1), (0, 2), (0, 1), (1, 2))
    bonds = np.array([[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0]])
    forms = set()
    for order in itertools.permutations(range(4)):
        renamed = tuple(tuple(int(x) for x in row) for row in bonds[np.ix_(order, order)])
        forms.add(normal(Graph(tuple(moments[v] for v in order), renamed)).graph)
    assert len(forms) == 1


def test_every_scalar_is_the_contraction_of_its_tensors() -> None:
    level = 18
    graphs = scalars(level)
    assert all(sum(map(level_of, graph.moments)) <= level for graph in graphs)
    weights, directions = _neighbourhood(7, seed=1)
    values = _evaluate(untrained(level, 1, 2.0, 5.0, 8), weights, directions)
    expected = [_contract(graph, weights, directions) for graph in graphs]
    np.testing.assert_allclose(values, expected, rtol=1e-11)


def test_scalars_do_not_change_when_a_neighbourhood_turns() -> None:
    data = untrained(20, 1, 2.0, 5.0, 8)
    weights, directions = _neighbourhood(9, seed=2)
    turned = -Rotation.random(rng=3).apply(directions)
    np.testing.assert_allclose(
        _evaluate(data, weights, directions), _evaluate(data, weights, turned), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("level", "rank"), [(14, 52), (16, 91)])
def test_scalars_are_independent_but_for_cayley_and_hamilton(level: int, rank: int) -> None:
    data = untrained(level, 1, 2.0, 5.0, 8)
    rows = np.array([_evaluate(data, *_neighbourhood(12, seed)) for seed in range(2 * rank)])
    rows /= np.linalg.norm(rows, axis=0)
    assert np.linalg.matrix_rank(rows, tol=1e-10) == rank


@pytest.mark.parametrize("level", [2, 8, 10, 12, 16])
def test_motep_evaluates_it_with_the_right_symmetry_and_forces(level: int) -> None:
    data = _trained(level)
    # a fresh object each time: the engine keeps its neighbours, and a turned cell is another cell
    atoms = bulk("K", "bcc", 4.2, cubic=True) * (2, 1, 1)
    atoms.rattle(0.25, seed=4)
    energy, forces = _motep(data, atoms)

    rotation = Rotation.random(rng=5)
    turned = atoms.copy()
    turned.set_cell(rotation.apply(atoms.cell.array))
    turned.positions = rotation.apply(atoms.positions)
    assert _motep(data, turned)[0] == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(_motep(data, turned)[1], rotation.apply(forces), atol=1e-8 * np.abs(forces).max())
    order = np.random.default_rng(6).permutation(len(atoms))
    assert _motep(data, atoms[order])[0] == pytest.approx(energy, rel=1e-10)

    step = 1e-4
    for atom, axis in ((0, 0), (2, 1), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            ends.append(_motep(data, moved)[0])
        slope = -(ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(forces[atom, axis], rel=1e-5, abs=1e-5 * np.abs(forces).max())


@pytest.mark.parametrize("level", [2, 4, 8, 12])
def test_a_template_survives_its_file(level: int, tmp_path: Path) -> None:
    data = untrained(level, 2, 1.5, 5.5, 6)
    _assert_same(parse_potential(template_text(level, 2, 1.5, 5.5, 6).encode(), "text"), data)
    trained = _trained(level, species=2)
    write_potential(tmp_path / "pot.mtp", trained)
    _assert_same(read_potential(tmp_path / "pot.mtp"), trained)
    _assert_same(read_mtp(tmp_path / "pot.mtp"), trained)


@pytest.mark.parametrize("level", [0, 7, 30, -2])
def test_other_levels_are_refused(level: int) -> None:
    with pytest.raises(InputError) as caught:
        untrained(level, 1, 2.0, 5.0, 8)
    assert ", ".join(map(str, LEVELS)) in caught.value.next_step


@pytest.mark.parametrize("arguments", [(0, 2.0, 5.0, 8), (1, 5.0, 2.0, 8), (1, 2.0, 5.0, 0), (1, -1.0, 5.0, 8)])
def test_senseless_arguments_are_refused(arguments: tuple[int, float, float, int]) -> None:
    with pytest.raises(InputError):
        untrained(8, *arguments)


def _trained(level: int, species: int = 1) -> MTPData:
    data = untrained(level, species, 2.0, 5.0, 8)
    data.initialize(np.random.default_rng(level))
    return data


def _motep(data: MTPData, atoms: Atoms) -> tuple[float, Floats]:
    data.species = np.array([19], dtype=np.int32)
    atoms = atoms.copy()
    atoms.calc = make_calculator(data, engine="cext")
    return atoms.get_potential_energy(), atoms.get_forces()


def _neighbourhood(neighbours: int, seed: int) -> tuple[Floats, Floats]:
    """Values of the radial functions (6, neighbours), and directions (neighbours, 3)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(neighbours, 3))
    return rng.uniform(-1, 1, (6, neighbours)), vectors / np.linalg.norm(vectors, axis=1)[:, None]


def _evaluate(data: MTPData, weights: Floats, directions: Floats) -> Floats:
    """Run the program of a potential on one neighbourhood, step by step."""
    moments = np.zeros(data.alpha_moments_count)
    for k, (mu, *powers) in enumerate(data.alpha_index_basic):
        moments[k] = np.sum(weights[mu] * np.prod(directions ** np.array(powers), axis=1))
    for i, j, times, k in data.alpha_index_times:
        moments[k] += times * moments[i] * moments[j]
    return moments[data.alpha_moment_mapping]


def _contract(graph: Graph, weights: Floats, directions: Floats) -> float:
    """The same from whole tensors, with one index letter for each bond."""
    letters = iter(range(52))
    indices: list[list[int]] = [[] for _ in graph.moments]
    for v, w in itertools.combinations(range(len(graph.moments)), 2):
        for _ in range(graph.bonds[v][w]):
            letter = next(letters)
            indices[v].append(letter)
            indices[w].append(letter)
    operands: list[object] = []
    for (mu, nu), own in zip(graph.moments, indices, strict=True):
        tensor = weights[mu]
        for _ in range(nu):
            tensor = np.einsum("...j,ja->...aj", tensor, directions)
        operands += [tensor.sum(axis=-1), own]
    return float(np.einsum(*operands, [], optimize="greedy"))


def _assert_same(found: MTPData, expected: MTPData) -> None:
    for name in ("species_count", "radial_funcs_count", "alpha_moments_count", "scaling"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.radial_basis == expected.radial_basis
    for name in ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("radial_coeffs", "species_coeffs", "moment_coeffs"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
