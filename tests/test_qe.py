"""Quantum ESPRESSO, with real runs of pw.x wherever it prints something that we read."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from db.errors import InputError
from db.records import Resources
from db.states import Verdict
from tasks.engines import qe_numbers, qe_output, qe_pseudo, qe_restart
from tasks.engines.qe import ENGINE
from tasks.engines.qe_settings import check_settings
from tasks.protocol import Cause, Exit, Work
from tests.qe_runs import (
    ALONE,
    ALUMINIUM,
    PSEUDO,
    finish,
    long_work,
    needs_files,
    needs_pw,
    run,
    sheared,
    start,
    wait_for,
    work,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run; the tests copy it."""
    task = work(tmp_path_factory.mktemp("qe") / "a", sheared())
    end = run(task)
    scratch = task.directory / "scratch"
    was_there = scratch.is_dir()
    return task, end, ENGINE.judge(task, end), was_there and not scratch.exists()


def copy_of(finished: Any, folder: Path, change: Callable[[str], str] = str) -> Work:
    task = finished[0]
    for name in ("pw.out", "pw.err"):
        (folder / name).write_text(change((task.directory / name).read_text()))
    return replace(task, directory=folder)


# --- finished -----------------------------------------------------------------------------------------------


@needs_pw
def test_a_label_agrees_with_ases_own_reader(finished):
    task, end, judgement, cleaned = finished
    assert end.code == 0
    assert judgement.verdict is Verdict.DONE, judgement.reason
    atoms = ase.io.read(task.directory / "pw.out", format="espresso-out")
    label = judgement.label
    assert label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert np.array(label.forces) == pytest.approx(atoms.get_forces(), abs=1e-6)
    assert np.array(label.stress) == pytest.approx(atoms.get_stress(), abs=1e-6)
    assert np.abs(label.forces).max() > 0.05
    assert min(abs(x) for x in label.stress) > 1e-4
    facts = judgement.facts
    assert facts["kpoints"] == [2, 2, 1]
    assert facts["scf_steps"] >= 2
    assert facts["qe_version"]
    assert facts["max_force"] == pytest.approx(np.linalg.norm(label.forces, axis=1).max())
    assert facts["pressure"] == pytest.approx(-np.mean(label.stress[:3]) * 160.21766, rel=1e-6)
    assert cleaned
    assert sorted(path.name for path in task.directory.iterdir()) == ["pw.err", "pw.in", "pw.out"]


@needs_pw
def test_the_pressure_is_the_one_in_kbar_that_qe_prints(finished):
    task, _, judgement, _ = finished
    printed = float((task.directory / "pw.out").read_text().split("P=")[1].split()[0])
    assert judgement.facts["pressure"] == pytest.approx(0.1 * printed, abs=1e-3)


@needs_pw
def test_forces_are_derivatives_of_the_energy(tmp_path):
    """Sign and units, by finite differences of real runs."""
    h = 0.01
    labels = []
    for index, step in enumerate((-h, 0.0, h)):
        atoms = sheared()
        atoms.positions[1, 0] += step
        task = work(tmp_path / f"x{index}", atoms, ecutwfc=20, conv_thr=1e-11, kpoints=[2, 2, 1])
        labels.append(ENGINE.judge(task, run(task)).label)
    slope = (labels[2].energy - labels[0].energy) / (2 * h)
    assert abs(slope) > 0.05
    assert labels[1].forces[1][0] == pytest.approx(-slope, abs=2e-3)


@needs_pw
def test_a_structure_that_is_not_periodic_has_no_stress_in_its_label(tmp_path):
    slab = bulk("Al", a=4.04, cubic=True)
    slab.pbc = (True, True, False)
    task = work(tmp_path / "a", slab)
    judgement = ENGINE.judge(task, run(task))
    assert judgement.facts["kpoints"] == [2, 2, 1]
    assert judgement.label.stress is None
    assert "pressure" in judgement.facts


# --- not finished -------------------------------------------------------------------------------------------


