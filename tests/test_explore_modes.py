"""Explorations of all modes with the real LAMMPS: liquids, neighbourhoods, committees, relaxations; resumed."""

import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from fixtures_mtp import AL, LATTICE, aluminium, explore_spec, python, run_step, train_spec, trained

from db.errors import InputError
from db.records import Label, Structure
from db.states import Verdict
from tasks.engines.lammps import ENGINE
from tasks.formats.atoms import from_atoms
from tasks.formats.mtp import write_potential
from tasks.mtp.active_neighbourhoods import build_of_neighbourhoods
from tasks.mtp.active_set import save_active_set
from tasks.mtp.data_sets import Sample, read_samples, write_samples
from tasks.mtp.dynamics import Dynamics, Melt
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.exploring import explore
from tasks.mtp.lammps_input import input_file
from tasks.mtp.training import train
from tasks.protocol import Exit, Work

engine = pytest.mark.engine

_FOLDER = tempfile.TemporaryDirectory(prefix="modes-tests-")
ANY = {"gamma_save": 1e-9, "gamma_break": 1e12}
HOT = {"potential": "hot/pot.mtp", "active_set": "hot/active.npz", **ANY}
MELT = {"temperature": 3500.0, "steps": 250, "cooling_steps": 400, "scale": 1.05}
CUBE = from_atoms(bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((2, 2, 2)))[0]


@functools.cache
def potentials() -> Path:
    """The folder of :func:`trained` with an active set of neighbourhoods and a second member of a committee."""
    root = Path(_FOLDER.name)
    shutil.copytree(trained().root, root, dirs_exist_ok=True)
    evaluator = Evaluator(trained().potential)
    training = [sample.structure for sample in read_samples(root / "train.cfg", ["Al"])]
    save_active_set(root / "active-nbh.npz", build_of_neighbourhoods(evaluator, training, AL))
    other = Evaluator(trained().potential).potential
    (root / "m1").mkdir(exist_ok=True)
    before = np.array(other.moment_coeffs)
    try:
        other.moment_coeffs = before * (1.0 + 0.02 * np.cos(np.arange(len(before))))
        write_potential(root / "m1" / "pot.mtp", other)
    finally:
        other.moment_coeffs = before
    hot(root / "hot")
    return root


def hot(root: Path) -> None:
    """A potential that knows atoms which are near each other or far apart: a crystal can be melted with it."""
    rng = np.random.default_rng(4)
    samples = []
    for number in range(24):
        atoms = bulk("Al", "fcc", a=LATTICE * rng.uniform(0.88, 1.15)).repeat((1 + number % 2, 2, 2))
        atoms.rattle(rng.uniform(0.05, 0.6), rng=rng)
        atoms.calc = EMT()
        label = Label(atoms.get_potential_energy(), tuple(map(tuple, atoms.get_forces().tolist())))
        samples.append(Sample(from_atoms(atoms)[0], label))
    root.mkdir(exist_ok=True)
    write_samples(root / "train.cfg", samples, ["Al"])
    write_samples(root / "holdout.cfg", samples[:2], ["Al"])
    train(train_spec(level=4, min_dist=1.5, max_dist=5.0, iterations=10, radial_basis_size=8), root, root)


def run(spec: dict[str, Any], where: Path) -> tuple[dict[str, Any], list[Sample]]:
    """Facts and what was kept."""
    where.mkdir(exist_ok=True)
    code, result, text = run_step("explore", spec, where, potentials())
    assert code == 0, text
    assert ENGINE.judge(Work(potentials(), where, 5, spec), Exit(code=0)).verdict is Verdict.DONE
    return result["facts"], read_samples(where / "preselected.cfg", ["Al"])


def thermo(where: Path) -> np.ndarray[Any, Any]:
    """step, temp, pe, ke, etotal, press, vol of log.lammps; of a step that ends a part and begins one the first."""
    rows: dict[int, list[float]] = {}
    for line in (where / "log.lammps").read_text().splitlines():
        words = line.split()
        if len(words) == 7 and words[0].isdigit():
            rows.setdefault(int(words[0]), [float(word) for word in words])
    return np.array([rows[step] for step in sorted(rows)])


def from_sites(structure: Structure, ideal: Structure) -> float:
    """Root mean square distance of the atoms from their sites, Å, the nearest image of each."""
    cell = np.array(structure.cell)
    inside = np.array(structure.positions) @ np.linalg.inv(cell)
    moved = inside - np.array(ideal.positions) @ np.linalg.inv(np.array(ideal.cell))
    moved -= np.rint(moved)
    moved -= np.rint(moved).mean(axis=0)
    return float(np.sqrt(((moved @ cell) ** 2).sum(axis=1).mean()))


