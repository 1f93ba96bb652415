"""How a run of VASP fails, what is made of it, and that what is changed then mends it."""

import importlib
import os
import signal
import subprocess
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vasp_runs import judged, program, run, run_prepared, start, strained, work

from db.states import Verdict
from tasks.engines import vasp_remedies
from tasks.engines.vasp import ENGINE
from tasks.engines.vasp_outcar import KILOBAR_PER_EV_A3, numbers_of
from tasks.protocol import Cause, Exit, Judgement, Work

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "samples" / "vasp" / "OUTCAR_example_1"
DEADLINE_S = 60.0
#: known failures that are mended, what a task must be for it, and what mends them
MENDED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ZBRENT", {"ediff": 1e-6}, {"EDIFF": 1e-7, "NELMIN": 8}),
    ("EDDDAV", {}, {"ALGO": "All", "ISEARCH": 1}),
    ("BRMIX", {}, {"IMIX": 1}),
    ("ZPOTRF", {}, {"ISYM": 0}),
    ("PSSYEVX", {"algo": "Fast"}, {"ALGO": "Normal"}),
    ("POSMAP", {}, {"SYMPREC": 1e-6}),
    ("SGRCON", {}, {"ISYM": 0}),
    ("TOO FEW BANDS", {}, {"NBANDS": 9}),
    ("SLOSHES", {}, {"ALGO": "All", "ISEARCH": 1}),
]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """An engine waits only for so long until custodian is loaded; a busy machine may take longer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("custodian.vasp.handlers")


def next_attempt(task: Work, judgement: Judgement, tries: int = 1) -> Work | None:
    """What a pilot does with a failure."""
    remedy = judgement.remedy
    spec = {**task.spec, **remedy} if remedy is not None else None
    spec = spec or ENGINE.soften(task.spec, judgement.verdict, tries, judgement.reason)
    if spec is None:
        return None
    attempt = task.attempt_id + 1
    directory = task.directory.with_name(str(attempt))
    directory.mkdir()
    return replace(task, spec=spec, attempt_id=attempt, directory=directory)


# --- mended -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fails", "given", "changed"), MENDED, ids=[name for name, _, _ in MENDED])
def test_a_known_failure_is_mended_by_the_next_attempt(
    tmp_path: Path, fails: str, given: dict[str, Any], changed: dict[str, Any]
) -> None:
    task = work(tmp_path, **given)
    failed = judged(task, VASP_FAILS=fails)
    assert failed.verdict is (Verdict.NOT_CONVERGED if fails == "SLOSHES" else Verdict.CRASHED)
    assert failed.label is None
    assert "custodian: " in failed.reason
    assert failed.remedy is not None
    # on a machine of many cores also NCORE, where it is not known how many electrons there are
    corrections = {tag: value for tag, value in failed.remedy["corrections"].items() if tag != "NCORE"}
    assert corrections == pytest.approx(changed)
    following = next_attempt(task, failed)
    assert following is not None
    mended = judged(following, VASP_FAILS=fails)
    assert mended.verdict is Verdict.DONE, mended.reason
    # what was changed is recorded with the label
    assert mended.facts["corrections"] == failed.remedy["corrections"]
    plain = judged(work(tmp_path / "plain", **given))
    assert plain.label is not None
    assert mended.label is not None
    assert mended.label.energy == pytest.approx(plain.label.energy, abs=1e-6)
    assert np.array(mended.label.forces) == pytest.approx(np.array(plain.label.forces), abs=1e-6)


@pytest.mark.parametrize(
    ("fails", "given", "left_out"),
    [
        ("TETRAHEDRON", {"ismear": -5}, "ISMEAR = 0, SIGMA = 0.05"),
        ("REAL_OPTLAY", {"incar": {"LREAL": "Auto"}}, "LREAL = False"),
    ],
)
def test_what_would_change_the_meaning_of_a_label_is_proposed_and_left_out(
    tmp_path: Path, fails: str, given: dict[str, Any], left_out: str
) -> None:
    task = work(tmp_path, **given)
    failed = judged(task, VASP_FAILS=fails)
    assert failed.verdict is Verdict.CRASHED
    assert failed.remedy is None
    assert failed.reason.endswith(f"left out, as the label would mean something else: {left_out}")
    assert next_attempt(task, failed) is None


def test_what_never_converges_is_tried_by_one_way_after_another(tmp_path: Path) -> None:
    task: Work | None = work(tmp_path, nelm=12)
    tried = []
    for number in (1, 2, 3):
        assert task is not None
        judgement = judged(task, VASP_FAILS="NEVER")
        assert judgement.verdict is Verdict.NOT_CONVERGED
        assert judgement.reason.startswith("the SCF is not converged after 12 steps")
        tried.append(judgement.facts.get("corrections"))
        task = next_attempt(task, judgement, number)
    assert tried[0] is None
    assert tried[1] == {"ALGO": "All", "ISEARCH": 1}
    assert tried[2]["BMIX"] == 0.001


def test_without_custodian_what_does_not_converge_is_mended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vasp_remedies, "_NEEDED", ("no_such_package",))
    task = work(tmp_path)
    failed = judged(task, VASP_FAILS="SLOSHES")
    assert failed.reason == "the SCF is not converged after 100 steps"
    assert failed.remedy is None
    following = next_attempt(task, failed)
    assert following is not None
    assert following.spec["corrections"] == {"NELM": 200, "ALGO": "All"}
    assert judged(following, VASP_FAILS="SLOSHES").verdict is Verdict.DONE
    second = ENGINE.soften(following.spec, Verdict.NOT_CONVERGED, 2, "")
    assert second is not None
    assert second["corrections"]["ALGO"] == "Normal"
    assert second["corrections"]["AMIX"] == 0.1
    assert ENGINE.soften(second, Verdict.NOT_CONVERGED, 3, "") is None
    tetrahedra = work(tmp_path / "t", ismear=-5)
    gentle = ENGINE.soften(tetrahedra.spec, Verdict.NOT_CONVERGED, 1, "")
    assert gentle is not None
    assert "ALGO" not in gentle["corrections"]
    assert ENGINE.soften({"settings": 3}, Verdict.NOT_CONVERGED, 1, "") is None
    crashed = judged(work(tmp_path / "c"), VASP_FAILS="ZPOTRF")
    assert (crashed.verdict, crashed.remedy) == (Verdict.CRASHED, None)


def test_a_custodian_that_stumbles_is_no_failure_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise RuntimeError("something odd")

    monkeypatch.setattr(vasp_remedies, "_ask", stumble)
    judgement = judged(work(tmp_path), VASP_FAILS="ZPOTRF")
    assert judgement.verdict is Verdict.CRASHED
    assert judgement.reason == "LAPACK: Routine ZPOTRF failed! 4 1 1"


def test_of_custodians_proposals_only_those_are_applied_that_keep_the_result() -> None:
    in_effect = {"ALGO": "Normal", "EDIFF": 1e-6, "NBANDS": 20, "LREAL": False}
    wanted = {"ALGO": "all", "EDIFF": 1e-7, "NBANDS": 22, "ISYM": 0, "AMIN": 0.01}
    unwanted = {"ENCUT": 600, "ISMEAR": 0, "SIGMA": 0.05, "PREC": "High", "LREAL": True, "ISYM": 2, "KSPACING": 0.1}
    worse = {"EDIFF": 1e-5, "NBANDS": 10, "ALGO": "Exact", "AMIX": [1, 2]}
    none = {"ISTART": 1, "POTIM": 0.1, "ALGO": "NORMAL"}
    for changes, applied, out in ((wanted, wanted, 0), (unwanted, {}, 7), (worse, {}, 4), (none, {}, 0)):
        corrections, left_out = vasp_remedies.sift([{"dict": "INCAR", "action": {"_set": changes}}], in_effect)
        assert corrections == applied
        assert len(left_out) == out
    others = [
        {"dict": "KPOINTS", "action": {"_set": {"generation_style": "Monkhorst"}}},
        {"dict": "POSCAR", "action": {"_set": {"structure": {}}}},
        {"file": "CONTCAR", "action": {"_file_copy": {"dest": "POSCAR"}}},
        {"dict": "INCAR", "action": {"_unset": {"IMIX": 1}}},
    ]
    assert vasp_remedies.sift(others, {}) == ({}, ["a change of KPOINTS", "a change of POSCAR"])


# --- other endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fails", "verdict", "said"),
    [
        ("MEMORY", Verdict.OUT_OF_MEMORY, "it says that memory was short (forrtl: severe (41): insufficient virtual"),
        ("FULL DISK", Verdict.INFRASTRUCTURE, "No space left on device"),
        ("LICENCE", Verdict.BAD_INPUT, "The licence of this program has expired."),
        ("NAMELESS", Verdict.CRASHED, "exit code 0; output: OUTCAR: no total energy"),
        ("OTHER ENERGY", Verdict.CRASHED, "exit code 0; output: vasprun.xml: an energy of"),
    ],
)
def test_a_failure_is_called_what_it_is(tmp_path: Path, fails: str, verdict: Verdict, said: str) -> None:
    judgement = judged(work(tmp_path), VASP_FAILS=fails)
    assert judgement.verdict is verdict
    assert judgement.reason.startswith(said)
    assert (judgement.label, judgement.remedy) == (None, None)


def test_a_complete_result_counts_whatever_the_exit_code(tmp_path: Path) -> None:
    task = work(tmp_path)
    end = run(task, VASP_FAILS="CODE 1")
    assert end.code == 1
    judgement = ENGINE.judge(task, end)
    assert judgement.verdict is Verdict.DONE
    assert judgement.facts["ended_with"] == "exit code 1"
    # also where nobody saw the end, or it was the drain's
    for cause in (Cause.LOST, Cause.DRAIN, Cause.TIMEOUT):
        assert ENGINE.judge(task, Exit(cause=cause)).verdict is Verdict.DONE
    assert ENGINE.judge(task, Exit(cause=Cause.CANCEL)).verdict is Verdict.CANCELLED


def test_potcars_in_another_order_are_bad_input(tmp_path: Path) -> None:
    task = work(tmp_path, strained())
    ENGINE.prepare(task)
    hidden = task.directory / "scratch" / "POTCAR"
    parts = hidden.read_text().split(" End of Dataset\n")
    hidden.write_text(" End of Dataset\n".join([parts[1], parts[0], *parts[2:]]))
    judgement = ENGINE.judge(task, run_prepared(task, {}))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "POSCAR and POTCAR are incompatible" in judgement.reason


def test_a_tag_that_vasp_cannot_read_is_bad_input(tmp_path: Path) -> None:
    task = work(tmp_path, incar={"NELMIN": "many"})
    judgement = judged(task)
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "Error reading item 'NELMIN' from file INCAR" in judgement.reason


def test_a_run_that_is_killed_midway_leaves_files_that_are_no_result(tmp_path: Path) -> None:
    task = work(tmp_path)
    process = start(task, VASP_FAILS="KILLED")
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    assert ENGINE.judge(task, Exit(signal=9)).verdict is Verdict.OUT_OF_MEMORY
    assert ENGINE.judge(task, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED
    crashed = ENGINE.judge(task, Exit(code=0))
    assert crashed.verdict is Verdict.CRASHED
    assert crashed.label is None


def test_a_run_that_is_asked_to_stop_does_so_and_starts_over(tmp_path: Path) -> None:
    task = work(tmp_path)
    process = start(task, VASP_FAILS="NEVER", VASP_STEP_S="0.05")
    deadline = time.monotonic() + DEADLINE_S
    while "DAV:   2" not in (task.directory / "vasp.out").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ENGINE.stop_softly(task)
    assert process.wait(DEADLINE_S) == 0
    # it ends like one that has finished
    assert "General timing and accounting" in (task.directory / "OUTCAR").read_text()
    judgement = ENGINE.judge(task, Exit(code=0))
    assert judgement.verdict is Verdict.INTERRUPTED
    assert not judgement.resumable
    assert judgement.label is None
    assert not (task.directory / "STOPCAR").exists()
    assert ENGINE.judge(task, Exit(code=0, cause=Cause.DRAIN)).verdict is Verdict.INTERRUPTED


def test_nothing_that_is_not_of_this_attempt_counts(tmp_path: Path) -> None:
    task = work(tmp_path)
    end = run(task)
    assert ENGINE.judge(task, end).verdict is Verdict.DONE
    other = ENGINE.judge(replace(task, attempt_id=18), end)
    assert other.verdict is Verdict.CRASHED
    assert "the output of another run" in other.reason
    moved = work(tmp_path / "moved", strained())
    for name in ("OUTCAR", "vasprun.xml", "vasp.out"):
        (moved.directory / name).write_text((task.directory / name).read_text())
    assert ENGINE.judge(moved, end).verdict is Verdict.CRASHED
    shifted = dict(task.spec["structure"])
    shifted["positions"] = [[x + 0.01 * i, y, z] for i, (x, y, z) in enumerate(shifted["positions"])]
    judgement = ENGINE.judge(replace(task, spec={**task.spec, "structure": shifted}), end)
    assert judgement.reason.endswith("vasprun.xml: it is of another structure")


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_a_result_with_a_file_missing_cut_or_twice_is_none(tmp_path: Path, name: str) -> None:
    task = work(tmp_path)
    end = run(task)
    path = task.directory / name
    whole = path.read_text()
    half, twice = whole[: len(whole) // 2], whole + whole
    for broken in (half, whole[:-40] if name == "vasprun.xml" else half, twice, ""):
        path.write_text(broken)
        assert ENGINE.judge(task, end).verdict is Verdict.CRASHED
        assert ENGINE.judge(task, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED
    path.unlink()
    assert ENGINE.judge(task, end).label is None


def test_a_last_step_that_is_the_last_allowed_one_is_not_converged(tmp_path: Path) -> None:
    """VASP has then ended by NELM as well; its own tools call that not converged, too."""
    steps = judged(work(tmp_path / "a")).facts["scf_steps"]
    assert judged(work(tmp_path / "b", nelm=steps)).verdict is Verdict.NOT_CONVERGED
    assert judged(work(tmp_path / "c", nelm=steps + 1)).verdict is Verdict.DONE


@pytest.mark.parametrize(
    ("end", "err", "verdict"),
    [
        (Exit(cause=Cause.NOT_STARTED, message="No such file or directory"), "", Verdict.BAD_INPUT),
        (Exit(cause=Cause.NOT_STARTED, message="cannot write into x"), "", Verdict.INFRASTRUCTURE),
        (Exit(code=127), "vasp_std: command not found", Verdict.BAD_INPUT),
        (Exit(code=1), "There are not enough slots available in the system", Verdict.INFRASTRUCTURE),
        (Exit(code=1), "mpirun noticed that process rank 1 exited on signal 9 (Killed).", Verdict.OUT_OF_MEMORY),
        (Exit(code=174), "forrtl: severe (174): SIGSEGV, segmentation fault occurred", Verdict.CRASHED),
        (Exit(signal=15), "", Verdict.INTERRUPTED),
        (Exit(cause=Cause.MEMORY, signal=9), "", Verdict.OUT_OF_MEMORY),
        (Exit(cause=Cause.TIMEOUT, signal=9), "", Verdict.TIMEOUT),
    ],
)
def test_endings_that_the_program_has_no_part_in(tmp_path: Path, end: Exit, err: str, verdict: Verdict) -> None:
    task = work(tmp_path)
    ENGINE.prepare(task)
    (task.directory / "vasp.err").write_text(err)
    assert ENGINE.judge(task, end).verdict is verdict
    assert not (task.directory / "scratch").exists()


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SAMPLE.is_file(), reason="needs the sample of a real OUTCAR")
def test_a_real_outcar_is_read_as_ase_reads_it(tmp_path: Path) -> None:
    text = SAMPLE.read_text()
    numbers, wrong = numbers_of(text, 18)
    assert numbers is not None, wrong
    assert numbers.energy == -68.22868532
    assert numbers.forces[17] == (-0.000170, -0.427894, -0.523640)
    (tmp_path / "OUTCAR").write_text(text)
    atoms = ase.io.read(tmp_path / "OUTCAR", format="vasp-out")
    assert atoms.get_potential_energy(force_consistent=True) == numbers.energy
    assert atoms.get_forces() == pytest.approx(np.array(numbers.forces))
    xx, yy, zz, xy, yz, zx = numbers.kilobar
    assert atoms.get_stress() == pytest.approx(-0.1 * np.array([xx, yy, zz, yz, zx, xy]) * ase.units.GPa)
    # MLIP's virial is the line above it, in eV
    total = np.array(numbers.kilobar) * atoms.get_volume() / KILOBAR_PER_EV_A3
    assert total == pytest.approx([-15.46102, -16.52186, -16.21395, 1.80188, -3.38609, 1.31345], abs=1e-4)
    assert numbers_of(text, 17)[1] == "" or numbers_of(text, 17)[0] is None
    assert numbers_of(text, 19) == (None, "not the forces of 19 atoms")
    assert numbers_of(text.replace("in kB      -4.29429", "in kB      -4.39429"), 18)[0] is None
    assert numbers_of(text[: text.index("FREE ENERGIE")], 18)[1] == "no total energy"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, dict[str, str]]:
    task = work(tmp_path_factory.mktemp("fuzz"), strained())
    run(task)
    return task, {name: (task.directory / name).read_text() for name in ("OUTCAR", "vasprun.xml", "vasp.out")}


@given(
    name=st.sampled_from(["OUTCAR", "vasprun.xml"]),
    at=st.floats(0, 1),
    put=st.sampled_from(["", "*****", "NaN", "\n", "-", "<", "9", "\x00", "free  energy   TOTEN  =  1.0 eV\n"]),
    length=st.integers(0, 200),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damage_makes_the_reader_raise_or_give_other_numbers(
    finished: tuple[Work, dict[str, str]], name: str, at: float, put: str, length: int
) -> None:
    task, texts = finished
    for known, text in texts.items():
        (task.directory / known).write_text(text)
    whole = ENGINE.judge(task, Exit(code=0))
    assert whole.label is not None
    place = int(at * len(texts[name]))
    (task.directory / name).write_text(texts[name][:place] + put + texts[name][place + length :])
    judgement = ENGINE.judge(task, Exit(cause=Cause.LOST))
    if judgement.label is None:
        assert judgement.verdict is Verdict.INTERRUPTED
    else:
        assert judgement.label.energy == whole.label.energy
        assert np.array(judgement.label.forces) == pytest.approx(np.array(whole.label.forces), abs=2e-6)
        assert judgement.label.stress == pytest.approx(whole.label.stress, abs=1e-7)


def test_the_program_runs_as_one_of_its_own(tmp_path: Path) -> None:
    task = work(tmp_path, strained())
    ENGINE.prepare(task)
    done = subprocess.run(
        [program(tmp_path / "bin")],
        cwd=task.directory,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    (task.directory / "vasp.out").write_text(done.stdout)
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = Vasprun(task.directory / "vasprun.xml", parse_potcar_file=False)
    judgement = ENGINE.judge(task, Exit(code=done.returncode))
    assert judgement.verdict is Verdict.DONE
    assert read.converged
    assert float(read.final_energy) == pytest.approx(judgement.label.energy)