@needs_pw
def test_not_converged_prints_job_done_and_is_not_done(tmp_path):
    task = work(tmp_path / "a", electron_maxstep=2)
    end = run(task)
    assert end.code == 2
    assert "JOB DONE" in (task.directory / "pw.out").read_text()
    assert ENGINE.judge(task, end).verdict is Verdict.NOT_CONVERGED
    # neither would any exit code make it a label
    assert ENGINE.judge(task, Exit(code=0)).verdict is Verdict.NOT_CONVERGED
    assert ENGINE.judge(task, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED


@needs_pw
def test_qe_can_be_told_to_lie_about_convergence_and_is_not_believed(tmp_path):
    """scf_must_converge=.false.: exit code 0, "convergence has been achieved", JOB DONE, all numbers."""
    task = work(tmp_path / "a", electron_maxstep=2)
    ENGINE.prepare(task)
    text = (task.directory / "pw.in").read_text()
    (task.directory / "pw.in").write_text(text.replace("&ELECTRONS", "&ELECTRONS\n scf_must_converge=.false."))
    with (task.directory / "pw.out").open("wb") as out:
        code = subprocess.call(["pw.x", "-in", "pw.in"], cwd=task.directory, env={**os.environ, **ALONE}, stdout=out)
    assert code == 0
    assert "convergence has been achieved" in (task.directory / "pw.out").read_text()
    assert ENGINE.judge(task, Exit(code=0)).verdict is Verdict.NOT_CONVERGED
    problems = check_settings({**ALUMINIUM, "input": {"electrons": {"scf_must_converge": False}}}, ["Al"])
    assert "scf_must_converge" in problems[0]


@needs_pw
def test_a_pseudopotential_that_vanished_is_bad_input(tmp_path):
    task = work(tmp_path / "a")
    ENGINE.prepare(task)
    text = (task.directory / "pw.in").read_text().replace("Al.pz-vbc.UPF", "Al.gone.UPF")
    (task.directory / "pw.in").write_text(text)
    with (task.directory / "pw.out").open("wb") as out, (task.directory / "pw.err").open("wb") as err:
        env = {**os.environ, **ALONE}
        code = subprocess.call(["pw.x", "-in", "pw.in"], cwd=task.directory, env=env, stdout=out, stderr=err)
    judgement = ENGINE.judge(task, Exit(code=code))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "Al.gone.UPF not found" in judgement.reason
    assert "%" not in judgement.reason
    assert "\n" not in judgement.reason


@needs_pw
def test_a_word_that_qe_does_not_know_is_bad_input(tmp_path):
    task = work(tmp_path / "a", smearing="marzipan")
    judgement = ENGINE.judge(task, run(task))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "smearing marzipan unknown" in judgement.reason


@needs_pw
def test_a_soft_stop_by_the_exit_file(tmp_path, monkeypatch):
    monkeypatch.setattr(qe_restart, "WORTH_S", 0.0)
    task = long_work(tmp_path / "a")
    process = start(task)
    wait_for(task, "iteration #  1", process)
    assert ENGINE.stop_softly(task)
    end = finish(process)
    assert end.code not in {0, None}
    assert "JOB DONE" in (task.directory / "pw.out").read_text()
    judgement = ENGINE.judge(task, replace(end, cause=Cause.DRAIN))
    assert judgement.verdict is Verdict.INTERRUPTED
    assert judgement.resumable
    assert (task.directory / "scratch").exists()
    # also where nobody had asked for it, or saw it
    for other in (end, Exit(cause=Cause.LOST), Exit(signal=15, cause=Cause.DRAIN)):
        again = ENGINE.judge(task, other)
        assert (again.verdict, again.resumable) == (Verdict.INTERRUPTED, True)


@needs_pw
def test_its_own_time_limit_comes_before_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(qe_restart, "WORTH_S", 0.0)
    task = replace(long_work(tmp_path / "a"), time_left_s=7.0)
    end = run(task)
    text = (task.directory / "pw.out").read_text()
    assert "Maximum CPU time exceeded" in text
    judgement = ENGINE.judge(task, end)
    # where the machine is so slow that it had not begun, there is nothing to go on from
    assert (judgement.verdict, judgement.resumable) == (Verdict.INTERRUPTED, "iteration #" in text)


@needs_pw
def test_sigterm(tmp_path):
    task = long_work(tmp_path / "a")
    process = start(task)
    wait_for(task, "iteration #  1", process)
    process.send_signal(signal.SIGTERM)
    end = finish(process)
    assert end.signal == signal.SIGTERM
    for cause, verdict in (
        (None, Verdict.INTERRUPTED),
        (Cause.DRAIN, Verdict.INTERRUPTED),
        (Cause.TIMEOUT, Verdict.TIMEOUT),
        (Cause.MEMORY, Verdict.OUT_OF_MEMORY),
        (Cause.CANCEL, Verdict.CANCELLED),
    ):
        judgement = ENGINE.judge(task, replace(end, cause=cause))
        assert (judgement.verdict, judgement.resumable) == (verdict, False)
    assert not (task.directory / "scratch").exists()


# --- outputs that were tampered with ------------------------------------------------------------------------


@needs_pw
def test_no_truncation_of_an_output_is_a_label(finished, tmp_path):
    """Cut anywhere before JOB DONE: a label never, whatever the exit code."""
    whole = (finished[0].directory / "pw.out").read_text()
    last = whole.index("JOB DONE")
    for cut in [*range(0, last, 97), last]:
        task = copy_of(finished, tmp_path, lambda text, cut=cut: text[:cut])
        judgement = ENGINE.judge(task, Exit(code=0))
        assert judgement.verdict in {Verdict.CRASHED, Verdict.NOT_CONVERGED}, cut
        assert judgement.label is None
        assert ENGINE.judge(task, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED


@needs_pw
def test_the_output_of_another_attempt_is_never_taken(finished, tmp_path):
    task = replace(copy_of(finished, tmp_path), attempt_id=18)
    assert ENGINE.judge(task, Exit(code=0)).verdict is Verdict.CRASHED
    assert ENGINE.judge(task, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED
    without = copy_of(finished, tmp_path, lambda text: text.replace("pilot attempt 17", ""))
    assert ENGINE.judge(without, Exit(code=0)).verdict is Verdict.CRASHED


@needs_pw
def test_a_complete_output_counts_when_nobody_saw_the_end(finished, tmp_path):
    task = copy_of(finished, tmp_path)
    assert ENGINE.judge(task, Exit(cause=Cause.LOST)).label == finished[2].label
    # it was done in time, and hung behind its end
    assert ENGINE.judge(task, Exit(cause=Cause.DRAIN, signal=9)).verdict is Verdict.DONE
    assert ENGINE.judge(task, Exit(cause=Cause.CANCEL, code=0)).verdict is Verdict.CANCELLED


@needs_pw
def test_a_complete_result_counts_though_its_process_died_behind_its_end(finished, tmp_path):
    """MPI fails while it finalises, with whatever exit code or signal; the numbers were there before."""
    task = copy_of(finished, tmp_path)
    for end in (Exit(code=1), Exit(signal=11), Exit(signal=9), Exit(signal=15), Exit(code=134), Exit(code=139)):
        judgement = ENGINE.judge(task, end)
        assert (judgement.verdict, judgement.label) == (Verdict.DONE, finished[2].label)
        assert str(end.signal or end.code) in judgement.facts["ended_with"]
    assert "ended_with" not in finished[2].facts
    # but by these codes pw.x itself says: not converged, not relaxed, stopped
    for code in (2, 3, 255):
        judgement = ENGINE.judge(task, Exit(code=code))
        assert (judgement.verdict, judgement.label) == (Verdict.CRASHED, None)
        assert f"exit code {code}" in judgement.reason


@needs_pw
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("!    total energy", "     total energy"),
        ("force =", "force ="),
        ("atom    2 type", "atom    2 tipe"),
        ("total   stress", "total   strass"),
        ("JOB DONE", "JOB D"),
        ("Total force", "NaN"),
    ],
)
def test_numbers_that_are_not_there(finished, tmp_path, old, new):
    def change(text: str) -> str:
        if old == "force =":
            return text.replace(old, "force = NaN ******")
        if new == "NaN":
            head, kbar, tail = text.partition("(kbar)")
            return head + kbar + tail.replace("0.00", "NaN", 20).replace("-", "*")
        return text.replace(old, new)

    judgement = ENGINE.judge(copy_of(finished, tmp_path, change), Exit(code=0))
    assert judgement.verdict is Verdict.CRASHED
    assert judgement.label is None
    assert judgement.reason


def test_columns_that_touch_are_parted_at_a_sign_or_not_read():
    head = "!    total energy = -1.5 Ry\n Forces acting on atoms (cartesian axes, Ry/au):\n\n"
    tail = (
        "\n total   stress  (Ry/bohr**3) (kbar) P= ****\n"
        " 0.1 0.2 0.3  *** *** ***\n 0.2 0.1 0.4  *** *** ***\n 0.3 0.4 0.1  *** *** ***\n"
    )
    row = "     atom    1 type  1   force = "
    read = qe_output.read(head + row + "0.1-1234.5-2.0" + tail, "", 1)
    assert read.label is not None
    assert np.array(read.label.forces[0]) / qe_numbers.RY_PER_BOHR == pytest.approx([0.1, -1234.5, -2.0])
    for wrong in ("12345.1234567812345.12345678 0.0", "NaN 0.0 0.0", "0.0 0.0 *****", "0.0 0.0"):
        assert qe_output.read(head + row + wrong + tail, "", 1).label is None
    assert qe_output.read(head + row + "0.1 0.2 0.3" + tail, "", 2).missing == "not the forces of 2 atoms"
    assert qe_output.read("PWSCF  :   1h 2m CPU   1d 1h 3m WALL", "", 1).seconds == 90180.0


@needs_pw
def test_memory_and_machine(finished, tmp_path):
    def judged(err: str, end: Exit) -> Verdict:
        task = copy_of(finished, tmp_path, lambda text: text[:3000])
        (tmp_path / "pw.err").write_text(err)
        return ENGINE.judge(task, end).verdict

    assert judged("Error allocating 12345 bytes: Cannot allocate memory", Exit(code=1)) is Verdict.OUT_OF_MEMORY
    assert judged("", Exit(signal=9)) is Verdict.OUT_OF_MEMORY
    killed = "mpirun noticed that process rank 0 with PID 0 on node a exited on signal 9 (Killed)."
    assert judged(killed, Exit(code=137)) is Verdict.OUT_OF_MEMORY
    assert judged("forrtl: No space left on device", Exit(code=28)) is Verdict.INFRASTRUCTURE
    assert judged("", Exit(code=139)) is Verdict.CRASHED


def test_a_program_that_is_not_there(tmp_path):
    task = work(tmp_path / "a", command="pw-nowhere.x -npool 2")
    with pytest.raises(FileNotFoundError) as error:
        start(task)
    judgement = ENGINE.judge(task, Exit(cause=Cause.NOT_STARTED, message=str(error.value)))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert "pw-nowhere.x" in judgement.reason
    assert "label.qe.command" in judgement.reason
    (task.directory / "pw.err").write_text("taskset: failed to execute pw-nowhere.x: No such file or directory\n")
    assert ENGINE.judge(task, Exit(code=127)).verdict is Verdict.BAD_INPUT
    folder = Exit(cause=Cause.NOT_STARTED, message="cannot write into /a/b")
    assert ENGINE.judge(task, folder).verdict is Verdict.INFRASTRUCTURE


# --- input --------------------------------------------------------------------------------------------------


def namelist(task: Work) -> dict[str, str]:
    ENGINE.prepare(task)
    lines = (task.directory / "pw.in").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


@needs_files
def test_what_is_written(tmp_path):
    task = work(tmp_path / "a", ecutrho=60, input={"System": {"nbnd": 8}, "control": {"verbosity": "high"}})
    keys = namelist(replace(task, time_left_s=1000.0))
    assert keys["title"] == "'pilot attempt 17'"
    assert keys["calculation"] == "'scf'"
    assert keys["tprnfor"] == keys["tstress"] == ".true."
    assert float(keys["max_seconds"]) == 950.0
    assert (keys["ecutwfc"], keys["ecutrho"], keys["nbnd"]) == ("12", "60", "8")
    assert keys["verbosity"] == "'high'"
    assert "max_seconds" not in namelist(task)
    command = ENGINE.prepare(replace(task, resources=Resources(2, 3)))
    assert command.argv == ("pw.x", "-in", "pw.in")
    assert command.mpi
    assert command.env["OMP_NUM_THREADS"] == "3"


@needs_files
def test_bands_are_a_multiple_of_half_the_electrons_and_never_fewer_than_qe_takes(tmp_path):
    few = namelist(work(tmp_path / "a"))
    assert "nbnd" not in few
    # aluminium has three electrons: of 32 atoms half of them are 48
    atoms = bulk("Al", "fcc", a=4.05, cubic=True).repeat((2, 2, 2))
    assert namelist(work(tmp_path / "b", atoms, bands=2.0))["nbnd"] == "96"
    assert namelist(work(tmp_path / "c", atoms, bands=1.0))["nbnd"] == "58"
    assert namelist(work(tmp_path / "d", atoms, bands=2.0, input={"system": {"nbnd": 70}}))["nbnd"] == "70"


def test_a_pseudopotential_of_either_format_says_its_electrons(tmp_path):
    (tmp_path / "new").write_text('<PP_HEADER element="Pb" z_valence="1.400000000000000E+001"/>')
    (tmp_path / "old").write_text("<PP_HEADER>\n   Al    Element\n    3.00000000000      Z valence\n</PP_HEADER>")
    (tmp_path / "silent").write_text("<PP_HEADER/>")
    assert [qe_pseudo.valence_of(tmp_path / name) for name in ("new", "old", "silent")] == [14.0, 3.0, None]


@needs_files
def test_k_points(tmp_path):
    def points(task: Work) -> str:
        ENGINE.prepare(task)
        lines = (task.directory / "pw.in").read_text().splitlines()
        return lines[lines.index("K_POINTS automatic") + 1].split("0 0 0")[0].strip()

    assert points(work(tmp_path / "a", bulk("Al", a=4.04) * (1, 1, 2))) == "2 2 1"
    assert points(work(tmp_path / "a", kpoints=[3, 4, 5])) == "3 4 5"
    with pytest.raises(InputError, match="no k-points"):
        ENGINE.prepare(work(tmp_path / "a", kspacing=None))
    with pytest.raises(InputError, match="three whole numbers"):
        ENGINE.prepare(work(tmp_path / "a", kpoints=[0, 1, 1]))


@needs_files
def test_fixed_occupations_and_magnetization(tmp_path):
    keys = namelist(work(tmp_path / "a", smearing="none"))
    assert keys["occupations"] == "'fixed'"
    assert "degauss" not in keys
    spin = {"system": {"nspin": 2, "starting_magnetization(1)": 0.4}}
    assert float(namelist(work(tmp_path / "a", input=spin))["starting_magnetization(1)"]) == 0.4


@needs_files
def test_a_pseudopotential_that_does_not_exist_is_said_before_the_run(tmp_path):
    with pytest.raises(InputError) as error:
        ENGINE.prepare(work(tmp_path / "a", pseudopotentials={"Al": "Al.nowhere.UPF"}))
    assert "Al.nowhere.UPF" in error.value.what
    assert str(PSEUDO) in error.value.where
    assert "Al.pz-vbc.UPF" in error.value.next_step
    assert "label.qe.pseudopotentials.Al" in error.value.next_step
    with pytest.raises(InputError, match="named for Al is of Li"):
        ENGINE.prepare(work(tmp_path / "a", pseudopotentials={"Al": "Li.pbesol-s-kjpaw_psl.0.2.1.UPF"}))
    with pytest.raises(InputError, match="the structure has Cu"):
        ENGINE.prepare(work(tmp_path / "a", bulk("Cu")))
    layer = bulk("Al", cubic=True)
    layer.cell[2] = 0.0
    layer.pbc = (True, True, False)
    with pytest.raises(InputError, match="three rows"):
        ENGINE.prepare(work(tmp_path / "a", layer))


@needs_files
def test_settings_are_checked_before_anything_runs(tmp_path, monkeypatch):
    assert check_settings(ALUMINIUM, ["Al"]) == []
    wrong = {"ecutwf": 30, "kspacing": -1, "input": {"system": {"nat": 3}, "sistem": {}}}
    text = "\n".join(check_settings(wrong, ["Al", "Xx", "Co"]))
    for words in ("ecutwfc", "kspacing", "system.nat", "sistem", '"Xx"', "Co.pbesol-spn-rrkjus_psl.0.3.1.UPF"):
        assert words in text
    assert "Cr." not in text
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(PSEUDO / "Al.pz-vbc.UPF", own)
    assert check_settings({**ALUMINIUM, "pseudo_dir": "own"}, ["Al"], tmp_path) == []
    assert "no file there begins with Mg" in check_settings({**ALUMINIUM, "pseudo_dir": "own"}, ["Mg"], tmp_path)[0]
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(own))
    assert check_settings(ALUMINIUM, ["Al"]) == []
    assert str(own) in check_settings(ALUMINIUM, ["Si"])[0]