@engine
def test_a_liquid_is_liquid_and_comes_to_the_cell_and_the_temperature_that_are_wanted(tmp_path: Path) -> None:
    wanted = {"structure": CUBE.to_json(), "temperature": 900.0, "steps": 250, "max_saved": 120, **HOT}
    _, solid = run(explore_spec(**wanted | {"max_saved": 4}), tmp_path / "crystal")
    facts, kept = run(explore_spec(**wanted, scenario="liquid", melt=MELT), tmp_path / "liquid")
    assert facts["steps"] == facts["steps_wanted"] == 900
    assert sum(json.loads((tmp_path / "liquid" / "gamma.json").read_text())["counts"]) == 901
    assert from_sites(solid[-1].structure, CUBE) < 0.6
    assert from_sites(kept[-1].structure, CUBE) > 1.0
    sides = {int(s.features["step"]): s.structure.cell[0][0] / CUBE.cell[0][0] for s in kept}
    assert all(side == pytest.approx(1.05, abs=1e-9) for step, side in sides.items() if step <= 250)
    assert all(side == pytest.approx(1.0, abs=1e-9) for step, side in sides.items() if step > 650)
    for step, side in sides.items():
        if 250 < step <= 650:  # linearly, across the ends of parts
            assert side == pytest.approx(1.05 - 0.05 * (step - 250) / 400, abs=2e-4)
    table = thermo(tmp_path / "liquid")
    hot, cold = table[(table[:, 0] > 190) & (table[:, 0] <= 250)], table[table[:, 0] > 750]
    # half of what the atoms were given went into the lattice first
    assert 2000 < hot[:, 1].mean() < 4500
    assert 600 < cold[:, 1].mean() < 1300


@engine
def test_a_liquid_at_constant_pressure_is_brought_to_its_cell_by_the_barostat(tmp_path: Path) -> None:
    melt = {**MELT, "steps": 100, "cooling_steps": 200}
    spec = explore_spec(
        structure=CUBE.to_json(), pressure=1.0, scenario="liquid", melt=melt, steps=100, temperature=900.0, **HOT
    )
    _, kept = run(spec, tmp_path)
    sides = {int(s.features["step"]): s.structure.cell[0][0] / CUBE.cell[0][0] for s in kept}
    assert {round(side, 9) for step, side in sides.items() if step <= 100} == {1.05}
    assert len({round(side, 6) for step, side in sides.items() if step > 100}) > 3
    text = (tmp_path / "in.lammps").read_text()
    assert "temp 3500 900 0.1 iso 1 1 1" in text
    assert "deform" not in text


@engine
def test_constant_volume_at_two_lattice_parameters(tmp_path: Path) -> None:
    pressures = []
    for a in (3.9, 4.15):
        cell = aluminium((2, 2, 2), a)
        _, kept = run(explore_spec(structure=cell.to_json(), steps=300, **ANY), tmp_path / f"{a}")
        volumes = [abs(np.linalg.det(np.array(sample.structure.cell))) for sample in kept]
        np.testing.assert_allclose(volumes, 8 * a**3 / 4, rtol=1e-10)
        pressures.append(thermo(tmp_path / f"{a}")[:, 5].mean())
    assert pressures[0] - pressures[1] > 50_000  # bar


@engine
def test_grades_of_neighbourhoods_are_written_and_the_highest_is_that_of_the_whole(tmp_path: Path) -> None:
    cubic = bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((3, 3, 3))
    del cubic[0]
    structure = from_atoms(cubic)[0]
    spec = explore_spec(
        structure=structure.to_json(), grade="neighbourhood", steps=4, max_saved=3, rattle=0.0, temperature=20.0, **ANY
    )
    facts, kept = run(spec, tmp_path)
    assert facts["saved"] == len(kept) > 1
    for sample in kept:
        assert sample.grades is not None
        assert len(sample.grades) == 107
        assert float(sample.features["MV_grade"]) == pytest.approx(sample.grades.max(), abs=1e-5)
    # the hole is what it does not know: its twelve neighbours have the highest grades
    first = kept[0]
    assert first.grades is not None
    positions = np.array(first.structure.positions)
    vectors = positions - np.rint(positions / 12.0) * 12.0
    near = np.flatnonzero(np.linalg.norm(vectors, axis=1) < 3.2)
    assert len(near) == 12
    assert set(np.argsort(-first.grades)[:12].tolist()) == set(near.tolist())


@engine
def test_a_committee_grades_by_its_disagreement(tmp_path: Path) -> None:
    spec = explore_spec(grade="committee", members=["m1/pot.mtp"], steps=60, max_saved=1000, temperature=900.0, **ANY)
    del spec["active_set"]
    facts, kept = run(spec, tmp_path)
    assert 1e-4 < facts["gamma_mean"] < facts["gamma_max"] < 1.0  # eV/Å
    assert all(s.grades is not None and len(s.grades) == 4 for s in kept)


