"""Labels by an ASE calculator, each in a process of its own."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from db.records import Structure
from db.states import Verdict
from tasks.engines.ase_calculator import ENGINE, check_settings
from tasks.protocol import Cause, Exit, Work

EMT_PATH = "ase.calculators.emt.EMT"


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell[:] @ np.diag([1.02, 1.0, 0.99]), scale_atoms=True)
    return atoms


def work(folder: Path, atoms: Atoms, path: str = EMT_PATH, attempt: int = 5, **arguments: object) -> Work:
    a, b, c = (tuple(map(float, row)) for row in atoms.cell[:])
    structure = Structure(
        numbers=tuple(map(int, atoms.numbers)),
        positions=tuple(tuple(map(float, row)) for row in atoms.positions),
        cell=(a, b, c),
        pbc=tuple(map(bool, atoms.pbc)),
    )
    spec = {
        "structure": structure.to_json(),
        "species": sorted(set(atoms.get_chemical_symbols())),
        "kpoints": None,
        "settings": {"calculator": path, "arguments": arguments},
    }
    return Work(root=folder, directory=folder, attempt_id=attempt, spec=spec)


def run(task: Work) -> Exit:
    command = ENGINE.prepare(task)
    with (task.directory / "stdout").open("wb") as out, (task.directory / "stderr").open("wb") as err:
        code = subprocess.call(
            command.argv, cwd=task.directory, env={**os.environ, **command.env}, stdout=out, stderr=err
        )
    return Exit(code=code, wall_s=1.0)


def test_a_label_is_what_the_calculator_says(tmp_path):
    atoms = crystal()
    task = work(tmp_path, atoms)
    judgement = ENGINE.judge(task, run(task))
    assert judgement.verdict is Verdict.DONE, judgement.reason
    atoms.calc = EMT()
    label = judgement.label
    assert label is not None
    assert label.energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-9)
    assert np.array(label.forces) == pytest.approx(atoms.get_forces(), abs=1e-9)
    assert label.stress is not None
    assert np.array(label.stress) == pytest.approx(atoms.get_stress(), abs=1e-9)
    assert judgement.facts["max_force"] == pytest.approx(np.linalg.norm(atoms.get_forces(), axis=1).max())
    # the same files say nothing about another attempt
    other = work(tmp_path, atoms, attempt=6)
    assert ENGINE.judge(other, Exit(code=0)).verdict is Verdict.CRASHED
    assert ENGINE.judge(other, Exit(cause=Cause.LOST)).verdict is Verdict.INTERRUPTED
    # and enough about this one, even if nobody saw its end
    assert ENGINE.judge(task, Exit(cause=Cause.LOST)).label == label
    assert ENGINE.judge(task, Exit(cause=Cause.CANCEL)).verdict is Verdict.CANCELLED
    # or its process died behind it
    for end in (Exit(code=1), Exit(signal=11)):
        judgement = ENGINE.judge(task, end)
        assert (judgement.verdict, judgement.label) == (Verdict.DONE, label)
        assert str(end.code or end.signal) in judgement.facts["ended_with"]


def test_a_molecule_has_no_stress(tmp_path):
    task = work(tmp_path, molecule("CO"))
    judgement = ENGINE.judge(task, run(task))
    assert judgement.label is not None
    assert judgement.label.stress is None


@pytest.mark.parametrize(
    ("atoms", "path", "arguments", "words"),
    [
        (bulk("Li"), EMT_PATH, {}, "Li"),
        (bulk("Cu"), "ase.calculators.nowhere.EMT", {}, "ase.calculators.nowhere.EMT"),
        (bulk("Cu"), "ase.calculators.emt.Emt", {}, "ase.calculators.emt.Emt"),
        (bulk("Cu"), "EMT", {}, "there is no calculator EMT"),
        (bulk("Cu"), "ase.calculators.tip3p.TIP3P", {"colour": "red"}, "colour"),
    ],
)
def test_what_a_user_can_mend_is_bad_input(tmp_path, atoms, path, arguments, words):
    task = work(tmp_path, atoms, path, **arguments)
    judgement = ENGINE.judge(task, run(task))
    assert judgement.verdict is Verdict.BAD_INPUT, judgement
    assert words in judgement.reason


def test_a_crash_shows_its_last_line(tmp_path):
    task = work(tmp_path, bulk("Cu"))
    command = ENGINE.prepare(task)
    (tmp_path / "task.json").write_text("{}")
    with (tmp_path / "stderr").open("wb") as err:
        code = subprocess.call(command.argv, cwd=tmp_path, stderr=err)
    judgement = ENGINE.judge(task, Exit(code=code))
    assert judgement.verdict is Verdict.CRASHED
    assert "KeyError" in judgement.reason


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        '{"attempt_id": 5}',
        '{"attempt_id": 5, "label": {"energy": 1.0}}',
        '{"attempt_id": 5, "label": {"energy": 1.0, "forces": [], "stress": null}}',
        '{"attempt_id": 5, "label": {"energy": NaN, "forces": [[0, 0, 0]], "stress": null}}',
        '{"attempt_id": 5, "label": {"energy": 1.0, "forces": [[0, Infinity, 0]], "stress": null}}',
        '{"attempt_id": 5, "label": {"energy": 1.0, "forces": [[0, 0]], "stress": null}}',
        '{"attempt_id": 5, "label": {"energy": 1.0, "forces": [[0, 0, 0]], "stress": ["a", 1, 1, 1, 1, 1]}}',
        '{"attempt_id": 5, "label": {"energy": 1.0, "forces": [[0, 0, 0]], "stress": [1, 1, 1]}}',
        '{"attempt_id": 5, "label": {"energy": 1' + 400 * "0" + ', "forces": [[0, 0, 0]], "stress": null}}',
        '{"attempt_id": 5, "label": [1, 2]}',
        '{"attempt_id": 5, "problem": {"verdict": "done", "text": "x"}}',
        '{"attempt_id": 5, "problem": "x"}',
        100_000 * "[",
        "\x00\x00",
    ],
)
def test_a_broken_result_is_never_a_label(tmp_path, broken):
    task = work(tmp_path, bulk("Cu"))
    (tmp_path / "result.json").write_text(broken)
    judgement = ENGINE.judge(task, Exit(code=0))
    assert judgement.verdict is Verdict.CRASHED
    assert judgement.label is None


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        (Exit(cause=Cause.TIMEOUT, signal=9), Verdict.TIMEOUT),
        (Exit(cause=Cause.MEMORY, signal=9), Verdict.OUT_OF_MEMORY),
        (Exit(cause=Cause.DRAIN, signal=15), Verdict.INTERRUPTED),
        (Exit(cause=Cause.NOT_STARTED, message="no room"), Verdict.INFRASTRUCTURE),
        (Exit(signal=9), Verdict.OUT_OF_MEMORY),
        (Exit(signal=15), Verdict.INTERRUPTED),
        (Exit(signal=11), Verdict.CRASHED),
    ],
)
def test_ends_without_a_result(tmp_path, end, verdict):
    assert ENGINE.judge(work(tmp_path, bulk("Cu")), end).verdict is verdict


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("OSError: [Errno 28] No space left on device", Verdict.INFRASTRUCTURE),
        ("numpy.core._exceptions._ArrayMemoryError: Unable to allocate", Verdict.OUT_OF_MEMORY),
        ("ZeroDivisionError: division by zero", Verdict.CRASHED),
        ("\x1b[2J\x07 strange", Verdict.CRASHED),
    ],
)
def test_the_last_line_of_its_standard_error_says_what_is_to_blame(tmp_path, line, verdict):
    (tmp_path / "stderr").write_text(f"Traceback\n{line}\n")
    judgement = ENGINE.judge(work(tmp_path, bulk("Cu")), Exit(code=1))
    assert judgement.verdict is verdict
    assert judgement.reason.isprintable()


def test_the_settings_are_checked():
    assert check_settings({"calculator": EMT_PATH}, ["Cu"]) == []
    assert "no calculator is named" in check_settings({}, ["Cu"])[0]
    problems = check_settings({"calculator": "ase.nowhere.X", "argumens": {}}, ["Cu"])
    assert "argumens" in problems[0]
    assert "ase.nowhere.X" in problems[1]


def test_what_doctor_says():
    assert ENGINE.find({"calculator": EMT_PATH}).ok
    assert not ENGINE.find({"calculator": "nowhere.X"}).ok


def test_task_json_holds_what_the_process_needs(tmp_path):
    task = work(tmp_path, bulk("Cu"))
    command = ENGINE.prepare(task)
    assert not command.mpi
    assert command.env["OMP_NUM_THREADS"] == "1"
    assert json.loads((tmp_path / "task.json").read_text())["attempt_id"] == 5
