"""A pair potential: its forces are the slopes of its energy, its fit finds what is there, and it trains as a step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from fixtures_mtp import AL, labelled, run_step, train_spec

from db.errors import InputError, MissingError
from db.records import Label, Structure
from tasks.formats.atoms import from_atoms
from tasks.model import model, predict_structure
from tasks.mtp.data_sets import Sample, write_samples
from tasks.mtp.errors_of_fit import Pair, Weights, differences, errors_of
from tasks.mtp.neighbours import NonsenseCellError
from tasks.pair.basis import STIFFNESS, PairBasis
from tasks.pair.fit import fit, resampled
from tasks.pair.potential import PairPotential, PairPredictor, read_pair_potential, save_pair_potential
from tasks.pair.training import train

BASIS = PairBasis(2.0, 5.5, 8)
SPECIES = [13, 29]


def arbitrary(seed: int = 0, basis: PairBasis = BASIS) -> PairPotential:
    """Any pair potential for two species."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(0.0, 0.05, (2, 2, basis.size))
    return PairPotential(basis, rng.normal(0.0, 3.0, 2), coefficients + coefficients.transpose(1, 0, 2))


def alloy(seed: int, repeat: tuple[int, int, int] = (2, 2, 2), a: float = 3.8) -> Structure:
    """A distorted cell of both species."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Al", "fcc", a=a).repeat(repeat)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0.0, 0.04, (3, 3))), scale_atoms=True)
    atoms.rattle(0.15, rng=rng)
    atoms.symbols = rng.choice(["Al", "Cu"], len(atoms))
    return from_atoms(atoms)[0]


def labelled_by(potential: PairPotential, structures: list[Structure]) -> list[Pair]:
    predictor = PairPredictor(potential)
    pairs = []
    for structure in structures:
        seen = predict_structure(predictor, structure, SPECIES)
        stress = seen.stress.tolist() if all(structure.pbc) else None
        known = {"energy": seen.energy, "forces": seen.forces.tolist(), "stress": stress}
        pairs.append((structure, Label.from_json(known)))
    return pairs


@pytest.mark.parametrize("low", [2.0, 3.0])  # 3.0: some neighbours are closer than that
def test_forces_and_stress_are_the_slopes_of_the_energy(low: float) -> None:
    predictor = PairPredictor(arbitrary(1, PairBasis(low, 5.2, 6)))
    structure = alloy(2, (1, 2, 2))
    types = np.array([SPECIES.index(z) for z in structure.numbers], dtype=np.int32)
    positions, cell = np.array(structure.positions), np.array(structure.cell)
    seen = predictor.predict(types, positions, cell)
    h = 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for step in (-h, h):
            moved = positions.copy()
            moved[atom, axis] += step
            energies.append(predictor.predict(types, moved, cell).energy)
        assert seen.forces[atom, axis] == pytest.approx(-(energies[1] - energies[0]) / (2 * h), abs=1e-6)
    volume = abs(np.linalg.det(cell))
    for component, (x, y) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for step in (-h, h):
            strain = np.eye(3)
            strain[x, y] += step / 2
            strain[y, x] += step / 2
            energies.append(predictor.predict(types, positions @ strain, cell @ strain).energy)
        slope = (energies[1] - energies[0]) / (2 * h) / volume
        assert seen.stress[component] == pytest.approx(slope, abs=1e-7)


def test_functions_end_smoothly_and_push_below_the_shortest_distance() -> None:
    values, slopes = BASIS.values(np.array([5.5, 6.0, 2.0, 2.0 - 1e-7, 1.0]))
    assert not values[:2].any()
    assert not slopes[:2].any()
    np.testing.assert_allclose(values[2], values[3], rtol=1e-5)
    np.testing.assert_allclose(values[4], values[2] - slopes[2])  # the tangent
    energy, slope = BASIS.push(np.array([1.5, 2.0, 3.0]))
    np.testing.assert_allclose(energy, [STIFFNESS / 8, 0.0, 0.0])
    np.testing.assert_allclose(slope, [-STIFFNESS / 2, 0.0, 0.0])


def test_the_fit_finds_the_potential_that_made_the_labels() -> None:
    truth = arbitrary(3)
    pairs = labelled_by(truth, [alloy(k, (1, 2, 2)) for k in range(25)])
    found = fit(pairs, [1] * len(pairs), SPECIES, BASIS, Weights())
    fresh = labelled_by(truth, [alloy(100)])
    errors = errors_of(differences(PairPredictor(found), fresh, SPECIES))
    assert errors is not None
    assert errors["rmse_energy_per_atom"] < 1e-5
    assert errors["max_force"] < 1e-4


def test_atoms_nearer_than_min_dist_and_clusters_are_learned_from_too() -> None:
    truth = arbitrary(4, PairBasis(2.6, 5.0, 5))
    cluster = Structure((13, 29, 29), ((0, 0, 0), (2.4, 0, 0), (0, 2.5, 0.4)), ((0, 0, 0),) * 3, (False,) * 3)
    pairs = labelled_by(truth, [alloy(k, (1, 2, 2), 3.5) for k in range(15)] + [cluster])
    assert pairs[-1][1].stress is None
    found = fit(pairs, [1] * len(pairs), SPECIES, truth.basis, Weights())
    np.testing.assert_allclose(found.coefficients, truth.coefficients, atol=1e-4)


def test_one_block_of_rows_or_many_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(s.structure, s.label) for s in labelled(12, 1) if s.label is not None]
    whole = fit(pairs, [1] * 12, AL, BASIS, Weights())
    monkeypatch.setattr("tasks.pair.fit._BLOCK", 30)
    parts = fit(pairs, [1] * 12, AL, BASIS, Weights())
    np.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=1e-5, atol=1e-8)
    twice = fit(pairs[:6] + pairs[:6], [1] * 12, AL, BASIS, Weights())
    counted = fit(pairs, [2] * 6 + [0] * 6, AL, BASIS, Weights())
    np.testing.assert_allclose(counted.coefficients, twice.coefficients, rtol=1e-5, atol=1e-8)


def test_a_pair_of_species_that_never_meets_stays_without_force() -> None:
    pairs = [(s.structure, s.label) for s in labelled(12, 1) if s.label is not None]
    found = fit(pairs, [1] * 12, SPECIES, BASIS, Weights())
    assert not found.coefficients[1, 1].any()
    assert not found.coefficients[0, 1].any()
    alone = fit(pairs, [1] * 12, AL, BASIS, Weights())
    np.testing.assert_allclose(found.coefficients[0, 0], alone.coefficients[0, 0], rtol=1e-6)


def test_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"
    truth = arbitrary(5)
    save_pair_potential(path, truth, SPECIES)
    again = read_pair_potential(path, SPECIES)
    np.testing.assert_array_equal(again.coefficients, truth.coefficients)
    np.testing.assert_array_equal(again.energies, truth.energies)
    with pytest.raises(InputError, match="is for Al, Cu"):
        read_pair_potential(path, [29, 13])
    with pytest.raises(MissingError):
        read_pair_potential(tmp_path / "nothing.json", SPECIES)
    content = json.loads(path.read_text())
    broken: list[Any] = [
        [],
        content | {"kind": "other"},
        content | {"energies": [1.0]},
        content | {"pairs": {}},
        content | {"energies": [float("nan"), 1.0]},
        content | {"max_dist": 1.0},
    ]
    for text in ["", "{", *map(json.dumps, broken)]:
        path.write_text(text)
        with pytest.raises(InputError):
            read_pair_potential(path, SPECIES)


def test_nonsense_is_found_out() -> None:
    predictor = PairPredictor(arbitrary(6))
    with pytest.raises(NonsenseCellError):
        predictor.predict(np.zeros(2, np.int32), np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match="are no basis"):
        PairBasis(5.0, 2.0, 8)


def pair_spec(**changes: Any) -> dict[str, Any]:
    spec = train_spec(**changes)
    del spec["level"], spec["iterations"]
    return spec


def test_a_training_says_what_the_others_say(tmp_path: Path) -> None:
    write_samples(tmp_path / "train.cfg", labelled(20, 1), ["Al"])
    write_samples(tmp_path / "holdout.cfg", labelled(6, 2), ["Al"])
    code, result, printed = run_step("train-pair", pair_spec(), tmp_path, tmp_path)
    assert code == 0, printed
    facts = result["facts"]
    assert facts["configurations"] == facts["drawn"] == 20
    assert facts["parameters"] == 7
    assert facts["holdout"]["rmse_force_component"] < 0.1
    assert facts["train"]["rmse_energy_per_atom"] < 0.02
    assert facts["holdout_before"] is None
    warm = train(pair_spec(start="pair.json"), tmp_path, tmp_path)
    assert warm["holdout_before"] == warm["holdout"] == pytest.approx(facts["holdout"])
    assert not warm["worse"]
    with pytest.raises(InputError, match="nothing is labelled"):
        train(pair_spec(train=None), tmp_path, tmp_path)


def test_members_differ_by_what_they_have_drawn(tmp_path: Path) -> None:
    write_samples(tmp_path / "train.cfg", labelled(20, 1), ["Al"])
    found = []
    for member, seed in ((0, 1), (0, 2), (1, 3), (2, 4), (2, 4)):
        facts = train(pair_spec(member=member, seed=seed, holdout=None), tmp_path, tmp_path)
        assert facts["member"] == member
        found.append(model("pair").open(tmp_path / "pair.json", AL))
    structure = labelled(1, 9)[0].structure
    forces = [predict_structure(predictor, structure, AL).forces for predictor in found]
    np.testing.assert_array_equal(forces[0], forces[1])  # the main one takes all
    np.testing.assert_array_equal(forces[3], forces[4])  # the same seed draws the same
    assert np.abs(forces[2] - forces[0]).max() > 1e-4
    assert np.abs(forces[2] - forces[3]).max() > 1e-4
    assert sum(resampled(20, 3)) == 20


def test_energies_far_from_zero_cost_no_digits(tmp_path: Path) -> None:
    losses = []
    for shift in (0.0, -3000.0):
        pairs = [(s.structure, s.label) for s in labelled(15, 1) if s.label is not None]
        moved = [
            Sample(s, Label(known.energy + shift * len(s.numbers), known.forces, known.stress)) for s, known in pairs
        ]
        write_samples(tmp_path / "train.cfg", moved, ["Al"])
        losses.append(train(pair_spec(holdout=None), tmp_path, tmp_path)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_there_is_no_active_set() -> None:
    kind = model("pair")
    assert not kind.active_sets
    with pytest.raises(InputError, match="no active set") as error:
        kind.grader(Path(), AL, "configuration")
    assert "committee" in error.value.next_step
