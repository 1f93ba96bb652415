"""Where MLIP-3's own ``mlp`` is on the PATH: it says what we say, to the digits that it prints."""

import csv
from pathlib import Path

import numpy as np
import pytest
from fixtures_mtp import SAMPLES
from mlip_programs import REAL, needs_mlp

from db.records import Structure
from tasks.engines.mlip_active_set import write_almtp
from tasks.engines.mlip_files import read_trained
from tasks.engines.mlip_output import run_logged
from tasks.engines.mlip_program import Mlp
from tasks.engines.mlip_training import refuse_disagreement, train
from tasks.formats.mtp import write_potential
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import ActiveSet, build, enlarge, rows_of
from tasks.mtp.data_sets import Sample, read_labelled, read_samples, write_samples
from tasks.mtp.errors_of_fit import differences, errors_of
from tasks.mtp.evaluator import Evaluator, open_potential

K = [19]
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the samples of MLIP-3's files")


class Potassium:
    """The published potential of level 8 with its training set, and what we make of it."""

    def __init__(self, where: Path) -> None:
        self.where = where
        for name in ("K_cfg08.almtp", "K_cfg08_train.cfg"):
            (where / name).write_bytes((SAMPLES / name).read_bytes())
        self.potential = open_potential(where / "K_cfg08.almtp", K)
        self.evaluator = Evaluator(self.potential)
        self.pairs = read_labelled(where / "K_cfg08_train.cfg", ["K"])
        self.rows = rows_of(self.evaluator, [structure for structure, _ in self.pairs], K)
        self.active: ActiveSet = build(self.rows, self.potential)

    def grades_in(self, file: Path) -> np.ndarray:
        return np.array([float(sample.features["MV_grade"]) for sample in read_samples(file, ["K"])])


@pytest.fixture
def potassium(tmp_path: Path) -> Potassium:
    return Potassium(tmp_path)


@needs_samples
def test_what_mlip_once_wrote_is_read_as_whole(potassium: Potassium) -> None:
    made = read_trained(potassium.where / "K_cfg08.almtp", potassium.potential, active_set=True)
    assert made.active == potassium.active.members == 23
    with (SAMPLES / "K_cfg08_reference.csv").open() as file:
        rows = list(csv.DictReader(file))
    (column,) = [name for name in rows[0] if "grade" in name.lower()]
    theirs = np.array([float(row[column]) for row in rows])
    assert potassium.active.grades(potassium.rows) == pytest.approx(theirs, abs=1e-6)


@needs_mlp
@needs_samples
def test_errors_and_grades_are_those_of_mlp_with_its_file_and_with_ours(potassium: Potassium) -> None:
    assert REAL is not None
    mlp, where = Mlp((REAL,), potassium.where), potassium.where
    write_potential(where / "ours.mtp", potassium.potential)
    write_almtp(where / "ours.almtp", potassium.potential, potassium.active)
    ours = errors_of(differences(potassium.evaluator, potassium.pairs, K))
    for name in ("K_cfg08.almtp", "ours.mtp", "ours.almtp"):
        refuse_disagreement(ours, mlp.check_errors(name, "K_cfg08_train.cfg"), name)
    for name in ("K_cfg08.almtp", "ours.almtp"):
        (file,) = mlp.calculate_grade(name, "K_cfg08_train.cfg", "graded.cfg")
        assert potassium.grades_in(file) == pytest.approx(potassium.active.grades(potassium.rows), abs=1e-6)
    # by neighbourhoods, too: γ of a configuration is that of its strangest atom
    nearby = build_of_neighbourhoods(potassium.evaluator, [structure for structure, _ in potassium.pairs], K)
    write_almtp(where / "nbh.almtp", potassium.potential, nearby)
    (file,) = mlp.calculate_grade("nbh.almtp", "K_cfg08_train.cfg", "nbh.cfg")
    expected = []
    for structure, _ in potassium.pairs:
        potassium.evaluator.predict_structure(structure, K)
        expected.append(nearby.grades(potassium.evaluator.rows()).max())
    assert potassium.grades_in(file) == pytest.approx(expected, abs=1e-6)


@needs_mlp
@needs_samples
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_the_same_candidates_are_selected(potassium: Potassium, seed: int) -> None:
    assert REAL is not None
    rng = np.random.default_rng(seed)
    candidates = [moved(s, rng, 0.1 * (seed + 1)) for s, _ in potassium.pairs for _ in range(3)]
    rows = rows_of(potassium.evaluator, candidates, K)
    write_samples(potassium.where / "candidates.cfg", [Sample(candidate) for candidate in candidates], ["K"])
    mlp = Mlp((REAL,), potassium.where)
    (file,) = mlp.select_add("K_cfg08.almtp", "K_cfg08_train.cfg", "candidates.cfg", "new.cfg")
    theirs = rows_of(potassium.evaluator, [sample.structure for sample in read_samples(file, ["K"])], K)
    ours = rows[list(enlarge(potassium.active, rows, potassium.rows).entered)]
    # as sets: candidates of one atom are all the same, and it prints six digits of the coordinates
    assert len(theirs) == len(ours)
    apart = np.abs(theirs[:, None] - ours[None]).max(axis=2) / np.abs(ours).max(axis=1)
    assert apart.min(axis=0).max() < 1e-3
    assert apart.min(axis=1).max() < 1e-3


def moved(structure: Structure, rng: np.random.Generator, by: float) -> Structure:
    content = structure.to_json()
    positions = np.array(content["positions"])
    return Structure.from_json(content | {"positions": (positions + rng.normal(0.0, by, positions.shape)).tolist()})


@needs_mlp
@needs_samples
def test_it_trains_from_our_template_and_from_its_own_result(potassium: Potassium) -> None:
    assert REAL is not None
    spec = {"train": "K_cfg08_train.cfg", "holdout": "K_cfg08_train.cfg", "start": None, "level": 8}
    spec |= {"species": ["K"], "min_dist": 1.5, "max_dist": 5.0, "radial_basis_size": 8, "iterations": 20, "seed": 1}
    spec |= {"weights": None, "settings": {"command": REAL, "template": None}}
    first, second = potassium.where / "first", potassium.where / "second"
    first.mkdir()
    second.mkdir()
    facts = train(spec, potassium.where, first)
    assert (facts["iterations"], facts["mlip"]["ended"]) == (20, "step limit reached")
    again = train(spec | {"start": "first/pot.mtp"}, potassium.where, second)
    assert again["loss"] < facts["loss"]
    # one rank: the same bytes each time
    content = (first / "pot.almtp").read_bytes()
    train(spec, potassium.where, first)
    assert (first / "pot.almtp").read_bytes() == content


@needs_mlp
def test_its_manners_are_those_that_we_guard_against(tmp_path: Path) -> None:
    assert REAL is not None
    assert run_logged([REAL, "no_such_command"], tmp_path, "log").code == 0
    assert run_logged([REAL, "train", "one"], tmp_path, "log").code == 0
    assert run_logged([REAL, "check_errors", "nowhere.mtp", "nowhere.cfg"], tmp_path, "log").code == 9
