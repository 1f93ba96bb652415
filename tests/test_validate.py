"""Lattice parameter, equation of state, elastic constants, errors on sets and error bars, against EMT's own."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa
from fixtures_mtp import AL, aluminium, labelled, train_spec, trained
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from db.errors import InputError
from db.records import Structure
from db.states import Verdict
from pilot.campaign.elastic_cells import elastic_cells
from tasks.engines.evaluate import ENGINE
from tasks.formats.atoms import from_atoms, to_atoms
from tasks.mtp.data_sets import Sample, write_samples
from tasks.mtp.errors_of_fit import Difference
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.training import train
from tasks.protocol import Exit, Work
from tasks.validation import evaluating, parity
from tasks.validation.cells import scaled
from tasks.validation.curve import Curve, Points, apart, fit_curve, lattice_parameter, relax
from tasks.validation.error_bars import half_width
from tasks.validation.evaluating import evaluate
from tasks.validation.sets import Seen, correlation


def by_emt(structure: Structure, **features: str) -> Sample:
    atoms = to_atoms(structure)
    atoms.calc = EMT()
    atoms.get_stress()
    return Sample(structure, from_atoms(atoms)[1], features)


def eos_points(scales: list[float]) -> list[Sample]:
    return [by_emt(aluminium((1, 1, 1), 4.0 * scale)) for scale in scales]


def spec(**changes: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "potential": "pot.mtp",
        "holdout": "holdout.cfg",
        "species": ["Al"],
        "eos": "eos.cfg",
        "lattice": {"structure": aluminium((1, 1, 1), 4.1).to_json()},
    }
    return asked | changes


def test_lattice_and_equation_of_state_are_near_those_of_the_reference(tmp_path: Path) -> None:
    t = trained()
    write_samples(t.root / "eos.cfg", eos_points([1.03, 0.96, 0.98, 1.0, 1.01, 0.99, 1.05]), ["Al"])
    facts = evaluate(spec(), t.root, tmp_path)
    assert facts["holdout"] == pytest.approx(t.facts["holdout"])
    assert facts["lattice_parameter_dft"] == pytest.approx(3.995, abs=0.01)  # ASE gives 3.994 for EMT
    assert facts["lattice_parameter"] == pytest.approx(facts["lattice_parameter_dft"], abs=0.03)
    assert facts["bulk_modulus_dft"] == pytest.approx(40.0, abs=6.0)
    assert facts["bulk_modulus"] == pytest.approx(facts["bulk_modulus_dft"], rel=0.4)
    eos = facts["eos"]
    assert eos["volumes"] == sorted(eos["volumes"])
    np.testing.assert_allclose(eos["energies"], eos["energies_dft"], atol=0.05)
    assert eos["volumes"][2] == pytest.approx((4.0 * 0.99) ** 3 / 4.0)


def test_without_lattice_the_points_give_the_shape(tmp_path: Path) -> None:
    t = trained()
    write_samples(t.root / "eos.cfg", eos_points([0.97, 0.98, 0.99, 1.0, 1.02]), ["Al"])
    facts = evaluate(spec(lattice=None, holdout=None), t.root, tmp_path)
    assert facts["lattice_parameter"] == pytest.approx(4.0, abs=0.05)
    assert facts["holdout"] is None


def test_nothing_asked_nothing_given(tmp_path: Path) -> None:
    facts = evaluate(spec(lattice=None, holdout=None, eos=None), trained().root, tmp_path)
    assert set(facts.values()) == {None}


def test_no_minimum_is_none_with_a_reason(tmp_path: Path) -> None:
    facts = evaluate(
        spec(lattice={"structure": aluminium((1, 1, 1), 2.0).to_json()}, eos=None), trained().root, tmp_path
    )
    assert facts["lattice_parameter"] is None
    assert "no minimum" in facts["reason"]


def test_a_lattice_that_is_not_periodic_is_refused(tmp_path: Path) -> None:
    structure = aluminium((1, 1, 1)).to_json() | {"pbc": [True, True, False]}
    with pytest.raises(InputError, match="periodic"):
        evaluate(spec(lattice={"structure": structure}, eos=None), trained().root, tmp_path)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (from_atoms(bulk("Al", "fcc", a=4.0))[0], 4.0),
        (from_atoms(bulk("Al", "fcc", a=4.0, cubic=True))[0], 4.0),
        (from_atoms(bulk("Li", "bcc", a=3.4))[0], 3.4),
        (from_atoms(bulk("Mg", "hcp", a=3.2, c=5.2))[0], 3.2),
    ],
)
def test_the_lattice_parameter_is_the_conventional_one(structure: Structure, expected: float) -> None:
    volume = abs(np.linalg.det(np.array(structure.cell))) / len(structure.numbers)
    assert lattice_parameter(structure, volume) == pytest.approx(expected)
    assert lattice_parameter(structure, 1.331 * volume) == pytest.approx(1.1 * expected)
    assert lattice_parameter(scaled(structure, 1.3), volume) == pytest.approx(expected)


def test_the_minimum_is_where_the_pressure_is_zero() -> None:
    evaluator = Evaluator(trained().potential)
    structure = aluminium((1, 1, 1), 4.05)
    curve, reason = relax(evaluator, structure, AL)
    assert curve is not None, reason
    at_rest = scaled(structure, (4.0 * curve.volume) ** (1.0 / 3.0) / 4.05)
    assert np.abs(evaluator.predict_structure(at_rest, AL).stress[:3]).max() < 1e-6


def test_curves_that_cannot_be_fitted() -> None:
    volumes = [15.0, 16.0, 17.0, 18.0, 19.0]
    assert fit_curve(volumes[:4], [0.1, 0.0, 0.1, 0.2]) is None
    assert fit_curve(volumes, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert fit_curve(volumes, [0.0, 0.3, 0.4, 0.3, 0.0]) is None
    curve = fit_curve(volumes, [0.4, 0.1, 0.0, 0.1, 0.4])
    assert curve is not None
    assert curve.volume == pytest.approx(17.0, abs=0.3)


def test_the_two_curves_are_compared_each_from_its_own_minimum(tmp_path: Path) -> None:
    points = Points([15.0, 16.0, 17.0], [-1.0, -1.2, -1.0], [5.0, 4.7, 5.01])
    mine, reference = Curve(16.0, 70.0, -1.2), Curve(16.1, 75.0, 4.7)
    assert apart(points, mine, reference) == pytest.approx(0.11)
    t = trained()
    write_samples(t.root / "eos.cfg", eos_points([0.97, 0.98, 0.99, 1.0, 1.02]), ["Al"])
    facts = evaluate(spec(), t.root, tmp_path)
    assert 0.0 < facts["curve_difference"] < 0.02
    # fitted to the same points, the two are alike in what the fit makes of them
    assert facts["bulk_modulus_at_reference"] == pytest.approx(facts["bulk_modulus_dft"], rel=0.4)


def test_elastic_constants_stand_beside_those_of_the_reference(tmp_path: Path) -> None:
    t = trained()
    cells = [by_emt(cell) for cell, _ in elastic_cells(aluminium((1, 1, 2), 3.98), 0.01)]
    write_samples(t.root / "elastic.cfg", cells, ["Al"])
    facts = evaluate(spec(holdout=None, eos=None, elastic="elastic.cfg"), t.root, tmp_path)
    mine, theirs = facts["elastic_at_reference"], facts["elastic_dft"]
    assert list(mine) == list(theirs) == list(facts["elastic"]) == ["C11", "C12", "C44"]
    # EMT's own at its own minimum are 53.3, 32.9, 36.2 GPa
    assert theirs == pytest.approx({"C11": 54.4, "C12": 33.7, "C44": 37.2}, abs=0.3)
    assert facts["elastic_difference"] == pytest.approx(max(abs(mine[name] - theirs[name]) for name in mine))
    # so far off is so small a fit
    assert facts["elastic_difference"] < 12.0
    assert facts["elastic"] == pytest.approx(mine, abs=6.0)
    assert facts["elastic_clamped"] is False
    found = facts["elastic_moduli"]
    assert set(found) == {"elastic", "elastic_at_reference", "elastic_dft"}
    assert found["elastic_dft"]["bulk"] == pytest.approx((theirs["C11"] + 2 * theirs["C12"]) / 3)
    assert found["elastic"]["stable"] is True
    assert "elastic_reason" not in facts


def test_elastic_constants_that_cannot_be_had_are_none_with_a_reason(tmp_path: Path) -> None:
    t = trained()
    cells = [by_emt(cell) for cell, _ in elastic_cells(aluminium((1, 1, 1), 3.98), 0.01)]
    write_samples(t.root / "few.cfg", cells[:3], ["Al"])
    facts = evaluate(spec(holdout=None, eos=None, elastic="few.cfg"), t.root, tmp_path)
    assert facts["elastic"] is not None
    assert facts["elastic_dft"] is facts["elastic_at_reference"] is facts["elastic_difference"] is None
    assert "too few" in facts["elastic_reason"]
    assert cells[0].label is not None
    without = [Sample(c.structure, replace(c.label, stress=None)) for c in cells if c.label]
    write_samples(t.root / "without.cfg", without, ["Al"])
    facts = evaluate(spec(holdout=None, eos=None, elastic="without.cfg"), t.root, tmp_path)
    assert "no strained cell has a stress" in facts["elastic_reason"]
    collapsed = {"structure": aluminium((1, 1, 1), 2.0).to_json()}
    facts = evaluate(spec(holdout=None, eos=None, lattice=collapsed, elastic_strain=0.01), t.root, tmp_path)
    assert facts["elastic"] is None
    assert "no minimum" in facts["elastic_reason"]


def graded(count: int) -> list[Sample]:
    """A sample of which the database gave the ids and the exploration the grades."""
    return [
        Sample(one.structure, one.label, {"structure": str(100 + k), "MV_grade": f"{0.1 + k}"})
        for k, one in enumerate(labelled(count, 5))
    ]


def test_each_set_has_its_errors_and_its_place_in_the_parity_file(tmp_path: Path) -> None:
    t = trained()
    write_samples(t.root / "sample.cfg", graded(6), ["Al"])
    asked = spec(train="train.cfg", test="holdout.cfg", sample="sample.cfg", lattice=None, eos=None)
    facts = evaluate(asked, t.root, tmp_path)
    assert facts["test"] == facts["holdout"] == pytest.approx(t.facts["holdout"])
    assert facts["train"] == pytest.approx(t.facts["train"])
    assert facts["sample"]["n"] == facts["sample_correlation"]["n"] == 6
    assert facts["seconds_per_atom_step"] > 0.0
    with np.load(tmp_path / "parity.npz") as file:
        arrays = dict(file)
    assert {name.split("_")[0] for name in arrays} == {"train", "holdout", "test", "sample"}
    assert [name for name in arrays if name.endswith("gamma")] == ["sample_gamma"]
    assert arrays["sample_id"].tolist() == [str(100 + k) for k in range(6)]
    assert arrays["sample_gamma"] == pytest.approx([0.1 + k for k in range(6)])
    assert len(set(arrays["holdout_id"].tolist())) == 8
    assert arrays["train_atoms"].tolist() == [2] * 30 + [4] * 10
    forces, energy = arrays["holdout_forces"], arrays["holdout_energy"]
    assert forces.shape == (8 * 2 * 3, 2)
    assert arrays["holdout_stress"].shape == (8 * 6, 2)
    rms = float(np.sqrt(np.mean((forces[:, 1] - forces[:, 0]) ** 2)))
    assert rms == pytest.approx(facts["holdout"]["rmse_force_component"], rel=1e-4)
    assert np.abs(energy[:, 1] - energy[:, 0]).mean() == pytest.approx(facts["holdout"]["eps_E_per_atom"])
    assert arrays["holdout_eps_F"].mean() == pytest.approx(facts["holdout"]["eps_F"], rel=1e-4)
    assert arrays["holdout_eps_E"].mean() == pytest.approx(facts["holdout"]["eps_E"], rel=1e-4)
    stress = arrays["holdout_stress"]
    rms = float(np.sqrt(np.mean((stress[:, 1] - stress[:, 0]) ** 2)))
    assert rms * GPa == pytest.approx(facts["holdout"]["rmse_stress"], rel=1e-4)


def seen_with(gammas: list[float], errors: list[float]) -> list[Seen]:
    one = labelled(1, 4)[0]
    assert one.label is not None
    return [
        Seen(one.structure, one.label, Difference(e, np.full((2, 3), e), None, 1.0), g, "1")
        for g, e in zip(gammas, errors, strict=True)
    ]


def test_errors_that_grow_with_the_grade_correlate_with_it() -> None:
    found = correlation(seen_with([0.1, 1.0, 10.0, math.nan], [0.01, 0.1, 1.0, 7.0]))
    assert found == pytest.approx(
        {"n": 3, "spearman_eps_F": 1, "pearson_log_eps_F": 1, "spearman_eps_E": 1, "pearson_log_eps_E": 1}
    )
    found = correlation(seen_with([1.0, 2.0, 2.0, 3.0], [4.0, 3.0, 2.0, 1.0]))
    assert found is not None
    assert found["spearman_eps_F"] == pytest.approx(spearmanr([1, 2, 2, 3], [4, 3, 2, 1]).statistic)
    assert correlation(seen_with([math.nan], [1.0])) is None
    few = correlation(seen_with([1.0, 2.0], [1.0, 2.0]))
    assert few is not None
    assert few["spearman_eps_F"] is None
    same = correlation(seen_with([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert same is not None
    assert same["pearson_log_eps_E"] is None


def test_only_some_forces_of_a_large_set_are_kept_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_FORCES", 10)
    seen = seen_with([1.0] * 8, [float(k) for k in range(8)])
    for name in ("one.npz", "two.npz"):
        parity.write_parity(tmp_path / name, {"train": seen})
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert one["train_forces"].shape == (10, 2)
        assert one["train_energy"].shape == (8, 2)
        assert "train_stress" not in one
        np.testing.assert_array_equal(one["train_forces"], two["train_forces"])


def test_of_a_large_training_set_a_part_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "MOST_ATOMS", {"train": 40})
    asked = spec(train="train.cfg", test="train.cfg", holdout=None, lattice=None, eos=None)
    facts = evaluate(asked, trained().root, tmp_path)
    assert facts["train"]["n"] == 14  # every third of 40, as they have 100 atoms
    assert facts["test"]["n"] == 40


def test_an_ensemble_gives_error_bars(tmp_path: Path) -> None:
    t = trained()
    (t.root / "m1").mkdir(exist_ok=True)
    train(train_spec(seed=2, iterations=3), t.root, t.root / "m1")
    members = ["pot.mtp", "m1/pot.mtp", "m2/pot.mtp"]
    facts = evaluate(spec(eos=None, members=members, elastic_strain=0.01), t.root, tmp_path)
    found, bars = facts["members"], facts["error_bars"]
    assert set(found) == {"eps_F", "eps_E_per_atom", "lattice_parameter", "bulk_modulus", "C11", "C12", "C44"}
    # the potential itself comes first and counts once; the last one was never trained
    assert found["eps_F"][0] == facts["holdout"]["eps_F"]
    assert found["C44"][0] == facts["elastic"]["C44"]
    assert all(len(values) == 3 and values[2] is None for values in found.values())
    a, b, _ = found["lattice_parameter"]
    assert bars["lattice_parameter"] == pytest.approx(12.7062 * abs(a - b) / 2, rel=1e-4)
    assert bars.keys() == found.keys()
    alone = evaluate(spec(eos=None, members=["pot.mtp"]), t.root, tmp_path)
    assert alone["members"] is alone["error_bars"] is None


def test_error_bars_are_those_of_students_t() -> None:
    # of five values: t = 2.7764 (any table)
    values = [466.0, 450.0, 470.0, 482.0, 462.0]
    assert half_width(values) == pytest.approx(2.7764 * np.std(values, ddof=1) / math.sqrt(5), rel=1e-4)
    assert half_width([1.0, None, math.nan]) is None
    assert half_width([]) is None
    assert half_width([1.0, 1.0]) == 0.0


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(0.1, 10), st.floats(-10, 10))
def test_error_bars_have_the_scale_of_the_values_and_no_origin(values: list[float], scale: float, shift: float) -> None:
    bar = half_width(values)
    moved = half_width([scale * value + shift for value in values])
    assert bar is not None
    assert moved == pytest.approx(scale * bar, rel=1e-6, abs=1e-6)


def test_another_kind_of_potential_is_asked_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ByPairs:
        file, files, optional, active_sets = "pot", ("pot",), (), False

        def open(self, path: Path, species: list[int], *, skin: float = 0.0) -> Evaluator:
            assert path == tmp_path / "pot"
            assert species == AL
            return Evaluator(trained().potential, skin=skin)

    monkeypatch.setattr(evaluating, "model", {"of-tests": ByPairs()}.__getitem__)
    facts = evaluate(spec(model="of-tests", potential="pot", holdout=None, eos=None), tmp_path, tmp_path)
    assert facts["lattice_parameter"] == pytest.approx(4.0, abs=0.05)


def test_a_set_that_is_not_labelled_or_empty_is_refused(tmp_path: Path) -> None:
    t = trained()
    write_samples(t.root / "bare.cfg", [Sample(aluminium((1, 1, 1)))], ["Al"])
    with pytest.raises(InputError, match="configuration 1 has no energy"):
        evaluate(spec(sample="bare.cfg"), t.root, tmp_path)
    write_samples(t.root / "empty.cfg", [], ["Al"])
    with pytest.raises(InputError, match="no configuration"):
        evaluate(spec(test="empty.cfg"), t.root, tmp_path)


def test_a_result_without_what_the_plots_need_is_none(tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path, 5, {})
    (tmp_path / "result.json").write_text('{"attempt_id": 5, "facts": {"holdout": null}}')
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.CRASHED
    parity.write_parity(tmp_path / "parity.npz", {})
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.DONE