def test_what_does_not_converge_is_mixed_more_gently_in_two_steps(tmp_path):
    spec = work(tmp_path / "a", input={"Electrons": {"mixing_beta": 0.3}}).spec
    first = ENGINE.soften(spec, Verdict.NOT_CONVERGED, 1, "")
    assert first["settings"]["mixing_beta"] == 0.15
    assert first["settings"]["electron_maxstep"] == 200
    assert first["settings"]["input"] == {"electrons": {}}
    assert first["structure"] == spec["structure"]
    assert spec["settings"]["input"] == {"Electrons": {"mixing_beta": 0.3}}
    second = ENGINE.soften(first, Verdict.NOT_CONVERGED, 2, "")
    assert second["settings"]["mixing_beta"] == 0.1
    assert second["settings"]["electron_maxstep"] == 200
    assert second["settings"]["input"] == {"electrons": {"mixing_ndim": 12, "diagonalization": "cg"}}
    assert ENGINE.soften(second, Verdict.NOT_CONVERGED, 3, "") is None
    gentle = work(tmp_path / "a", mixing_beta=0.05).spec
    for tries in (1, 2):
        gentle = ENGINE.soften(gentle, Verdict.NOT_CONVERGED, tries, "")
        assert gentle["settings"]["mixing_beta"] == 0.05
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    soft = ENGINE.soften(work(tmp_path / "a", slab).spec, Verdict.NOT_CONVERGED, 1, "")
    soft = ENGINE.soften(soft, Verdict.NOT_CONVERGED, 2, "")
    assert soft["settings"]["input"]["electrons"]["mixing_mode"] == "local-TF"
    assert check_settings(soft["settings"], ["Al"]) == check_settings(spec["settings"], ["Al"])
    # it is asked within the manager's transaction: nothing makes it stumble
    for strange in ({}, {"settings": {"input": {"electrons": {"mixing_beta": "little"}}}}, {"settings": None}):
        assert ENGINE.soften(strange, Verdict.NOT_CONVERGED, 1, "") is None


