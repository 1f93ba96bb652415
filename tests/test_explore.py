"""Explore with the real LAMMPS: the physics is right, and every way of ending is in order."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from fixtures_mtp import AL, aluminium, explore_spec, python, run_step, trained

from db.errors import InputError
from db.records import Structure
from db.states import Verdict
from tasks.engines.lammps import ENGINE
from tasks.formats.atoms import from_atoms
from tasks.mtp.data_sets import read_samples
from tasks.mtp.dynamics import Dynamics
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.exploring import explore
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.keeping import Keeper, Moment
from tasks.mtp.lammps_input import input_file, lower_triangular
from tasks.protocol import Exit, Work

engine = pytest.mark.engine

#: bar in one eV/Å³
BAR = 1.602176634e6

#: runs in.lammps-like input with the test potential and prints what the caller asks for
DRIVER = """
import json, sys
from pathlib import Path
import numpy as np
from db.errors import InputError
from db.records import Structure
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.exploring import write_input
from tasks.mtp.extrapolation_control import Explorer, Limits
from tasks.mtp.dynamics import Dynamics
from tasks.mtp.lammps_library import Lammps
from tasks.mtp.model import MODEL
ask = json.loads(sys.argv[1])
root = Path(ask["root"])
potential = open_potential(root / "pot.mtp", [13])
grader = MODEL.grader(root, [13], "configuration", skin=0.6)
structure = Structure.from_json(ask["structure"])
types = np.zeros(len(structure.numbers), np.int32)
dynamics = Dynamics(**ask["dynamics"])
write_input(Path("."), structure, [13], dynamics, ask["rattle"])
explorer = Explorer(grader, types, Limits(1e9, 1e9, 1), dynamics.steps)
record = []
with Lammps(Path("log.lammps")) as lammps:
    def push(step, tags, positions, cell):
        answer = explorer.push(step, tags, positions, cell)
        seen.append((positions.copy(), cell.copy(), answer))
        return answer
    seen = []
    *setup, run = Path("in.lammps").read_text().splitlines()
    for line in setup:
        lammps.command(line)
        if line.startswith("fix pf "):
            lammps.set_force_field("pf", push)
    for _ in range(ask["blocks"]):
        lammps.command(f"run {dynamics.steps // ask['blocks']}")
        record.append([lammps.thermo(n) for n in ("etotal", "press", "temp", "vol", "pxx", "pyz", "ke", "pe")])
