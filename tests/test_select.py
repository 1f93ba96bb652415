"""Selection: nonsense and doubles out first, then MaxVol, and never more than the active set can hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_mtp import AL, aluminium, labelled, run_step, trained

from db.errors import InputError
from db.records import Structure
from db.states import Verdict
from tasks.engines.maxvol import ENGINE
from tasks.mtp.active_set import SWAP_THRESHOLD, build, rows_of
from tasks.mtp.data_sets import Sample, read_samples, write_samples
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.selecting import select
from tasks.protocol import Exit, Work
from tasks.validation.cells import scaled


def spec(tmp_path: Path, samples: list[Sample], **changes: Any) -> dict[str, Any]:
    write_samples(tmp_path / "one.cfg", samples[::2], ["Al"])
    write_samples(tmp_path / "two.cfg", samples[1::2], ["Al"])
    asked: dict[str, Any] = {
        "potential": "pot.mtp",
        "active_set": "active.npz",
        "train": "train.cfg",
        "candidates": [str(tmp_path / "one.cfg"), str(tmp_path / "two.cfg")],
        "species": ["Al"],
        "method": "maxvol",
        "gamma_save": 2.1,
        "limit": None,
        "min_distance": 1.5,
        "volume_per_atom": [5.0, 40.0],
    }
    return asked | changes


def far_out(count: int) -> list[Sample]:
    """Cells unlike those of the training set."""
    rng = np.random.default_rng(8)
    samples = []
    for sample in labelled(count, 40, (1, 2, 2)):
        structure = scaled(sample.structure, rng.uniform(0.97, 1.12))
        samples.append(Sample(structure, features={"step": "1"}))
    return samples


def test_maxvol_takes_those_that_enter(tmp_path: Path) -> None:
    t = trained()
    samples = far_out(60)
    facts = select(spec(tmp_path, samples), t.root, tmp_path)
    chosen = read_samples(tmp_path / "selected.cfg", ["Al"])
    assert facts["candidates"] == 60
    assert 0 < len(chosen) == facts["selected"] <= t.facts["parameters"]
    assert facts["gamma_max"] > 1.0
    # with them in the training set none of the candidates is extrapolated on any more, or hardly
    train_set = [s.structure for s in read_samples(t.root / "train.cfg", ["Al"])]
    evaluator = Evaluator(t.potential)
    both = rows_of(evaluator, train_set + [s.structure for s in chosen], AL)
    rest = rows_of(evaluator, [s.structure for s in samples], AL)
    assert build(both, t.potential).grades(rest).max() < 2.0
    for sample in chosen:
        assert sample.features["source"] in {str(tmp_path / "one.cfg"), str(tmp_path / "two.cfg")}
        evaluator.predict_structure(sample.structure, AL)
        assert float(sample.features["MV_grade"]) == pytest.approx(t.active.grade(evaluator.row()), abs=1e-4)


def test_a_limit_keeps_the_highest(tmp_path: Path) -> None:
    samples = far_out(30)
    select(spec(tmp_path, samples), trained().root, tmp_path)
    everything = [float(s.features["MV_grade"]) for s in read_samples(tmp_path / "selected.cfg", ["Al"])]
    facts = select(spec(tmp_path, samples, limit=2), trained().root, tmp_path)
    kept = [float(s.features["MV_grade"]) for s in read_samples(tmp_path / "selected.cfg", ["Al"])]
    assert facts["selected"] == 2
    assert sorted(kept) == sorted(everything)[-2:]


def test_all_takes_what_is_above_the_limit(tmp_path: Path) -> None:
    t = trained()
    samples = far_out(40)
    facts = select(spec(tmp_path, samples, method="all", gamma_save=1.5), t.root, tmp_path)
    grades = t.active.grades(rows_of(Evaluator(t.potential), [s.structure for s in samples], AL))
    assert facts["selected"] == int((grades > 1.5).sum()) > 0


def test_nonsense_and_doubles_are_counted_and_left_out(tmp_path: Path) -> None:
    good = far_out(3)
    cube = ((4.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 4.0))
    close = Structure((13, 13), ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), cube)
    same_place = Structure((13, 13), ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)), cube)
    image = Structure((13,), ((0.0, 0.0, 0.0),), ((1.2, 0.0, 0.0), (0.0, 5.0, 0.0), (0.0, 0.0, 6.0)))
    huge = scaled(aluminium((1, 1, 2)), 3.0)
    flat = Structure((13,), ((0.0, 0.0, 0.0),), ((4.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 0.0)))
    known = read_samples(trained().root / "train.cfg", ["Al"])[0]
    samples = [*good, good[0], known, *(Sample(s) for s in (close, same_place, image, huge, flat))]
    facts = select(spec(tmp_path, samples), trained().root, tmp_path)
    assert facts["candidates"] == 10
    assert facts["too_close"] == 3
    assert facts["bad_volume"] == 2
    assert facts["duplicates"] == 2
    # with no filter at all the impossible ones still do no harm
    facts = select(spec(tmp_path, samples, min_distance=None, volume_per_atom=None), trained().root, tmp_path)
    assert np.isfinite(facts["gamma_max"])


def test_nothing_to_choose_from_is_fine(tmp_path: Path) -> None:
    code, result, text = run_step("select", spec(tmp_path, []), tmp_path, trained().root)
    assert code == 0, text
    facts = result["facts"]
    assert (facts["candidates"], facts["selected"], facts["gamma_max"]) == (0, 0, 0.0)
    assert read_samples(tmp_path / "selected.cfg", ["Al"]) == []
    judged = ENGINE.judge(Work(trained().root, tmp_path, 5, {}), Exit(code=0))
    assert judged.verdict is Verdict.DONE
    assert not ENGINE.stop_softly(Work(trained().root, tmp_path, 5, {}))


def test_the_training_set_itself_adds_nothing(tmp_path: Path) -> None:
    again = [Sample(scaled(s.structure, 1.0 + 1e-6)) for s in read_samples(trained().root / "train.cfg", ["Al"])]
    facts = select(spec(tmp_path, again), trained().root, tmp_path)
    assert facts["selected"] == 0
    assert facts["gamma_max"] < SWAP_THRESHOLD + 1e-3


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no method"):
        select(spec(tmp_path, [], method="best"), trained().root, tmp_path)
    with pytest.raises(InputError):
        select(spec(tmp_path, [], candidates=["nowhere.cfg"]), trained().root, tmp_path)