@pytest.mark.parametrize(
    "words",
    [
        "problems computing cholesky",
        "S matrix not positive definite",
        "too many bands are not converged",
        "charge is wrong",
        "eigenvectors failed to converge",
    ],
)
def test_a_crash_in_the_diagonalisation_is_met_with_conjugate_gradients(tmp_path, words):
    task = work(tmp_path / "a")
    # some fail before the first SCF step, when the first wave functions are made: no fault of the input
    rule = " " + 78 * "%"
    said = f"     Program PWSCF v.6.7MaX\n\n{rule}\n     Error in routine cdiaghg (129):\n      {words}\n{rule}\n"
    (task.directory / "pw.out").write_text(said)
    judgement = ENGINE.judge(task, Exit(code=1))
    assert judgement.verdict is Verdict.CRASHED
    assert words in judgement.reason
    softer = ENGINE.soften(task.spec, judgement.verdict, 1, judgement.reason)
    assert softer["settings"]["input"]["electrons"] == {"diagonalization": "cg"}
    # it is tried once
    assert ENGINE.soften(softer, Verdict.CRASHED, 2, judgement.reason) is None
    assert ENGINE.soften(task.spec, Verdict.CRASHED, 1, "signal 11; output: no total energy") is None


def test_a_metal_that_was_taken_for_an_insulator_is_bad_input(tmp_path):
    task = work(tmp_path / "a")
    rule = " " + 78 * "%"
    said = "Error in routine electrons (1):\n      charge is wrong: smearing is needed"
    text = f"     Self-consistent Calculation\n     iteration #  1\n{rule}\n     {said}\n{rule}\n"
    (task.directory / "pw.out").write_text(text)
    judgement = ENGINE.judge(task, Exit(code=1))
    assert judgement.verdict is Verdict.BAD_INPUT
    assert ENGINE.soften(task.spec, Verdict.CRASHED, 1, judgement.reason) is None