positions, cell, answer = seen[-1]
late = seen[len(seen) // 4 :]
virial = float(np.mean([a.virial[:3].mean() / abs(np.linalg.det(c)) for _, c, a in late]))
volume = float(np.mean([abs(np.linalg.det(c)) for _, c, _ in late]))
stress = Evaluator(potential).predict(types, positions, cell).stress.tolist()
print(json.dumps({"record": record, "stress": stress, "virial": virial, "volume": volume, "broke": explorer.broke}))
"""


def drive(tmp_path: Path, structure: Structure, blocks: int, **dynamics: object) -> dict[str, object]:
    trained()
    base = {
        "temperature": 300.0,
        "pressure": None,
        "coupling": "iso",
        "steps": 400,
        "timestep_fs": 1.0,
        "seed": 3,
        "thermostat": True,
    }
    ask = {
        "root": str(trained().root),
        "structure": structure.to_json(),
        "dynamics": base | dynamics,
        "rattle": 0.05,
        "blocks": blocks,
    }
    done = python(["-c", "import sys; sys.modules['mpi4py'] = None\n" + DRIVER, json.dumps(ask)], tmp_path)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@engine
def test_energy_is_conserved_and_pressure_is_minus_the_stress(tmp_path: Path) -> None:
    seen = drive(tmp_path, aluminium((2, 2, 2)), 10, thermostat=False, steps=400)
    record = np.array(seen["record"])
    energies = record[:, 0]
    kinetic = record[:, 6]
    assert np.ptp(kinetic) > 0.02
    assert np.ptp(energies) < 0.02 * np.ptp(kinetic)
    # pressure of LAMMPS, bar = (kinetic part) - stress; 1 eV/Å³ = 1602176.6 bar
    _, press, _, volume, pxx, pyz, kinetic_energy, _ = record[-1]
    stress = np.array(seen["stress"])
    assert press == pytest.approx(BAR * (2.0 * kinetic_energy / (3.0 * volume) - stress[:3].mean()), rel=1e-4)
    # off the diagonal and on it the order of the components is right: the kinetic part is small there
    assert abs(pyz + BAR * stress[3]) < 0.3 * abs(press) + 3e3
    assert abs(pxx - press + BAR * (stress[0] - stress[:3].mean())) < 0.5 * BAR * kinetic_energy / volume


@engine
def test_the_mean_pressure_is_the_one_asked_for(tmp_path: Path) -> None:
    seen = drive(tmp_path, aluminium((1, 2, 2)), 1, pressure=40_000.0, coupling="tri", steps=2500)
    assert not seen["broke"]
    # the virial's part, averaged over all steps, and the kinetic part of 3 free atoms at 300 K
    pressure = BAR * (seen["virial"] + 3 * 300.0 * 8.617333e-5 / seen["volume"])
    assert pressure == pytest.approx(40_000.0, abs=6_000.0)


@engine
@pytest.mark.parametrize(
    "structure",
    [
        aluminium((1, 1, 2)),
        from_atoms(bulk("Al", "bcc", a=3.2).repeat((1, 1, 4)))[0],
        from_atoms(bulk("Al", "bcc", a=3.2))[0],
    ],
)
def test_small_slanted_cells_run_to_the_end(tmp_path: Path, structure: Structure) -> None:
    spec = explore_spec(
        structure=structure.to_json(), pressure=1.0, coupling="tri", steps=200, gamma_save=1e8, gamma_break=1e9
    )
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 0, text
    facts = result["facts"]
    assert facts["steps"] == facts["steps_wanted"] == 200
    assert facts["broke"] is False
    gamma = json.loads((tmp_path / "gamma.json").read_text())
    assert sum(gamma["counts"]) == 201
    assert gamma["max"] == facts["gamma_max"] > facts["gamma_mean"] > 0.0
    assert len(gamma["steps"]) == len(gamma["gamma"]) <= 1001
    log = (tmp_path / "log.lammps").read_text()
    assert not [line for line in log.splitlines() if "WARNING" in line and "skew" not in line]
    assert ENGINE.judge(Work(trained().root, tmp_path, 5, spec), Exit(code=0)).verdict is Verdict.DONE


@engine
def test_what_is_above_the_limits_is_saved_with_its_grade(tmp_path: Path) -> None:
    spec = explore_spec(gamma_save=0.05, gamma_break=1e9, steps=400, max_saved=16, temperature=600.0)
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 0, text
    facts = result["facts"]
    kept = read_samples(tmp_path / "preselected.cfg", ["Al"])
    assert 8 <= len(kept) == facts["saved"] <= 16 < facts["above_save"]
    steps = [int(sample.features["step"]) for sample in kept]
    assert steps == sorted(set(steps))
    assert steps[-1] > 150  # spread over the run, not its beginning
    evaluator = Evaluator(trained().potential)
    for sample in kept:
        evaluator.predict_structure(sample.structure, AL)
        grade = trained().active.grade(evaluator.row())
        assert grade == pytest.approx(float(sample.features["MV_grade"]), abs=1e-5)
        assert grade > 0.05


@engine
def test_same_seed_same_run(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        spec = explore_spec(gamma_save=0.05, gamma_break=1e9, steps=60, pressure=1.0)
        run_step("explore", spec, tmp_path / name, trained().root)
        texts.append((tmp_path / name / "preselected.cfg").read_text())
    assert texts[0] == texts[1] != ""


@engine
def test_the_configuration_that_breaks_is_saved_and_ending_early_is_a_success(tmp_path: Path) -> None:
    spec = explore_spec(gamma_save=0.05, gamma_break=2.0, steps=20_000, temperature=6000.0, max_saved=5)
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 0, text
    facts = result["facts"]
    assert facts["broke"] is True
    assert facts["above_break"] == 1
    assert facts["steps"] < 20_000
    last = read_samples(tmp_path / "preselected.cfg", ["Al"])[-1]
    assert float(last.features["MV_grade"]) > 2.0
    assert int(last.features["step"]) == facts["steps"]
    assert float(last.features["MV_grade"]) == pytest.approx(facts["gamma_max"], abs=1e-5)
    assert ENGINE.judge(Work(trained().root, tmp_path, 5, spec), Exit(code=0)).verdict is Verdict.DONE


@engine
@pytest.mark.parametrize(
    "changes",
    [
        {"structure": from_atoms(bulk("Al", "fcc", a=1.2).repeat((1, 1, 2)))[0].to_json()},
        {"structure": from_atoms(bulk("Al", "fcc", a=40.0).repeat((1, 1, 2)))[0].to_json(), "temperature": 9e5},
        {"rattle": 1.5, "pressure": 1e7, "coupling": "tri"},
        {"temperature": 5e5, "pressure": -5e6, "coupling": "tri", "timestep_fs": 5.0},
        {
            "structure": {
                "numbers": [13, 13],
                "positions": [[1, 1, 1], [1, 1, 1]],
                "cell": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
                "pbc": [True] * 3,
            },
            "rattle": 0.0,
        },
    ],
)
def test_nonsense_ends_in_order(tmp_path: Path, changes: dict[str, object]) -> None:
    # with no limit to speak of, so that the nonsense is met and not avoided
    spec = explore_spec(steps=1000, gamma_break=1e300, gamma_save=1e200) | changes
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 0, text
    facts = result["facts"]
    assert facts["broke"] or facts["steps"] == 1000
    assert math.isfinite(facts["gamma_max"])
    assert len(read_samples(tmp_path / "preselected.cfg", ["Al"])) == facts["saved"]


@engine
def test_a_file_named_stop_ends_it(tmp_path: Path) -> None:
    spec = explore_spec(steps=10_000_000, gamma_save=1e8, gamma_break=1e9)
    (tmp_path / "stop").write_text("")
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 0, text
    assert result["facts"]["stopped"] is True
    assert ENGINE.judge(Work(trained().root, tmp_path, 5, spec), Exit(code=0)).verdict is Verdict.INTERRUPTED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coupling": "cubic"}, "cubic"),
        ({"potential": "nowhere.mtp"}, "nowhere.mtp"),
        ({"species": ["Al", "Cu"]}, "1 species"),
        ({"species": ["Cu"]}, "unknown to the potential"),
        ({"structure": aluminium((1, 1, 1)).to_json() | {"pbc": [True, True, False]}}, "periodic"),
    ],
)
def test_bad_input_is_said_in_words(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        explore(explore_spec(**changes), trained().root, tmp_path)
    assert words in str(raised.value)


def test_bad_input_ends_the_process_with_three(tmp_path: Path) -> None:
    spec = explore_spec(potential="nowhere.mtp")
    code, result, text = run_step("explore", spec, tmp_path, trained().root)
    assert code == 3
    assert "nowhere.mtp" in result["error"]
    assert "nowhere.mtp" in text
    assert "Traceback" not in text
    judged = ENGINE.judge(Work(trained().root, tmp_path, 5, spec), Exit(code=3))
    assert judged.verdict is Verdict.BAD_INPUT
    assert "nowhere.mtp" in judged.reason
    assert not (tmp_path / "preselected.cfg").exists()


@pytest.mark.parametrize("mirror", [False, True])
def test_turning_the_cell_keeps_the_crystal(mirror: bool) -> None:
    potential = trained().potential
    atoms = bulk("Al", "bcc", a=3.1).repeat((1, 1, 3))
    atoms.rattle(0.2, rng=np.random.default_rng(1))
    cell, positions = atoms.cell.array.copy(), atoms.positions.copy()
    if mirror:
        cell = cell[[1, 0, 2]]
    crystal = lower_triangular(cell, positions)
    turned, placed = crystal.cell, crystal.positions
    back = crystal.given_vectors(turned)
    np.testing.assert_allclose(back @ back.T, cell @ cell.T, atol=1e-9)
    np.testing.assert_allclose(turned[np.triu_indices(3, 1)], 0.0, atol=1e-12)
    assert (np.diag(turned) > 0.0).all()
    for row, column in ((1, 0), (2, 0), (2, 1)):
        assert abs(turned[row, column]) <= 0.5 * turned[column, column] + 1e-9
    evaluator, types = Evaluator(potential), np.zeros(len(atoms), np.int32)
    before = evaluator.predict(types, positions, cell)
    after = evaluator.predict(types, placed, turned)
    assert after.energy == pytest.approx(before.energy, rel=1e-12)
    np.testing.assert_allclose(np.linalg.norm(after.forces, axis=1), np.linalg.norm(before.forces, axis=1), atol=1e-10)


def test_the_input_is_what_the_spec_says() -> None:
    dynamics = Dynamics(450.0, 20.0, "aniso", 500, 2.0, 2**40)
    text = input_file(dynamics, 4, np.eye(3))
    assert "fix move all npt temp 450 450 0.2 aniso 20 20 2 flip no" in text
    assert "timestep 0.002" in text
    assert text.rstrip().endswith("run 500")
    assert "nvt" in input_file(Dynamics(450.0, None, "iso", 500, 2.0, 1), 4, np.eye(3))


def test_the_keeper_thins_evenly() -> None:
    keeper = Keeper(10)
    for step in range(1000):
        keeper.offer(lambda step=step: Moment(step, 3.0, np.zeros((1, 3)), np.eye(3)))
    steps = [moment.step for moment in keeper.kept]
    assert 5 <= len(steps) <= 10
    assert steps[-1] > 600
    keeper.insist(Moment(5000, 20.0, np.zeros((1, 3)), np.eye(3)))
    assert keeper.kept[-1].step == 5000
    assert len(keeper.kept) <= 10


def test_the_record_counts_everything_and_stays_small() -> None:
    record = GammaRecord(100_000)
    for step in range(100_001):
        record.add(step, 0.5 if step != 777 else 50.0)
    record.add(100_001, math.inf)
    data = record.to_json()
    assert sum(data["counts"]) == 100_002
    assert len(data["steps"]) <= 1002
    assert 777 in data["steps"]
    assert data["mean"] == pytest.approx(0.5 + 49.5 / 100_001)
    assert json.loads(json.dumps(data)) == data
