"""Every kind of potential keeps the protocol; MTPs are graded by configuration and by neighbourhood."""

from pathlib import Path

import numpy as np
import pytest
from fixtures_mtp import AL, labelled, train_spec, trained
from test_evaluator import distorted, random_potential

from db.errors import InputError, MissingError
from tasks.formats.atoms import from_atoms
from tasks.model import model, predict_structure, types_of
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import SWAP_THRESHOLD, build, load_active_set, save_active_set
from tasks.mtp.data_sets import read_samples
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.training import train
from tasks.registry import MODELS, POTENTIALS


@pytest.mark.parametrize("engine", list(MODELS))
def test_a_model_leaves_the_files_that_the_registry_names(engine: str) -> None:
    kind, files = model(engine), POTENTIALS[engine]
    assert (kind.file, kind.files, kind.optional) == (files.file, files.files, files.optional)
    assert kind.file in kind.files
    assert not set(kind.files) & set(kind.optional)


@pytest.mark.parametrize("level", [2, 8, 16])
@pytest.mark.parametrize("symbols", [["Al"], ["Al", "Cu"]])
def test_rows_of_atoms_add_up_to_that_of_the_configuration(level: int, symbols: list[str]) -> None:
    species = [13, 29][: len(symbols)]
    evaluator = Evaluator(random_potential(level, species))
    for repeat in ((1, 1, 1), (2, 2, 3)):
        structure = from_atoms(distorted(3, repeat, symbols))[0]
        evaluator.predict_structure(structure, species)
        rows, whole = evaluator.rows(), evaluator.gradient()
        assert rows.shape == (len(structure.numbers), evaluator.parameters)
        np.testing.assert_allclose(rows.sum(axis=0), whole, rtol=1e-9, atol=1e-11 * np.abs(whole).max())


def test_a_row_of_an_atom_is_the_slope_of_what_it_adds_to_the_energy() -> None:
    """V is linear in moment and species coefficients; of the others, the sum over equal atoms tells."""
    potential = random_potential(8, [13, 29])
    evaluator = Evaluator(potential)
    structure = from_atoms(distorted(5, (1, 1, 2), ["Al", "Cu"]))[0]
    seen = evaluator.predict_structure(structure, [13, 29])
    rows = evaluator.rows()
    linear = len(np.asarray(potential.moment_coeffs)) + 2
    theta = np.concatenate([np.asarray(potential.moment_coeffs), np.asarray(potential.species_coeffs)])
    assert (rows[:, :linear] @ theta).sum() == pytest.approx(seen.energy, rel=1e-10)
    types = types_of(structure.numbers, [13, 29])
    np.testing.assert_array_equal(rows[:, linear - 2 : linear], np.eye(2)[types])
    radial = rows[:, linear:].reshape(2, 2, 2, -1, 7)  # atoms, then type of the atom
    for atom, kind in enumerate(types):
        assert not radial[atom, 1 - kind].any()


def test_many_blocks_of_atoms_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(random_potential(8, [13, 29]))
    evaluator.predict_structure(from_atoms(distorted(3, (2, 2, 3), ["Al", "Cu"]))[0], [13, 29])
    whole = evaluator.rows()
    monkeypatch.setattr("tasks.mtp.energy_gradient._BLOCK", 5)
    np.testing.assert_allclose(evaluator.rows(), whole, rtol=1e-10, atol=1e-12 * np.abs(whole).max())


def test_no_neighbourhood_of_the_training_set_is_extrapolated_on_however_it_is_cut(tmp_path: Path) -> None:
    t = trained()
    structures = [sample.structure for sample in read_samples(t.root / "train.cfg", ["Al"])]
    evaluator = Evaluator(t.potential)
    rows, whose = [], []
    for index, structure in enumerate(structures):
        evaluator.predict_structure(structure, AL)
        rows.append(evaluator.rows())
        whose += [(index, atom) for atom in range(len(structure.numbers))]
    everything = np.concatenate(rows)
    whole = build_of_neighbourhoods(evaluator, structures, AL)
    np.testing.assert_array_equal(whole.matrix, build(everything, t.potential).matrix)  # as MLIP-3 would
    volumes = []
    for active in (whole, build_of_neighbourhoods(evaluator, structures, AL, block_bytes=8 * 18 * 20)):
        assert active.grades(everything).max() <= SWAP_THRESHOLD + 1e-6
        assert active.atoms is not None
        for row, index, atom in zip(active.matrix, active.indices, active.atoms, strict=True):
            assert (index >= 0) == (atom >= 0)
            if index >= 0:
                np.testing.assert_allclose(row, everything[whose.index((index, atom))], rtol=1e-9)
        volumes.append(np.linalg.slogdet(active.matrix)[1])
        save_active_set(tmp_path / "active-nbh.npz", active)
        again = load_active_set(tmp_path / "active-nbh.npz", t.potential, neighbourhoods=True)
        np.testing.assert_array_equal(again.atoms, active.atoms)
    assert volumes[0] == pytest.approx(volumes[1], abs=1.5)  # two local maxima of the volume


def test_training_leaves_the_active_set_of_neighbourhoods_and_grades_by_it(tmp_path: Path) -> None:
    t = trained()
    facts = train(train_spec(start="pot.mtp", iterations=2, neighbourhoods=True), t.root, tmp_path)
    assert 0 < facts["active_neighbourhoods"] <= facts["parameters"]
    kind = model("motep")
    by_atom = kind.grader(tmp_path, AL, "neighbourhood")
    by_cell = kind.grader(tmp_path, AL, "configuration")
    known = read_samples(t.root / "train.cfg", ["Al"])[3].structure
    far = labelled(1, 9)[0].structure
    far = type(far)(
        far.numbers,
        tuple((0.75 * x, 0.75 * y, 0.75 * z) for x, y, z in far.positions),
        tuple((0.75 * x, 0.75 * y, 0.75 * z) for x, y, z in far.cell),
        far.pbc,
    )
    for grader in (by_atom, by_cell):
        predict_structure(grader, known, AL)
        assert grader.grade() <= SWAP_THRESHOLD + 1e-6
        predict_structure(grader, far, AL)
        assert grader.grade() > 2.0
    assert by_cell.grades_of_atoms() is None
    grades = by_atom.grades_of_atoms()
    assert grades is not None
    assert grades.shape == (len(far.numbers),)
    assert by_atom.grade() == grades.max()


def test_active_sets_are_not_taken_for_each_other(tmp_path: Path) -> None:
    t = trained()
    for name in ("pot.mtp", "active.npz"):
        (tmp_path / name).write_bytes((t.root / name).read_bytes())
    kind = model("motep")
    with pytest.raises(MissingError, match="no active set"):
        kind.grader(tmp_path, AL, "neighbourhood")
    (tmp_path / "active-nbh.npz").write_bytes((t.root / "active.npz").read_bytes())
    with pytest.raises(InputError, match="active set of configurations, not of neighbourhoods"):
        kind.grader(tmp_path, AL, "neighbourhood")
    with pytest.raises(InputError, match="gives no grade"):
        kind.grader(tmp_path, AL, "committee")