@needs_pw
def test_the_remedies_are_words_that_pw_knows(tmp_path):
    """The last step of the ladder, for real: it converges to the same label."""
    task = work(tmp_path / "a", sheared())
    wanted = ENGINE.judge(task, run(task)).label
    spec = ENGINE.soften(task.spec, Verdict.NOT_CONVERGED, 1, "")
    softest = replace(work(tmp_path / "b"), spec=ENGINE.soften(spec, Verdict.NOT_CONVERGED, 2, ""))
    label = ENGINE.judge(softest, run(softest)).label
    assert "CG style diagonalization" in (softest.directory / "pw.out").read_text()
    assert label.energy == pytest.approx(wanted.energy, abs=1e-5)
    assert np.array(label.forces) == pytest.approx(np.array(wanted.forces), abs=1e-3)


@needs_pw
def test_what_doctor_says():
    finding = ENGINE.find(ALUMINIUM)
    assert finding.ok
    assert "Al.pz-vbc.UPF" in finding.found
    hard = {"pseudopotentials": {"Li": "Li.pbesol-s-kjpaw_psl.0.2.1.UPF"}, "ecutwfc": 30}
    assert "78 Ry" in ENGINE.find(hard).found
    assert not ENGINE.find({**ALUMINIUM, "command": "pw-nowhere.x"}).ok
    assert not ENGINE.find({"pseudopotentials": {"Al": "Al.nowhere.UPF"}}).ok