@engine
def test_the_sample_is_uniform_in_the_grade(tmp_path: Path) -> None:
    spec = explore_spec(steps=1200, temperature=900.0, sample={"count": 60, "gamma": [0.3, 1.5]}, gamma_break=1e12)
    facts, _ = run(spec, tmp_path)
    sample = read_samples(tmp_path / "sample.cfg", ["Al"])
    assert facts["sampled"] == len(sample) == 60
    grades = np.array([float(one.features["MV_grade"]) for one in sample])
    steps = [int(one.features["step"]) for one in sample]
    assert steps == sorted(set(steps))
    assert steps[0] < 500 < 700 < steps[-1]
    counts = np.histogram(grades, np.linspace(0.3, 1.5, 21))[0]
    everything = json.loads((tmp_path / "gamma.json").read_text())
    assert sum(everything["counts"]) == 1201
    assert counts.sum() == 60
    assert np.median(counts) >= 3  # of three places for each, where the run has been there at all


def sheared(a: float, amount: float) -> Structure:
    atoms = bulk("Al", "fcc", a=a)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + amount * np.array([[0, 1, 0], [0, 0, 0.5], [0, 0, 0]])), True)
    return from_atoms(atoms)[0]


def lowest() -> tuple[float, float]:
    """Lattice parameter (Å) and energy (eV an atom) of fcc at the potential's minimum."""
    evaluator = Evaluator(trained().potential)
    found = [(evaluator.predict_structure(aluminium((1, 1, 1), a), AL).energy, a) for a in np.arange(3.9, 4.1, 0.001)]
    energy, a = min(found)
    return a, energy


def rattled(size: tuple[int, int, int], amount: float) -> Structure:
    atoms = bulk("Al", "fcc", a=LATTICE).repeat(size)
    atoms.rattle(amount, seed=3)
    return from_atoms(atoms)[0]


POOL = [aluminium((1, 1, 1), 4.1), sheared(3.95, 0.04), rattled((1, 1, 2), 0.1), aluminium((1, 1, 1), 4.9)]


