"""Cutting neighbourhoods out of large cells, selecting them, selecting the highest, and samples uniform in γ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from fixtures_mtp import AL, LATTICE, aluminium, labelled, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from db.records import Structure
from tasks.formats.atoms import from_atoms
from tasks.formats.cfg import read_cfg, to_structure
from tasks.formats.mtp import write_potential
from tasks.mtp import selecting
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import ActiveSet, exchange, save_active_set
from tasks.mtp.cutting import cut, extrapolative
from tasks.mtp.data_sets import Sample, read_samples, write_samples
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.keeping import Moment
from tasks.mtp.sampling import Sampler, choose_uniform
from tasks.mtp.selecting import select

CUTOFF = 5.5


def large(size: int = 3, *, vacancy: bool = False, rattle: float = 0.1) -> Structure:
    atoms = bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((size, size, size))
    atoms.rattle(rattle, seed=5)
    if vacancy:
        del atoms[0]
    return from_atoms(atoms)[0]


def rows(structure: Structure) -> np.ndarray[Any, Any]:
    evaluator = Evaluator(trained().potential)
    evaluator.predict_structure(structure, AL)
    return evaluator.rows()


def slanted() -> Structure:
    atoms = bulk("Al", "fcc", a=LATTICE).repeat((6, 5, 7))
    atoms.rattle(0.1, seed=2)
    return from_atoms(atoms)[0]


def slab() -> Structure:
    atoms = bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((3, 3, 3))
    atoms.rattle(0.1, seed=2)
    atoms.pbc = (True, True, False)
    return from_atoms(atoms)[0]


@pytest.mark.parametrize("make", [large, slanted, slab], ids=["cubic", "slanted", "slab"])
@pytest.mark.parametrize("atom", [0, 53, 107])
def test_the_middle_of_a_cluster_has_the_neighbourhood_that_it_had(make: Callable[[], Structure], atom: int) -> None:
    structure = make()
    piece = cut(structure, atom, CUTOFF + 0.2, 9.0)
    assert not piece.whole
    assert piece.structure.pbc == (False, False, False)
    assert len(piece.structure.numbers) < len(structure.numbers)
    np.testing.assert_allclose(rows(piece.structure)[piece.centre], rows(structure)[atom], atol=1e-10)
    positions = np.array(piece.structure.positions)
    np.testing.assert_allclose(np.diag(piece.structure.cell), np.ptp(positions, axis=0) + 9.0)
    np.testing.assert_allclose(positions.min(axis=0), 4.5)
    away = np.linalg.norm(positions - positions[0], axis=1)
    assert (np.diff(away) > -1e-8).all()
    assert away.max() <= CUTOFF + 0.2


def test_a_cell_no_larger_than_the_neighbourhood_is_taken_as_it_is() -> None:
    for structure in (aluminium((1, 1, 1)), aluminium((1, 1, 4)), large(2), aluminium((1, 1, 12))):
        piece = cut(structure, 0, 8.0, 9.0)
        assert piece.whole
        assert piece.structure is structure
    # wider than the radius but not than twice the radius: images are atoms, each for itself
    wide = large(4, rattle=0.0)
    piece = cut(wide, 7, 10.0, 9.0)
    assert not piece.whole
    ball = bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((11, 11, 11))
    middle = ball.positions[np.argmin(np.linalg.norm(ball.positions - ball.positions.mean(axis=0), axis=1))]
    inside = int((np.linalg.norm(ball.positions - middle, axis=1) <= 10.0).sum())
    assert len(piece.structure.numbers) == inside < len(wide.numbers)


def test_an_atom_alone_is_a_cluster_of_one_in_vacuum() -> None:
    far = Structure((13, 13), ((1.0, 1.0, 1.0), (21.0, 21.0, 21.0)), ((40.0, 0, 0), (0, 40.0, 0), (0, 0, 40.0)))
    piece = cut(far, 1, 8.0, 9.0)
    assert piece.structure.positions == ((4.5, 4.5, 4.5),)
    assert piece.box == (9.0, 9.0, 9.0)


def test_extrapolative_atoms_come_highest_first() -> None:
    assert extrapolative(np.array([1.0, 5.0, 2.0, 2.0, 7.0]), 2.0) == [4, 1]


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """pot.mtp with both active sets, and a second member in m1."""
    root = tmp_path / "root"
    shutil.copytree(trained().root, root)
    evaluator = Evaluator(trained().potential)
    training = [sample.structure for sample in read_samples(root / "train.cfg", ["Al"])]
    save_active_set(root / "active-nbh.npz", build_of_neighbourhoods(evaluator, training, AL))
    potential = trained().potential
    before = np.array(potential.moment_coeffs)
    (root / "m1").mkdir(exist_ok=True)
    try:
        potential.moment_coeffs = before * (1.0 + 0.02 * np.cos(np.arange(len(before))))
        write_potential(root / "m1" / "pot.mtp", potential)
    finally:
        potential.moment_coeffs = before
    return root


def spec(candidates: Path, **changes: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "potential": "pot.mtp",
        "active_set": "active.npz",
        "train": "train.cfg",
        "candidates": [str(candidates)],
        "species": ["Al"],
        "method": "maxvol",
        "gamma_save": 2.0,
        "limit": None,
        "min_distance": 1.5,
        "volume_per_atom": [5.0, 60.0],
    }
    return asked | changes


def test_extrapolative_neighbourhoods_are_cut_out_and_with_them_nothing_is_unknown(root: Path, tmp_path: Path) -> None:
    structures = [large(vacancy=True, rattle=amount) for amount in (0.1, 0.2)]
    write_samples(tmp_path / "c.cfg", [Sample(s, features={"step": "3"}) for s in structures], ["Al"])
    asked = spec(tmp_path / "c.cfg", grade="neighbourhood", neighbourhoods={"radius": 5.8, "vacuum": 9.0})
    facts = select(asked, root, tmp_path)
    evaluator = Evaluator(trained().potential)
    with np.load(root / "active-nbh.npz") as file:
        active = ActiveSet(file["matrix"], file["inverse"], file["indices"], "", file["atoms"])
    every = np.concatenate([rows(structure) for structure in structures])
    worthy = every[active.grades(every) > 2.0]
    chosen = read_samples(tmp_path / "selected.cfg", ["Al"])
    assert 0 < len(chosen) == facts["selected"] == facts["entered"] < evaluator.parameters
    assert facts["gamma_max"] == pytest.approx(active.grades(every).max())
    central = []
    for sample, configuration in zip(chosen, read_cfg(tmp_path / "selected.cfg"), strict=True):
        assert sample.structure.pbc == (False, False, False)
        positions = np.array(sample.structure.positions)
        # who labels it finds its box
        np.testing.assert_allclose(to_structure(configuration, ["Al"]).cell, np.diag(np.ptp(positions, axis=0) + 9.0))
        assert sample.features["nbh_of"] in {f"{number}/{tmp_path / 'c.cfg'}" for number in (1, 2)}
        central.append(rows(sample.structure)[0])
        assert active.grade(central[-1]) == pytest.approx(float(sample.features["MV_grade"]), abs=1e-5)
        assert float(sample.features["MV_grade"]) > 2.0
    matrix, _, after = exchange(active.matrix, active.inverse, np.array(central))
    assert after.max() < 1.01
    assert np.abs(worthy @ np.linalg.inv(matrix)).max() < 1.01
    limited = select(asked | {"limit": 2}, root, tmp_path)
    grades = sorted(float(sample.features["MV_grade"]) for sample in chosen)
    kept = sorted(float(s.features["MV_grade"]) for s in read_samples(tmp_path / "selected.cfg", ["Al"]))
    assert limited["selected"] == 2
    assert kept == grades[-2:]
    # of a cell that is smaller than the radius the whole is taken, once
    write_samples(tmp_path / "small.cfg", [Sample(aluminium((1, 2, 2), 4.6))], ["Al"])
    assert select(asked | {"candidates": [str(tmp_path / "small.cfg")]}, root, tmp_path)["selected"] == 1
    (whole,) = read_samples(tmp_path / "selected.cfg", ["Al"])
    assert all(whole.structure.pbc)
    # "all" takes one of each configuration, and so does "highest" of each window
    assert select(asked | {"method": "all"}, root, tmp_path)["selected"] == 2
    assert select(asked | {"method": "highest"}, root, tmp_path)["selected"] == 1


def test_however_many_candidates_there_are_memory_is_bounded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    structures = [large(2, rattle=amount) for amount in np.linspace(0.1, 0.3, 12)]
    write_samples(tmp_path / "c.cfg", map(Sample, structures), ["Al"])
    monkeypatch.setattr(selecting, "_MOST_BYTES", 40_000)  # some seventy rows
    facts = select(spec(tmp_path / "c.cfg", grade="neighbourhood"), root, tmp_path)
    chosen = read_samples(tmp_path / "selected.cfg", ["Al"])
    assert 0 < facts["selected"] == len(chosen) <= facts["entered"]
    with np.load(root / "active-nbh.npz") as file:
        active = ActiveSet(file["matrix"], file["inverse"], file["indices"], "", file["atoms"])
    every = np.concatenate([rows(structure) for structure in structures])
    matrix, _, _ = exchange(active.matrix, active.inverse, np.concatenate([rows(s.structure) for s in chosen]))
    worthy = every[active.grades(every) > 2.0]
    assert len(worthy) > 50
    assert np.abs(worthy @ np.linalg.inv(matrix)).max() < 1.5


def trajectory(count: int) -> list[Sample]:
    return [
        Sample(sample.structure, features={"step": str(50 * number)})
        for number, sample in enumerate(labelled(count, 77, (1, 2, 2)))
    ]


@pytest.mark.parametrize("grade", ["configuration", "committee"])
def test_the_highest_are_taken_one_of_each_window(root: Path, tmp_path: Path, grade: str) -> None:
    write_samples(tmp_path / "c.cfg", trajectory(50), ["Al"])
    asked = spec(tmp_path / "c.cfg", method="highest", grade=grade, members=["m1/pot.mtp"])
    facts = select(asked, root, tmp_path)
    assert (facts["selected"], facts["method"]) == (20, "highest")
    chosen = read_samples(tmp_path / "selected.cfg", ["Al"])
    steps = [int(sample.features["step"]) for sample in chosen]
    assert steps == sorted(steps)
    assert len({step // 100 for step in steps}) == 20
    assert facts["gamma_max"] == pytest.approx(max(float(s.features["MV_grade"]) for s in chosen), abs=1e-5)
    assert select(asked | {"limit": 100}, root, tmp_path)["selected"] == 25
    of_all = [float(s.features["MV_grade"]) for s in read_samples(tmp_path / "selected.cfg", ["Al"])]
    assert sorted(float(s.features["MV_grade"]) for s in chosen) == sorted(of_all)[-20:]


def test_maxvol_of_a_committee_is_the_highest(root: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "c.cfg", trajectory(20), ["Al"])
    asked = spec(tmp_path / "c.cfg", grade="committee", members=["m1/pot.mtp"], limit=3)
    del asked["active_set"]
    facts = select(asked, root, tmp_path)
    assert (facts["method"], facts["selected"]) == ("highest", 3)


def moment(step: int, gamma: float) -> Callable[[], Moment]:
    return lambda: Moment(step, gamma, np.full((1, 3), float(step)), np.eye(3))


def test_a_sample_is_as_uniform_as_the_run_allows() -> None:
    rng = np.random.default_rng(1)
    # most of a run is at low γ
    grades = 0.1 + rng.exponential(0.8, 20_000)
    sampler = Sampler(200, 0.1, 10.0, seed=4)
    for step, gamma in enumerate(grades):
        sampler.offer(float(gamma), moment(step, float(gamma)))
    kept = sampler.kept
    assert len(kept) == 200
    edges = np.linspace(0.1, 10.0, 21)
    there = np.histogram(grades, edges)[0]
    counts = np.histogram([one.gamma for one in kept], edges)[0]
    level = counts.max()
    # a bin has less than its share only when the run has no more
    assert all(count >= level - 1 or count == has for count, has in zip(counts, there, strict=True))
    # and of a bin it is a fair sample: not its beginning
    first = np.array([one.step for one in kept if one.gamma < edges[1]])
    assert len(first) > 8
    assert 3_000 < first.mean() < 17_000
    chosen = choose_uniform(grades.tolist(), 200, 0.1, 10.0, seed=4)
    assert len(chosen) == len(set(chosen)) == 200
    assert sorted(np.histogram(grades[chosen], edges)[0]) == pytest.approx(sorted(counts), abs=1)


def test_a_sampler_goes_on_from_what_it_remembers() -> None:
    rng = np.random.default_rng(2)
    grades = rng.uniform(0.0, 12.0, 3000).tolist()
    whole, first = Sampler(50, 0.1, 10.0, seed=9), Sampler(50, 0.1, 10.0, seed=9)
    for step, gamma in enumerate(grades):
        whole.offer(gamma, moment(step, gamma))
        if step < 1500:
            first.offer(gamma, moment(step, gamma))
    second = Sampler(50, 0.1, 10.0, seed=0)
    second.restore(json.loads(json.dumps(first.state())))
    for step, gamma in enumerate(grades[1500:], 1500):
        second.offer(gamma, moment(step, gamma))
    assert second.state() == whole.state()
    assert [one.step for one in second.kept] != [one.step for one in first.kept]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 20.0) | st.just(float("nan")), max_size=60), st.integers(1, 30))
def test_a_pooled_choice_is_never_too_large_and_never_outside(grades: list[float], count: int) -> None:
    chosen = choose_uniform(grades, count, 0.1, 10.0, seed=1)
    inside = [k for k, gamma in enumerate(grades) if 0.1 < gamma < 10.0]
    assert len(chosen) == min(count, len(inside))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(inside)
    assert chosen == choose_uniform(grades, count, 0.1, 10.0, seed=1)
