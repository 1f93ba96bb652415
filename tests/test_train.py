"""Training gets better and says so, starts warm, stops softly, and repeats itself exactly."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_mtp import AL, labelled, run_step, train_spec, trained

from db.errors import InputError
from db.records import Label, Resources
from db.states import Verdict
from tasks.engines.motep import ENGINE
from tasks.formats.mtp import read_potential, write_potential
from tasks.mtp.basis import untrained
from tasks.mtp.data_sets import Sample, read_labelled, write_samples
from tasks.mtp.errors_of_fit import Difference, Weights, differences, errors_of, loss_of
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.motep_fit import Fit
from tasks.mtp.training import train
from tasks.protocol import Cause, Exit, Work


def test_a_fit_from_nothing_is_good_and_complete() -> None:
    t = trained()
    facts = t.facts
    assert facts["configurations"] == 40
    assert facts["iterations"] <= 40
    assert facts["parameters"] == Evaluator(t.potential).parameters
    assert facts["train"]["rmse_energy_per_atom"] < 0.01
    assert facts["holdout"]["rmse_force_component"] < 0.1
    assert facts["holdout_before"] is None
    assert facts["worse"] is False
    assert facts["stopped"] is False
    json.dumps(facts, allow_nan=False)


def test_our_loss_is_the_one_that_was_minimised() -> None:
    t = trained()
    pairs = read_labelled(t.root / "train.cfg", ["Al"])
    mine = loss_of(differences(Evaluator(t.potential), pairs, AL), Weights())
    assert mine == pytest.approx(t.facts["loss"], rel=1e-6)


def shifted(samples: list[Sample], by: float) -> list[Sample]:
    moved = []
    for sample in samples:
        assert sample.label is not None
        energy = sample.label.energy + by * len(sample.structure.numbers)
        moved.append(Sample(sample.structure, Label(energy, sample.label.forces, sample.label.stress)))
    return moved


def test_thousands_of_ev_an_atom_make_no_difference(tmp_path: Path) -> None:
    samples = labelled(12, 5)
    losses = []
    for offset in (0.0, -200.0, -6000.0):
        write_samples(tmp_path / "train.cfg", shifted(samples, offset), ["Al"])
        facts = train(train_spec(holdout=None, level=4, iterations=5), tmp_path, tmp_path)
        losses.append(facts["loss"])
        potential = read_potential(tmp_path / "pot.mtp")
        assert facts["holdout"] is None
        assert facts["train"]["rmse_energy_per_atom"] == pytest.approx(math.sqrt(losses[-1]), rel=2.0)
        assert potential.species_coeffs is not None
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_warm_start_keeps_min_dist_and_never_makes_the_loss_larger(tmp_path: Path) -> None:
    t = trained()
    before = loss_of(differences(Evaluator(t.potential), read_labelled(t.root / "train.cfg", ["Al"]), AL), Weights())
    facts = train(train_spec(start="pot.mtp", iterations=5, min_dist=1.5), t.root, tmp_path)
    assert facts["loss"] <= before * (1.0 + 1e-9)
    assert read_potential(tmp_path / "pot.mtp").radial_basis.min == t.potential.radial_basis.min
    assert facts["holdout_before"] == pytest.approx(t.facts["holdout"])
    pairs = read_labelled(t.root / "holdout.cfg", ["Al"])
    after = loss_of(differences(Evaluator(open_potential(tmp_path / "pot.mtp", AL)), pairs, AL), Weights())
    earlier = loss_of(differences(Evaluator(t.potential), pairs, AL), Weights())
    assert facts["worse"] is (after > earlier)


def test_worse_on_the_holdout_is_said(tmp_path: Path) -> None:
    t = trained()
    # a training set that says something else than the holdout
    write_samples(tmp_path / "train.cfg", [odd(sample) for sample in labelled(12, 5)], ["Al"])
    spec = train_spec(start=str(t.root / "pot.mtp"), iterations=8, holdout=str(t.root / "holdout.cfg"))
    assert train(spec, tmp_path, tmp_path)["worse"] is True


def odd(sample: Sample) -> Sample:
    assert sample.label is not None
    forces = tuple((2.0 * x, 2.0 * y, 2.0 * z) for x, y, z in sample.label.forces)
    return Sample(sample.structure, Label(2.0 * sample.label.energy, forces, None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": 8}, "level"),
        ({"max_dist": 6.0}, "cutoff"),
        ({"radial_basis_size": 7}, "size of the radial basis"),
        ({"species": ["Al", "Cu"]}, "number of species"),
    ],
)
def test_another_kind_of_start_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="the start has another") as raised:
        train(train_spec(start="pot.mtp", **changes), trained().root, tmp_path)
    assert words in str(raised.value)


def test_sets_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "train.cfg", [], ["Al"])
    with pytest.raises(InputError, match="no configuration"):
        train(train_spec(holdout=None), tmp_path, tmp_path)
    write_samples(tmp_path / "train.cfg", [Sample(labelled(1, 1)[0].structure)], ["Al"])
    with pytest.raises(InputError, match="configuration 1 has no energy"):
        train(train_spec(holdout=None), tmp_path, tmp_path)
    write_potential(tmp_path / "raw.mtp", untrained(6, 1, 2.0, 5.5, 6))
    write_samples(tmp_path / "train.cfg", labelled(3, 1), ["Al"])
    with pytest.raises(InputError, match="not trained"):
        train(train_spec(holdout=None, start="raw.mtp"), tmp_path, tmp_path)


def test_some_without_stress_are_no_trouble() -> None:
    samples = labelled(6, 9)
    pairs = []
    for number, sample in enumerate(samples):
        assert sample.label is not None
        stress = None if number % 2 == 0 else sample.label.stress
        pairs.append((sample.structure, Label(sample.label.energy, sample.label.forces, stress)))
    potential = untrained(4, 1, 2.0, 5.0, 5)
    fit = Fit(potential, pairs, AL, Weights())
    fit.from_level_2(1)
    fit.linear()
    loss = fit.loss()
    fit.finish()
    assert loss_of(differences(Evaluator(potential), pairs, AL), Weights()) == pytest.approx(loss, rel=1e-6)


def test_balancing_changes_no_energy() -> None:
    pairs = read_labelled(trained().root / "train.cfg", ["Al"])
    potential = untrained(6, 1, 2.0, 5.5, 6)
    fit = Fit(potential, pairs, AL, Weights())
    fit.from_level_2(4)
    before, loss = copy.deepcopy(potential), fit.loss()
    fit._balance()
    assert potential.scaling == pytest.approx(before.scaling)
    assert fit.loss() == pytest.approx(loss, rel=1e-9)


def test_the_process_does_the_same_every_time_and_stops_softly(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        where = tmp_path / name
        where.mkdir()
        code, result, text = run_step("train", train_spec(iterations=4, level=4), where, trained().root)
        assert code == 0, text
        assert "holdout" in text
        texts.append((where / "pot.mtp").read_text())
        assert ENGINE.judge(Work(trained().root, where, 5, {}), Exit(code=0)).verdict is Verdict.DONE
        assert ENGINE.judge(Work(trained().root, where, 5, {}), Exit(cause=Cause.LOST)).verdict is Verdict.DONE
        assert ENGINE.judge(Work(trained().root, where, 6, {}), Exit(code=0)).verdict is Verdict.CRASHED
    assert texts[0] == texts[1]
    where = tmp_path / "c"
    where.mkdir()
    work = Work(trained().root, where, 5, {})
    assert ENGINE.stop_softly(work)
    code, result, text = run_step("train", train_spec(iterations=10_000), where, trained().root)
    assert code == 0, text
    assert result["facts"]["stopped"] is True
    assert result["facts"]["iterations"] == 0
    assert not (where / "pot.mtp").exists()
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.INTERRUPTED
    assert (where / "checkpoint").stat().st_size > 0
    open_potential(where / "pot.partial.mtp", AL)


def test_judging_ends_without_a_result(tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path, 5, {})
    (tmp_path / "stderr").write_text("Traceback\n\nValueError: something broke\n")
    for end, verdict in (
        (Exit(code=1), Verdict.CRASHED),
        (Exit(signal=11), Verdict.CRASHED),
        (Exit(code=0), Verdict.CRASHED),
        (Exit(code=6), Verdict.INFRASTRUCTURE),
        (Exit(signal=9, cause=Cause.TIMEOUT), Verdict.TIMEOUT),
        (Exit(signal=9, cause=Cause.MEMORY), Verdict.OUT_OF_MEMORY),
        (Exit(signal=15, cause=Cause.DRAIN), Verdict.INTERRUPTED),
        (Exit(cause=Cause.LOST), Verdict.INTERRUPTED),
        (Exit(signal=15, cause=Cause.CANCEL), Verdict.CANCELLED),
        (Exit(cause=Cause.NOT_STARTED, message="no"), Verdict.INFRASTRUCTURE),
    ):
        judged = ENGINE.judge(work, end)
        assert judged.verdict is verdict
        assert judged.reason
    assert "something broke" in ENGINE.judge(work, Exit(code=1)).reason
    (tmp_path / "result.json").write_text('{"attempt_id": 5, "facts": {"loss": 1.0}}')
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.CRASHED  # pot.mtp is missing
    (tmp_path / "result.json").write_text('{"attempt_id": 5, "fac')
    assert ENGINE.judge(work, Exit(code=0)).verdict is Verdict.CRASHED


def test_prepare_writes_the_task_and_asks_for_one_thread(tmp_path: Path) -> None:
    (tmp_path / "stop").write_text("")
    command = ENGINE.prepare(Work(tmp_path, tmp_path, 5, train_spec(), Resources(threads=4)))
    assert command.argv[1:] == ("-P", "-m", "tasks.steps")
    assert command.env["OMP_NUM_THREADS"] == "1"
    assert not (tmp_path / "stop").exists()
    assert json.loads((tmp_path / "task.json").read_text())["attempt_id"] == 5
    with pytest.raises(InputError, match="has no train"):
        ENGINE.prepare(Work(tmp_path, tmp_path, 5, {"level": 8}))
    assert ENGINE.find({}).ok


def test_error_measures_by_hand() -> None:
    one = Difference(0.3, np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]), np.full(6, 0.1), 10.0)
    two = Difference(-0.1, np.array([[0.0, 0.0, 1.0]]), None, 10.0)
    errors = errors_of([one, two])
    assert errors is not None
    assert errors["n"] == 2
    assert errors["eps_F"] == pytest.approx((math.sqrt(12.5) + 1.0) / 2.0)
    assert errors["eps_E"] == pytest.approx(0.2)
    assert errors["eps_E_per_atom"] == pytest.approx((0.15 + 0.1) / 2.0)
    assert errors["rmse_energy_per_atom"] == pytest.approx(math.sqrt((0.15**2 + 0.01) / 2.0))
    assert errors["rms_force_vector"] == pytest.approx(math.sqrt(26.0 / 3.0))
    assert errors["rmse_force_component"] == pytest.approx(math.sqrt(26.0 / 9.0))
    assert errors["rmse_stress"] == pytest.approx(0.1)
    assert errors["max_force"] == pytest.approx(5.0)
    assert errors_of([]) is None
    bare = errors_of([two])
    assert bare is not None
    assert bare["rmse_stress"] is None
