"""Lattice parameter, bulk modulus and equation of state, against EMT's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from fixtures_mtp import AL, aluminium, trained

from db.errors import InputError
from db.records import Label, Structure
from db.states import Verdict
from tasks.engines.evaluate import ENGINE
from tasks.formats.atoms import from_atoms
from tasks.mtp.data_sets import Sample, write_samples
from tasks.mtp.evaluator import Evaluator
from tasks.protocol import Exit, Work
from tasks.validation.cells import scaled
from tasks.validation.curve import fit_curve, lattice_parameter, relax
from tasks.validation.evaluating import evaluate


def eos_points(scales: list[float]) -> list[Sample]:
    samples = []
    for scale in scales:
        atoms = bulk("Al", "fcc", a=4.0 * scale)
        atoms.calc = EMT()
        forces = atoms.get_forces()[0]
        label = Label(atoms.get_potential_energy(), ((forces[0], forces[1], forces[2]),), None)
        samples.append(Sample(from_atoms(atoms)[0], label))
    return samples


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


def test_the_engine_needs_no_file_but_the_result(tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path, 5, {})
    (tmp_path / "result.json").write_text('{"attempt_id": 5, "facts": {"holdout": null}}')
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.DONE
