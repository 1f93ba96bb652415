"""The active set means what it means in MLIP-3, with many configurations and with few."""

import csv
from pathlib import Path

import numpy as np
import pytest
from fixtures_mtp import AL, SAMPLES, labelled, trained

from db.errors import InputError, MissingError
from tasks.formats.mtp import read_potential, write_potential
from tasks.mtp.active_set import (
    SWAP_THRESHOLD,
    build,
    enlarge,
    fingerprint,
    load_active_set,
    rows_of,
    save_active_set,
)
from tasks.mtp.data_sets import read_samples
from tasks.mtp.evaluator import Evaluator, open_potential


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
def test_grades_are_those_of_mlip_3() -> None:
    potential = open_potential(SAMPLES / "K_cfg08.almtp", [19])
    structures = [sample.structure for sample in read_samples(SAMPLES / "K_cfg08_train.cfg", ["K"])]
    rows = rows_of(Evaluator(potential), structures, [19])
    reference = csv.DictReader((SAMPLES / "K_cfg08_reference.csv").read_text().splitlines())
    grades = np.array([float(row["grade"]) for row in reference])
    active = build(rows, potential)
    np.testing.assert_allclose(active.grades(rows), grades, atol=2e-6)
    assert active.members == 23


def test_the_training_set_is_never_extrapolated_on() -> None:
    t = trained()
    structures = [sample.structure for sample in read_samples(t.root / "train.cfg", ["Al"])]
    evaluator = Evaluator(t.potential)
    rows = rows_of(evaluator, structures, AL)
    assert t.active.grades(rows).max() <= SWAP_THRESHOLD + 1e-6
    assert t.active.grade(rows[3]) == pytest.approx(t.active.grades(rows)[3])
    for place, index in enumerate(t.active.indices):
        if index >= 0:
            np.testing.assert_allclose(t.active.matrix[place], rows[index], rtol=1e-9)
    assert not enlarge(t.active, rows).entered


@pytest.mark.parametrize("count", [0, 1, 5])
def test_fewer_configurations_than_parameters(count: int) -> None:
    t = trained()
    evaluator = Evaluator(t.potential)
    rows = rows_of(evaluator, [sample.structure for sample in labelled(6, 11)], AL)
    active = build(rows[:count], t.potential)
    assert active.members == count
    assert active.matrix.shape == (evaluator.parameters, evaluator.parameters)
    assert active.grades(rows)[5] > 10.0
    np.testing.assert_allclose(active.matrix @ active.inverse, np.eye(len(active.matrix)), atol=1e-4)


def test_enlarging_takes_few_and_covers_all() -> None:
    t = trained()
    rng = np.random.default_rng(0)
    rows = rows_of(Evaluator(t.potential), [s.structure for s in labelled(12, 21) + labelled(12, 22, (1, 2, 2))], AL)
    candidates = np.vstack([rows * rng.uniform(0.5, 3.0, rows.shape) for _ in range(40)])
    found = enlarge(t.active, candidates)
    assert 0 < len(found.entered) <= len(t.active.matrix)
    assert found.after.max() <= SWAP_THRESHOLD + 1e-6
    np.testing.assert_allclose(found.grades, t.active.grades(candidates))
    assert enlarge(t.active, np.empty((0, candidates.shape[1]))).entered == ()


def test_round_trip_and_refusal(tmp_path: Path) -> None:
    t = trained()
    path = tmp_path / "active.npz"
    save_active_set(path, t.active)
    again = load_active_set(path, read_potential(t.root / "pot.mtp"))
    np.testing.assert_array_equal(again.inverse, t.active.inverse)
    np.testing.assert_array_equal(again.indices, t.active.indices)
    other = read_potential(t.root / "pot.mtp")
    other.moment_coeffs = np.array(other.moment_coeffs) * 1.0001
    with pytest.raises(InputError, match="belongs to another potential"):
        load_active_set(path, other)
    with pytest.raises(MissingError):
        load_active_set(tmp_path / "nothing.npz", other)
    for content in (b"", b"not an archive", path.read_bytes()[:2000]):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(InputError, match="not an active set"):
            load_active_set(tmp_path / "broken.npz", other)


def test_fingerprint_survives_the_file(tmp_path: Path) -> None:
    t = trained()
    write_potential(tmp_path / "copy.mtp", t.potential)
    assert fingerprint(read_potential(tmp_path / "copy.mtp")) == fingerprint(t.potential)
