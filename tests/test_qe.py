"""Quantum ESPRESSO, with real runs of pw.x wherever it prints something that we read."""

import os
import shutil
import signal
import subprocess
import time
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
from tasks.engines import qe_output
from tasks.engines.qe import ENGINE
from tasks.engines.qe_settings import check_settings
from tasks.formats.atoms import from_atoms
from tasks.protocol import Cause, Exit, Work

PSEUDO = Path("/usr/share/espresso/pseudo")
ALUMINIUM = {"pseudopotentials": {"Al": "Al.pz-vbc.UPF"}, "ecutwfc": 12, "kspacing": 1.4, "degauss": 0.05}
ALONE = {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
needs_files = pytest.mark.skipif(not (PSEUDO / "Al.pz-vbc.UPF").is_file(), reason="needs quantum-espresso-data")
DEADLINE_S = 60.0


def needs_pw(test: Any) -> Any:
    """Mark a test that runs pw.x, or reads what a run of it has written."""
    there = shutil.which("pw.x") is not None and (PSEUDO / "Al.pz-vbc.UPF").is_file()
    return pytest.mark.engine(pytest.mark.skipif(not there, reason="needs pw.x and quantum-espresso-data")(test))


def work(folder: Path, atoms: Any = None, *, kpoints: Any = None, attempt: int = 17, **settings: Any) -> Work:
    folder.mkdir(exist_ok=True)
    structure, _ = from_atoms(bulk("Al", a=4.04) if atoms is None else atoms)
    spec = {
        "structure": structure.to_json(),
        "species": ["Al"],
        "kpoints": kpoints,
        "settings": {**ALUMINIUM, **settings},
    }
    return Work(root=folder, directory=folder, attempt_id=attempt, spec=spec, resources=Resources())


def start(task: Work) -> subprocess.Popen[bytes]:
    command = ENGINE.prepare(task)
    env = {**os.environ, **ALONE, **command.env}
    with (task.directory / command.stdout).open("wb") as out, (task.directory / command.stderr).open("wb") as err:
        return subprocess.Popen(
            command.argv, cwd=task.directory, env=env, stdout=out, stderr=err, stdin=subprocess.DEVNULL
        )


def finish(process: subprocess.Popen[bytes]) -> Exit:
    code = process.wait(timeout=DEADLINE_S)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)


def run(task: Work) -> Exit:
    return finish(start(task))


def long_work(folder: Path, **settings: Any) -> Work:
    """Some ten seconds of work on one core."""
    only = {"system": {"nosym": True, "noinv": True}}
    return work(folder, kpoints=[5, 5, 5], ecutwfc=70, conv_thr=1e-13, input=only, **settings)


def wait_for(task: Work, words: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while words not in (task.directory / "pw.out").read_text():
        assert process.poll() is None, "it ended before it printed " + words
        assert time.monotonic() < deadline, "it never printed " + words


def sheared() -> Any:
    atoms = bulk("Al", a=4.04) * (1, 1, 2)
    atoms.rattle(0.1, seed=4)
    deformation = np.array([[1.02, 0.01, 0.0], [0.0, 0.99, 0.03], [0.02, 0.0, 1.01]])
    atoms.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return atoms


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
def test_a_soft_stop_by_the_exit_file(tmp_path):
    task = long_work(tmp_path / "a")
    process = start(task)
    wait_for(task, "iteration #  1", process)
    assert ENGINE.stop_softly(task)
    end = finish(process)
    assert end.code not in {0, None}
    assert "JOB DONE" in (task.directory / "pw.out").read_text()
    judgement = ENGINE.judge(task, replace(end, cause=Cause.DRAIN))
    assert judgement.verdict is Verdict.INTERRUPTED
    assert not (task.directory / "scratch").exists()
    assert ENGINE.judge(task, end).verdict is Verdict.INTERRUPTED


@needs_pw
def test_its_own_time_limit_comes_before_ours(tmp_path):
    task = replace(long_work(tmp_path / "a"), time_left_s=6.0)
    end = run(task)
    assert "Maximum CPU time exceeded" in (task.directory / "pw.out").read_text()
    assert ENGINE.judge(task, end).verdict is Verdict.INTERRUPTED


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
        assert ENGINE.judge(task, replace(end, cause=cause)).verdict is verdict


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
    # but an exit code of its own is believed
    assert ENGINE.judge(task, Exit(code=1)).verdict is Verdict.CRASHED
    assert ENGINE.judge(task, Exit(signal=11)).verdict is Verdict.CRASHED


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
    tail = "\n total   stress  (Ry/bohr**3) (kbar) P= 1.0\n" + 3 * " 0.1 0.2 0.3  *** *** ***\n"
    row = "     atom    1 type  1   force = "
    read = qe_output.read(head + row + "0.1-1234.5-2.0" + tail, "", 1)
    assert read.label is not None
    assert np.array(read.label.forces[0]) / qe_output.RY_PER_BOHR == pytest.approx([0.1, -1234.5, -2.0])
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


def test_softening_once(tmp_path):
    spec = work(tmp_path / "a", input={"electrons": {"mixing_beta": 0.3}}).spec
    softer = ENGINE.soften(spec, Verdict.NOT_CONVERGED, 1)
    assert softer["settings"]["mixing_beta"] == 0.15
    assert softer["settings"]["electron_maxstep"] == 200
    assert softer["settings"]["input"] == {"electrons": {}}
    assert softer["structure"] == spec["structure"]
    assert spec["settings"]["input"] == {"electrons": {"mixing_beta": 0.3}}
    assert ENGINE.soften(softer, Verdict.NOT_CONVERGED, 2) is None
    assert ENGINE.soften(spec, Verdict.CRASHED, 1) is None
    gentle = work(tmp_path / "a", mixing_beta=0.05).spec
    assert ENGINE.soften(gentle, Verdict.NOT_CONVERGED, 1)["settings"]["mixing_beta"] == 0.05
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    soft = ENGINE.soften(work(tmp_path / "a", slab).spec, Verdict.NOT_CONVERGED, 1)
    assert soft["settings"]["input"]["electrons"]["mixing_mode"] == "local-TF"


@needs_pw
def test_what_doctor_says():
    finding = ENGINE.find(ALUMINIUM)
    assert finding.ok
    assert "Al.pz-vbc.UPF" in finding.found
    hard = {"pseudopotentials": {"Li": "Li.pbesol-s-kjpaw_psl.0.2.1.UPF"}, "ecutwfc": 30}
    assert "78 Ry" in ENGINE.find(hard).found
    assert not ENGINE.find({**ALUMINIUM, "command": "pw-nowhere.x"}).ok
    assert not ENGINE.find({"pseudopotentials": {"Al": "Al.nowhere.UPF"}}).ok