def relax_spec(structures: Sequence[Structure], **changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {key: explore_spec()[key] for key in ("potential", "active_set", "species", "seed")}
    spec |= {
        "mode": "relax",
        "structures": [structure.to_json() for structure in structures],
        "relax": {"force": 0.002, "steps": 100, "cell": True},
        "gamma_save": 2.1,
        "gamma_break": 10.0,
        "max_saved": 20,
    }
    return spec | changes


def test_structures_are_relaxed_to_the_minimum_of_the_potential_and_the_unknown_one_is_left(tmp_path: Path) -> None:
    facts, kept = run(relax_spec(POOL), tmp_path)
    assert (facts["relaxed"], facts["unrelaxed"], facts["broken"]) == (3, 0, 1)
    assert facts["broke"] is True
    assert facts["broke_by"].startswith("structure 4: γ = ")
    assert (facts["steps"], facts["steps_wanted"]) == (3, 4)
    assert [sample.features["structure"] for sample in kept][-1] == "4"
    assert float(kept[-1].features["MV_grade"]) > 10.0
    a, energy = lowest()
    ends = read_samples(tmp_path / "relaxed.cfg", ["Al"])
    assert [end.features["structure"] for end in ends] == ["1", "2", "3"]
    for end in ends:
        assert end.label is not None
        assert end.label.stress is not None
        atoms = len(end.structure.numbers)
        assert end.label.energy / atoms == pytest.approx(energy, abs=2e-4)
        assert abs(np.linalg.det(np.array(end.structure.cell))) / atoms == pytest.approx(a**3 / 4, rel=2e-3)
        assert np.abs(end.label.forces).max() <= 0.002
        assert float(end.features["force"]) <= 0.002
        assert np.abs(end.label.stress).max() < 3e-4
        assert int(end.features["steps"]) > 1


def test_what_the_steps_do_not_suffice_for_is_unrelaxed_and_a_cell_may_be_held(tmp_path: Path) -> None:
    held = {"force": 1e-4, "steps": 2, "cell": False}
    facts, _ = run(relax_spec([POOL[2], aluminium((1, 1, 1), 4.1)], relax=held), tmp_path)
    assert (facts["relaxed"], facts["unrelaxed"], facts["broke"]) == (1, 1, False)
    ends = read_samples(tmp_path / "relaxed.cfg", ["Al"])
    assert [end.features["relaxed"] for end in ends] == ["no", "yes"]
    np.testing.assert_allclose(ends[1].structure.cell, aluminium((1, 1, 1), 4.1).cell, atol=1e-12)


def test_nonsense_breaks_with_its_reason(tmp_path: Path) -> None:
    nonsense = [aluminium((1, 1, 1), a) for a in (0.02, 0.4, 1.2, 40.0)]
    facts, kept = run(relax_spec(nonsense, gamma_break=1e300, gamma_save=1e299), tmp_path)
    assert facts["broken"] + facts["relaxed"] + facts["unrelaxed"] == 4
    assert facts["broken"] >= 2
    assert facts["broke_by"].startswith("structure 1: the cell ")
    assert len(kept) == facts["saved"] == 0


#: explores without interruption in one folder, and with two in another, each as soon as so many steps were asked for
RESUME = """
import json, os, sys
from pathlib import Path
sys.modules["mpi4py"] = None
from tasks.mtp import attention, exploring
root, tasks = json.loads(sys.argv[1])
look_up = attention.Attention.look_up
def explore(spec, where, after):
    left = [after]
    def look(self):
        left[0] -= 1
        self.stopped = self.stopped or left[0] == 0
        return False
    attention.Attention.look_up = look
    os.chdir(where)
    facts = exploring.explore(spec, Path(root), Path.cwd())
    return {k: v for k, v in facts.items() if k != "seconds"}
found = {}
here = Path.cwd()
for name, (spec, stops) in tasks.items():
    calm, disturbed = here / name / "calm", here / name / "disturbed"
    calm.mkdir(parents=True)
    disturbed.mkdir()
    found[name] = [explore(spec, calm, 0)]
    found[name] += [explore(spec, disturbed, after) for after in (*stops, 0)]
print(json.dumps(found))
"""


@engine
def test_every_mode_goes_on_and_ends_as_if_nobody_had_interrupted_it(tmp_path: Path) -> None:
    melt = {"temperature": 3000.0, "steps": 100, "cooling_steps": 300, "scale": 1.04}
    liquid = {
        "structure": CUBE.to_json(),
        "scenario": "liquid",
        "melt": melt,
        "steps": 80,
        "max_saved": 9,
        "sample": {"count": 12, "gamma": [0.1, 1e9]},
        **HOT,
    }
    hundred = from_atoms(bulk("Al", "fcc", a=LATTICE, cubic=True).repeat((2, 2, 3)))[0]
    tasks = {
        # the second interruption falls into the middle of cooling
        "liquid": (explore_spec(**liquid), (150, 270)),
        "liquid under pressure": (explore_spec(**liquid, pressure=1.0, coupling="tri"), (150, 270)),
        "neighbourhood": (
            explore_spec(grade="neighbourhood", structure=hundred.to_json(), steps=350, max_saved=5, **ANY),
            (190, 180),
        ),
        "committee": (explore_spec(grade="committee", members=["m1/pot.mtp"], steps=2200, **ANY), (1100, 1100)),
        "relax": (relax_spec(POOL, max_saved=4, gamma_save=0.5), (12, 12)),
    }
    done = python(["-c", RESUME, json.dumps([str(potentials()), tasks])], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in tasks:
        calm, first, second, last = found[name]
        assert first["stopped"] is second["stopped"] is True, name
        assert calm["resumed_at"] == first["resumed_at"] == []
        assert len(last["resumed_at"]) == 2
        assert 0 < last["resumed_at"][0] < last["resumed_at"][1], name
        assert {**last, "resumed_at": []} == calm, name
        for file in sorted((tmp_path / name / "calm").iterdir()):
            if file.name not in {"log.lammps", "checkpoint"}:
                assert (tmp_path / name / "disturbed" / file.name).read_bytes() == file.read_bytes(), (name, file.name)
    assert found["liquid"][3]["resumed_at"] == [100, 350]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "gas"}, "gas"),
        ({"scenario": "liquid"}, "melt"),
        ({"scenario": "liquid", "melt": {**MELT, "scale": 0.0}}, "scale"),
        ({"grade": "atoms"}, "atoms"),
        ({"grade": "committee"}, "disagree"),
        ({"mode": "relax"}, "structures, relax"),
    ],
)
def test_bad_input_of_these_modes_is_said_in_words(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        explore(explore_spec(**changes), potentials(), tmp_path)
    assert words in str(raised.value)


def test_the_input_of_a_liquid_can_be_read_by_a_person() -> None:
    dynamics = Dynamics(900.0, None, "iso", 500, 2.0, 1, melt=Melt(1500.0, 100, 200, 1.04))
    lines = input_file(dynamics, 4, np.diag([4.0, 5.0, 6.0])).splitlines()
    assert [line for line in lines if line.startswith(("run", "unfix"))] == [
        "run 100",
        "unfix move",
        "run 200",
        "unfix move",
        "unfix squeeze",
        "run 500",
    ]
    assert "fix move all nvt temp 1500 900 0.2" in lines
    squeeze = next(line for line in lines if "deform" in line)
    assert squeeze.startswith("fix squeeze all deform 1 x final 0 4.000000000000 y final 0 5")
