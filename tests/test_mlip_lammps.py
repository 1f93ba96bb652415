"""Explorations by LAMMPS with MLIP's pair style: the same results as by pilot's own, and no silent ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_mtp import AL, LATTICE, aluminium, explore_spec, trained
from mlip_programs import put_on_path

from db.errors import InputError, MissingError
from tasks.engines.lammps_mlip_input import Control, input_file, settings_file
from tasks.engines.lammps_mlip_read import read_end, read_frames
from tasks.engines.lammps_mlip_run import explore
from tasks.engines.mlip_output import MlipError, Said
from tasks.formats.almtp import read_active_set
from tasks.mtp.data_sets import read_samples
from tasks.mtp.dynamics import Dynamics, Melt
from tasks.mtp.selecting import select
from tasks.protocol import Work
from tasks.registry import engine

SETTINGS = {"command": "lmp", "style": "mlip-3"}


def spec(**changes: Any) -> dict[str, Any]:
    """Thirty steps; as a crystal at rest it knows all that it meets."""
    small = {"structure": aluminium((1, 1, 2)).to_json(), "steps": 30, "settings": SETTINGS}
    return explore_spec(**(small | changes))


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_on_path(tmp_path / "bin", monkeypatch)
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_a_run_leaves_what_pilots_own_lammps_leaves_and_selection_takes_it(where: Path) -> None:
    root = trained().root
    facts = explore(spec(gamma_save=0.5, sample={"count": 5, "gamma": [0.0, 2.0]}, max_saved=7), root, where)
    json.dumps(facts, allow_nan=False)
    assert {"steps", "steps_wanted", "broke", "broke_by", "stopped", "saved", "above_save", "seconds"} <= facts.keys()
    assert {"above_break", "gamma_max", "gamma_mean", "gamma_std", "gamma_every"} <= facts.keys()
    assert (facts["steps"], facts["steps_wanted"], facts["broke"], facts["stopped"]) == (30, 30, False, False)
    record = json.loads((where / "gamma.json").read_text())
    assert {"edges", "counts", "window", "steps", "gamma", "mean", "std", "max", "every"} <= record.keys()
    assert sum(record["counts"]) == 31
    saved = read_samples(where / "preselected.cfg", ["Al"])
    assert len(saved) == facts["saved"] == min(7, facts["above_save"])
    grades = [float(sample.features["MV_grade"]) for sample in saved]
    assert min(grades) > 0.5
    assert max(grades) <= facts["gamma_max"] <= 2.1
    # the vectors are those that were given: a k-grid belongs to them
    given = np.array(aluminium((1, 1, 2)).cell)
    assert np.linalg.norm(np.array(saved[0].structure.cell), axis=1) == pytest.approx(np.linalg.norm(given, axis=1))
    assert len(read_samples(where / "sample.cfg", ["Al"])) == facts["sampled"] == 5
    wish = {"potential": "pot.mtp", "active_set": "active.npz", "train": "train.cfg", "species": ["Al"]}
    wish |= {"candidates": [str(where / "preselected.cfg")], "method": "all", "gamma_save": 0.5}
    assert select(wish, root, where)["selected"] == len(saved)


def test_a_break_is_a_result_and_the_configuration_is_kept(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMP_RANKS", "1")
    # both thresholds the same: the library would not break at all
    facts = explore(spec(gamma_save=0.7, gamma_break=0.7, temperature=900.0, rattle=0.1), trained().root, where)
    assert (where / "preselected.mlip.cfg.0").is_file()
    assert facts["broke"] is True
    assert "is above 0.7" in facts["broke_by"]
    assert (facts["above_break"], facts["saved"]) == (1, 1)
    (kept,) = read_samples(where / "preselected.cfg", ["Al"])
    assert float(kept.features["MV_grade"]) == pytest.approx(facts["gamma_max"], rel=1e-5)


def test_a_file_ends_it_softly(where: Path) -> None:
    work = Work(trained().root, where, 3, spec())
    ours = engine("lammps-mlip")
    assert ours.prepare(work).argv[1:] == ("-P", "-m", "tasks.steps")
    assert json.loads((where / "task.json").read_text())["step"] == "explore-mlip"
    assert ours.stop_softly(work)
    facts = explore(spec(steps=200), trained().root, where)
    assert (facts["stopped"], facts["broke"]) == (True, False)
    assert facts["steps"] < 200


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("deaf", r"has not taken threshold_save = 0\.300000: it says 2\.000000"),
        ("stranger", "MLIP's γ of a saved configuration is"),
    ],
)
def test_a_plugin_that_does_not_do_as_it_is_told_is_noticed(
    where: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setenv("LMP_FAULT", fault)
    with pytest.raises(MlipError, match=words):
        explore(spec(gamma_save=0.3, steps=5), trained().root, where)


def test_mlip_2_is_given_a_settings_file_and_its_own_active_set(where: Path) -> None:
    root = trained().root
    with pytest.raises(MissingError, match=r'train with engine = "mlip-2"'):
        explore(spec(settings={"command": "lmp", "style": "mlip-2"}), root, where)
    text = settings_file(Control("mlip-2", "pot.mtp", "pot.als", 2.1, 10.0))
    assert "select:threshold-break 10.000000\n" in text
    assert "select:load-state pot.als\n" in text
    dynamics = Dynamics(300.0, None, "iso", 10, 1.0, 1)
    cell = np.eye(3) * LATTICE
    assert "pair_style mlip mlip.ini\n" in input_file(dynamics, 4, cell, Control("mlip-2", "p", "s", 2.1, 10.0), 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grade": "committee", "members": []}, "knows no committee"),
        ({"mode": "relax"}, "dynamics only"),
        ({"model": "pair"}, "moment tensor potentials only"),
        ({"coupling": "odd"}, "coupling 'odd' is not known"),
    ],
)
def test_what_the_plugin_cannot_do_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        explore(spec(**changes), trained().root, tmp_path)


def test_the_input_is_that_of_pilots_own_lammps_but_for_the_potential() -> None:
    control = Control("mlip-3", "pot.almtp", "", 2.1, 10.0)
    dynamics = Dynamics(300.0, None, "iso", 1000, 1.0, 1, melt=Melt(900.0, 200, 300, 1.1))
    text = input_file(dynamics, 4, np.eye(3) * LATTICE, control, 100)
    lines = text.splitlines()
    (style,) = [line for line in lines if line.startswith("pair_style")]
    # the prefix on every key: without it the library takes its own and says nothing
    assert "extrapolation_control:threshold_save=2.100000 extrapolation_control:threshold_break=10.000000" in style
    assert "extrapolation_control:save_extrapolative_to=" in style
    assert not [line for line in lines if "external" in line or line.startswith("comm_modify")]
    assert [line for line in lines if line.startswith("run ")] == ["run 200", "run 300", "run 1000"]
    assert lines.index("dump moments all custom 15 moments.dump id type x y z") < lines.index("run 200")
    assert text.count("fix asked all halt") == 1
    same = Control("mlip-3", "pot.almtp", "", 5.0, 5.0).thresholds
    assert float(same["threshold_save"]) < float(same["threshold_break"])


HEADER = "   Step          Temp          PotEng         KinEng         TotEng         Press          Volume\n"
ROW = "        20   300            -3.5            0.1           -3.4           -0.2            66.4\n"


@pytest.mark.parametrize(
    ("said", "log", "broke", "stopped"),
    [
        (Said(0, "Total wall time: 0:00:01", ""), HEADER + ROW, "", False),
        (Said(9, "", "Rank 0, Breaking threshold exceeded (MV-grade: 12.5)"), HEADER + ROW, "12.5", False),
        (Said(1, "ERROR: Lost atoms: original 4 current 3 (x)", ""), HEADER + ROW, "Lost atoms", False),
        (Said(0, "Fix halt condition for fix-id asked met on step 10 with value 1 (x)", ""), HEADER, "", True),
        (Said(0, "Fix halt condition for fix-id swollen met on step 10 with value 1", ""), HEADER, "apart", False),
    ],
)
def test_ends_that_are_results(tmp_path: Path, said: Said, log: str, broke: str, stopped: bool) -> None:
    (tmp_path / "log").write_text(log)
    end = read_end(said, tmp_path / "log", 20)
    assert broke in end.broke
    assert bool(end.broke) is bool(broke)
    assert end.stopped is stopped
    assert end.gamma == (12.5 if "grade" in said.err else None)


@pytest.mark.parametrize(
    ("said", "log", "words"),
    [
        (Said(0, "", ""), HEADER + ROW, "without having finished"),
        (Said(0, "Total wall time: 0:00:01", ""), HEADER, "at step 0 of 20"),
        (Said(1, "ERROR: Unknown command: foo (x)", ""), "", "exit code 1: ERROR: Unknown command"),
        (Said(9, "", "ERROR: Can not open file \n  Thrown by function Load"), HEADER + ROW, "exit code 9"),
        (Said(-11, "", ""), HEADER + ROW, "killed by SIGSEGV"),
        (Said(-9, "", ""), HEADER + ROW, "killed by SIGKILL"),
    ],
)
def test_ends_that_are_none(tmp_path: Path, said: Said, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    with pytest.raises(MlipError, match=words):
        read_end(said, tmp_path / "log", 20)


def test_a_lammps_without_the_pair_style_is_told_so(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine("lammps-mlip").find(SETTINGS).ok
    monkeypatch.setenv("LMP_FAULT", "stranger to mlip")
    assert not engine("lammps-mlip").find(SETTINGS).ok
    with pytest.raises(InputError, match="does not know pair_style mlip"):
        explore(spec(), trained().root, where)


def test_a_dump_that_is_cut_gives_what_is_whole(tmp_path: Path) -> None:
    frame = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
    frame += "0.0 6.0 2.0\n-1.0 3.0 0.0\n0.0 5.0 0.0\nITEM: ATOMS id type x y z\n1 2 0.5 1.0 {}\n"
    (tmp_path / "dump").write_text(frame.format(0, 1.5) + frame.format(10, 1.25) + frame.format(20, "nan"))
    first, second = read_frames(tmp_path / "dump")
    assert (first.step, second.step) == (0, 10)
    assert first.cell.tolist() == [[4.0, 0.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 5.0]]
    assert first.types.tolist() == [1]
    assert second.positions.tolist() == [[0.5, 2.0, 1.25]]
    text = (tmp_path / "dump").read_text()
    for end in range(0, len(text), 17):
        (tmp_path / "dump").write_text(text[:end])
        assert len(list(read_frames(tmp_path / "dump"))) <= 2
    assert list(read_frames(tmp_path / "nowhere")) == []


def test_the_active_set_in_the_file_is_ours(tmp_path: Path) -> None:
    from tasks.engines.mlip_active_set import file_order, write_almtp

    t = trained()
    write_almtp(tmp_path / "pot.almtp", t.potential, t.active)
    found = read_active_set(tmp_path / "pot.almtp")
    order = file_order(t.potential)
    assert np.array_equal(found.matrix, t.active.matrix[:, order])
    rows = np.random.default_rng(1).normal(size=(5, len(order)))
    assert np.abs(rows[:, order] @ found.inverse).max(axis=1) == pytest.approx(t.active.grades(rows))
    assert AL == [13]
