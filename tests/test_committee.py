"""A committee predicts with its mean, and disagrees where its members have not been."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from fixtures_mtp import AL, aluminium, explore_spec, labelled, run_step, train_spec, trained

from db.errors import InputError
from db.records import Structure
from tasks.committee import Committee, open_committee
from tasks.formats.atoms import from_atoms
from tasks.model import Prediction, model, predict_structure
from tasks.mtp.data_sets import read_samples, write_samples
from tasks.mtp.neighbours import NonsenseCellError
from tasks.pair.training import train as train_pair

SAID = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


class Says:
    """A predictor that always says the same."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.cutoff = 3.0 + factor
        self.forgot = False

    def predict(self, types: Any, positions: Any, cell: Any) -> Prediction:
        return Prediction(self.factor, self.factor * SAID, np.full(6, self.factor))

    def forget(self) -> None:
        self.forgot = True


def pair_members(root: Path, count: int) -> list[Path]:
    """Pair potentials from 30 labelled cells near equilibrium: m0/pair.json, …"""
    write_samples(root / "train.cfg", labelled(30, 1), ["Al"])
    paths = []
    for member in range(count):
        folder = root / f"m{member}"
        folder.mkdir()
        train_pair(train_spec(holdout=None, member=member, seed=10 + member), root, folder)
        paths.append(folder / "pair.json")
    return paths


def asked(structure: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(len(structure.numbers), np.int32), np.array(structure.positions), np.array(structure.cell)


def test_the_mean_and_the_deviation_are_those_of_the_members() -> None:
    members = [Says(1.0), Says(2.0), Says(6.0)]
    committee = Committee(members)
    seen = committee.predict(np.zeros(2, np.int32), np.zeros((2, 3)), np.eye(3))
    assert seen.energy == pytest.approx(3.0)
    np.testing.assert_allclose(seen.forces, 3.0 * SAID)
    np.testing.assert_allclose(seen.stress, np.full(6, 3.0))
    sigma = np.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 3)
    np.testing.assert_allclose(committee.grades_of_atoms(), [sigma, 0.0])
    assert committee.grade() == pytest.approx(sigma)
    assert committee.cutoff == 9.0
    committee.forget()
    assert all(member.forgot for member in members)


def test_nonsense_of_one_member_shows() -> None:
    committee = Committee([Says(1.0), Says(float("nan"))])
    committee.predict(np.zeros(2, np.int32), np.zeros((2, 3)), np.eye(3))
    assert np.isnan(committee.grade())
    with pytest.raises(InputError, match="cannot disagree"):
        Committee([Says(1.0)])


def test_the_mean_is_a_potential_of_its_own(tmp_path: Path) -> None:
    committee = open_committee(model("pair"), pair_members(tmp_path, 3), AL, skin=0.4)
    types, positions, cell = asked(labelled(1, 7, (1, 2, 2))[0].structure)
    seen = committee.predict(types, positions, cell)
    h = 1e-4
    for atom, axis in ((0, 0), (2, 1)):
        energies = []
        for step in (-h, h):
            moved = positions.copy()
            moved[atom, axis] += step
            energies.append(committee.predict(types, moved, cell).energy)
        assert seen.forces[atom, axis] == pytest.approx(-(energies[1] - energies[0]) / (2 * h), abs=1e-5)
    energies = [committee.predict(types, positions * s, cell * s).energy for s in (1 - h, 1 + h)]
    slope = (energies[1] - energies[0]) / (2 * h) / abs(np.linalg.det(cell))
    assert seen.stress[:3].sum() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_grade_grows_away_from_what_the_members_were_trained_on(tmp_path: Path) -> None:
    committee = open_committee(model("pair"), pair_members(tmp_path, 4), AL)
    known = [sample.structure for sample in read_samples(tmp_path / "train.cfg", ["Al"])]
    inside = []
    for structure in known:
        predict_structure(committee, structure, AL)
        inside.append(committee.grade())
    atoms = bulk("Al", "fcc", a=3.4).repeat((1, 2, 2))  # 15 % shorter than the middle of the training set
    atoms.rattle(0.25, seed=1)
    predict_structure(committee, from_atoms(atoms)[0], AL)
    assert committee.grade() > 3.0 * max(inside)
    assert committee.grade() == pytest.approx(committee.grades_of_atoms().max())
    with pytest.raises(NonsenseCellError):
        committee.predict(np.zeros(1, np.int32), np.zeros((1, 3)), np.zeros((3, 3)))


def test_a_committee_explores_with_pair_potentials(tmp_path: Path) -> None:
    paths = pair_members(tmp_path, 3)
    spec = explore_spec(
        potential=str(paths[0]),
        members=[str(path) for path in paths[1:]],
        model="pair",
        grade="committee",
        structure=aluminium((1, 2, 2)).to_json(),
        steps=150,
        gamma_save=1e-3,
        gamma_break=5.0,
    )
    del spec["active_set"]
    code, result, printed = run_step("explore", spec, tmp_path, tmp_path)
    assert code == 0, printed
    facts = result["facts"]
    assert facts["steps"] == 150
    assert 1e-3 < facts["gamma_max"] < 5.0
    kept = read_samples(tmp_path / "preselected.cfg", ["Al"])
    assert 0 < len(kept) == facts["saved"] <= 20
    committee = open_committee(model("pair"), paths, AL)
    for sample in kept:
        predict_structure(committee, sample.structure, AL)
        assert committee.grade() == pytest.approx(float(sample.features["MV_grade"]), abs=2e-6)


def test_members_of_moment_tensor_potentials_make_one_too(tmp_path: Path) -> None:
    t = trained()
    paths = [t.root / "pot.mtp"]
    from tasks.mtp.training import train

    for member in (1, 2):
        folder = tmp_path / f"m{member}"
        folder.mkdir()
        facts = train(train_spec(member=member, seed=50 + member, iterations=15, holdout=None), t.root, folder)
        assert facts["member"] == member
        paths.append(folder / "pot.mtp")
    committee = open_committee(model("motep"), paths, AL)
    predict_structure(committee, labelled(1, 9)[0].structure, AL)
    assert committee.grade() > 1e-4
