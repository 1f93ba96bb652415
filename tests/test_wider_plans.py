"""What a campaign plans beyond one crystal: systems, modes, fidelities, ensembles, questions, studies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from folders import make_folder
from sqlalchemy import Connection

from db import dataset
from db.dataset import Candidate
from db.engine import open_writer
from db.errors import InputError
from db.records import NewTask
from db.states import EdgeKind, TaskKind
from pilot.campaign import planner
from pilot.campaign.cells import volume_per_atom
from pilot.campaign.driver import Driver
from pilot.campaign.explorations import exploring_generation
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol, Source
from pilot.config import read_config

HEAD = """
[campaign]
name = "wide"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.0
[initial]
train = 4
holdout = 2
eos_points = 3
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
"""
STAGE = """
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
"""
COMMITTEE = '[explore]\ngrade = "committee"\ngamma_save = 0.1\ngamma_break = 0.5\n'
FILE = HEAD.replace('structure = "fcc"\na = 4.0', 'file = "al.cif"')
SCALED = 'structures = "pool.extxyz"\nensemble = "nvt"\nlattice_parameters = [4.0]'
SOURCE = Source(0, 0, "potentials/s1g00", "generations/s1g00", to_be_trained=True)


def plan(root: Path, text: str) -> Protocol:
    folder = make_folder(root, text)
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    return protocol


def of_kind(tasks: list[NewTask], kind: TaskKind) -> list[NewTask]:
    return [task for task in tasks if task.kind is kind]


def explorations(protocol: Protocol, stage: int = 0) -> list[NewTask]:
    return of_kind(exploring_generation(protocol, stage, 1, SOURCE).tasks, TaskKind.EXPLORE)


def test_solid_and_liquid_over_lattice_parameters_and_temperatures(tmp_path: Path) -> None:
    """Stage 1b of the MLIP-2 paper's aluminium: fcc and liquid, a from 4.0 to 4.25 Å, 700 to 1100 K."""
    stage = """
[[stages]]
repeat = [2, 2, 2]
cell = "conventional"
ensemble = "nvt"
temperatures = [700, 1100]
lattice_parameters = [4.0, 4.25]
scenarios = ["crystal", "liquid"]
gamma_save = 5
gamma_break = 5
[explore.melt]
temperature = 1500
steps = 100
cooling_steps = 200
"""
    made = explorations(plan(tmp_path, HEAD + stage))
    assert len(made) == 8
    assert len({task.key for task in made}) == len({task.spec["seed"] for task in made}) == 8
    assert {task.spec["gamma_break"] for task in made} == {5.0}
    assert {task.spec["pressure"] for task in made} == {None}
    (liquid,) = [task for task in made if task.name == "explore 700 K a = 4 Å liquid"]
    (solid,) = [task for task in made if task.name == "explore 700 K a = 4.25 Å"]
    assert liquid.spec["melt"] == {"temperature": 1500.0, "steps": 100, "cooling_steps": 200, "scale": 1.0625}
    assert "melt" not in solid.spec
    assert liquid.size - solid.size == 300 * 32
    edges = {round(task.spec["structure"]["cell"][0][0], 6) for task in made}
    assert edges == {8.0, 8.5}


def test_a_pool_is_relaxed_a_few_structures_at_a_time(tmp_path: Path) -> None:
    write(tmp_path / "pool.extxyz", [bulk("Al", "fcc", a=4.0 + 0.01 * k) for k in range(7)])
    stage = '[[stages]]\nmode = "relax"\nstructures = "pool.extxyz"\n[explore.relax]\nat_once = 3\n'
    protocol = plan(tmp_path, HEAD + stage)
    made = explorations(protocol)
    assert [len(task.spec["structures"]) for task in made] == [3, 3, 1]
    assert made[0].spec["mode"] == "relax"
    assert made[0].spec["relax"] == {"force": 0.01, "steps": 300, "cell": True}
    assert [task.name for task in made] == ["relax 1 to 3", "relax 4 to 6", "relax 7"]


def test_structures_that_the_user_brings_are_explored_each(tmp_path: Path) -> None:
    write(tmp_path / "two.extxyz", [bulk("Al", "bcc", a=3.2), bulk("Al", "hcp", a=2.86)])
    stage = '[[stages]]\nstructures = "two.extxyz"\ntemperatures = [300, 600]\n'
    made = explorations(plan(tmp_path, HEAD + stage))
    assert sorted({len(task.spec["structure"]["numbers"]) for task in made}) == [1, 2]
    assert len({task.key for task in made}) == 4


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        ([bulk("Cu")], "structure 1 has Cu"),
        ([bulk("Al"), bulk("Al") * (1, 1, 1)], None),
    ],
)
def test_a_pool_with_strangers_is_refused(tmp_path: Path, atoms: list[object], said: str | None) -> None:
    write(tmp_path / "pool.extxyz", atoms)
    text = HEAD + '[[stages]]\nmode = "relax"\nstructures = "pool.extxyz"\n'
    if said is None:
        assert len(plan(tmp_path, text).pools[0]) == len(atoms)
        return
    with pytest.raises(InputError, match="species"):
        plan(tmp_path, text)


def test_a_random_alloy_has_other_sites_in_each_cell(tmp_path: Path) -> None:
    text = HEAD.replace('species = ["Al"]', 'species = ["Ag", "Pd"]').replace(
        "a = 4.0", "a = 4.0\ncomposition = { Ag = 0.5, Pd = 0.5 }"
    )
    protocol = plan(tmp_path, text + STAGE.replace("[1, 1, 2]", "[2, 2, 2]").replace("[300]", "[300, 600, 900]"))
    occupied = {tuple(task.spec["structure"]["numbers"]) for task in explorations(protocol)}
    assert len(occupied) == 3
    initial = planner.initial_generation(protocol)
    assert {z for c in initial.candidates for z in c.structure.numbers} == {46, 47}
    curve = [c.structure for c in initial.candidates if c.role == "eos"]
    assert len({c.numbers for c in curve}) == 1
    assert planner.initial_generation(protocol) == initial


@pytest.mark.parametrize(
    ("crystal", "species", "atoms", "conventional"),
    [
        ('structure = "rocksalt"\nformula = "NaCl"\na = 5.64', ["Na", "Cl"], 2, 8),
        ('structure = "zincblende"\nformula = "GaAs"\na = 5.65', ["As", "Ga"], 2, 8),
        ('structure = "cesiumchloride"\nformula = "CsCl"\na = 4.12', ["Cs", "Cl"], 2, 2),
        ('structure = "wurtzite"\nformula = "ZnO"\na = 3.25\nc = 5.2', ["Zn", "O"], 4, 4),
        ('structure = "diamond"\na = 5.43', ["Si"], 2, 8),
        ('structure = "hcp"\na = 3.2', ["Mg"], 2, 2),
    ],
)
def test_crystals_by_name(tmp_path: Path, crystal: str, species: list[str], atoms: int, conventional: int) -> None:
    text = HEAD.replace('structure = "fcc"\na = 4.0', crystal).replace('["Al"]', str(species).replace("'", '"'))
    protocol = plan(tmp_path, text.replace("min_dist = 1.8", "min_dist = 1.2\nmax_dist = 6") + STAGE)
    assert len(protocol.cells["primitive"].numbers) == atoms
    assert len(protocol.cells["conventional"].numbers) == conventional
    volumes = {round(volume_per_atom(protocol.cells[name]), 6) for name in ("primitive", "conventional")}
    assert len(volumes) == 1


def test_an_ensemble_is_trained_side_by_side_and_a_committee_waits_for_all_of_it(tmp_path: Path) -> None:
    text = HEAD + "members = 3\n" + STAGE
    protocol = plan(tmp_path, text)
    fits = of_kind(planner.initial_generation(protocol).tasks, TaskKind.TRAIN)
    assert [fit.key for fit in fits] == ["s0g0-train", "s0g0-train-m1", "s0g0-train-m2"]
    assert len({fit.spec["seed"] for fit in fits}) == 3
    (evaluation,) = of_kind(planner.initial_generation(protocol).tasks, TaskKind.EVALUATE)
    assert evaluation.after[1:] == (("s0g0-train-m1", EdgeKind.ENDED), ("s0g0-train-m2", EdgeKind.ENDED))
    assert {task.after for task in explorations(protocol)} == {(("s0g0-train", EdgeKind.DONE),)}
    committee = plan(tmp_path, text + '[explore]\ngrade = "committee"\ngamma_save = 0.1\ngamma_break = 0.5\n')
    (task,) = explorations(committee)
    assert {key for key, _ in task.after} == {fit.key for fit in fits}
    assert task.spec["members"] == ["potentials/s1g00-m1/pot.mtp", "potentials/s1g00-m2/pot.mtp"]
    later = planner.learning_generation(protocol, 0, 1, [], SOURCE)
    starts = [fit.spec["start"] for fit in of_kind(later.tasks, TaskKind.TRAIN)]
    assert starts == ["potentials/s1g00/pot.mtp", *task.spec["members"]]


def test_the_selection_waits_for_what_the_potential_is_worth(tmp_path: Path) -> None:
    protocol = plan(tmp_path, HEAD + STAGE)
    (select,) = of_kind(exploring_generation(protocol, 0, 1, SOURCE).tasks, TaskKind.SELECT)
    assert ("s0g0-evaluate", EdgeKind.ENDED) in select.after
    assert select.spec["of"] == [0, 0]


def test_neighbourhoods_are_graded_cut_out_and_have_an_active_set_of_their_own(tmp_path: Path) -> None:
    protocol = plan(tmp_path, HEAD + STAGE + 'grade = "neighbourhood"\n')
    sweep = exploring_generation(protocol, 0, 1, SOURCE)
    (select,) = of_kind(sweep.tasks, TaskKind.SELECT)
    assert select.spec["neighbourhoods"] == {"radius": 8.0, "vacuum": 9.0}
    assert {task.spec["grade"] for task in of_kind(sweep.tasks, TaskKind.EXPLORE)} == {"neighbourhood"}
    (fit,) = of_kind(planner.initial_generation(protocol).tasks, TaskKind.TRAIN)
    assert fit.spec["neighbourhoods"] is True


FIDELITY = """
[label.fidelity.fine]
arguments = { asap_cutoff = true }
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
fidelity = "fine"
[[stages]]
repeat = [2, 2, 2]
temperatures = [300]
"""


def test_from_a_stage_on_labels_may_be_of_another_fidelity(tmp_path: Path) -> None:
    protocol = plan(tmp_path, HEAD + FIDELITY)
    names = [protocol.label_settings(stage) for stage in range(3)]
    assert names[0] != names[1] == names[2]
    known = [c for c in planner.initial_generation(protocol).candidates if c.role == "train"]
    anew = planner.relabelling_generation(protocol, 1, known)
    labels = of_kind(anew.tasks, TaskKind.LABEL)
    assert {task.spec["settings"]["arguments"]["asap_cutoff"] for task in labels} == {True}
    assert {(task.key or "").split("-", 2)[2] for task in labels} == {names[1]}
    (fit,) = of_kind(anew.tasks, TaskKind.TRAIN)
    assert fit.spec["start"] is None
    assert len(fit.after) == len(known)


def test_a_sample_trains_nothing_and_holds_nobody_up(tmp_path: Path) -> None:
    protocol = plan(tmp_path, HEAD + STAGE + "[questions]\nsample = 20\nevery = 2\n")
    assert {"sample" in task.spec for task in explorations(protocol)} == {False}
    second = exploring_generation(protocol, 0, 2, SOURCE)
    assert {task.spec["sample"]["count"] for task in of_kind(second.tasks, TaskKind.EXPLORE)} == {20}
    drawn = [Candidate(protocol.stage_cell(0), "sample", "x", 0.5)]
    made = planner.sampling(protocol, 0, 2, drawn, SOURCE)
    (label,) = made.loose
    (question,) = made.tasks
    assert question.after == ((label.key, EdgeKind.ENDED),)
    assert question.spec["potential"] == "potentials/s1g00/pot.mtp"


def test_a_study_fits_all_levels_to_the_same_data_side_by_side(tmp_path: Path) -> None:
    protocol = plan(tmp_path, HEAD + "[study]\nlevels = [4, 6]\nseeds = 2\n")
    made = planner.initial_generation(protocol)
    fits = of_kind(made.tasks, TaskKind.TRAIN)
    assert [(fit.spec["level"], fit.key) for fit in fits] == [
        (4, "study-l4-1-train"),
        (4, "study-l4-2-train"),
        (6, "study-l6-1-train"),
        (6, "study-l6-2-train"),
    ]
    assert len({fit.after for fit in fits}) == 1
    assert len(of_kind(made.tasks, TaskKind.EVALUATE)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "stages"),
        (HEAD + STAGE + 'structures = "x.cif"\n', "either `repeat`"),
        (HEAD + "[[stages]]\nrepeat = [1, 1, 2]\n", "temperatures"),
        (HEAD + STAGE + 'fidelity = "fine"\n', "label.fidelity.fine"),
        (HEAD + STAGE + "gamma_break = 1.0\n", "gamma_break"),
        (HEAD + STAGE + 'grade = "committee"\n', "train.members"),
        (HEAD + STAGE + "[label.fidelity.fine]\necutwfc = 3\n", "fidelity.fine.ecutwfc"),
        (HEAD.replace("min_dist", 'engine = "mtop"\nmin_dist') + STAGE, "motep"),
        (HEAD + "members = 2\nlevel = 4\n" + STAGE, "members of levels 2 and 4"),
        (HEAD + "members = 2\n" + STAGE + 'grade = "committee"\n', "gamma_save is in eV/Å and has no default"),
        (HEAD + "members = 2\n" + STAGE + COMMITTEE + 'engine = "lammps-mlip"\n', "no committee"),
        (HEAD + 'engine = "pair"\n' + STAGE, "no active set"),
        (HEAD + 'engine = "pair"\nmembers = 2\n' + STAGE + COMMITTEE + 'engine = "lammps-mlip"\n', "no potentials of"),
        (HEAD + STAGE + '[explore]\nengine = "lammps-mlip"\n[explore.plugin]\nstyle = "mlip-2"\n', "mlip-2"),
        (HEAD + STAGE + "[label.fidelity.fine]\nkpoints = [4, 0, 4]\n", "fidelity.fine.kpoints"),
        (HEAD + STAGE + "lattice_parameters = [4.0, 4.1]\n", 'ensemble = "nvt"'),
        (HEAD.replace("a = 4.0", 'file = "al.cif"') + STAGE, "leave out crystal.structure"),
        (FILE + STAGE + 'ensemble = "nvt"\nlattice_parameters = [4.0]\n', "need crystal.a"),
        (FILE + STAGE + 'scenarios = ["liquid"]\n[explore.melt]\nlattice_parameter = 4.2\n', "needs crystal.a"),
        (HEAD + STAGE.replace("repeat = [1, 1, 2]", SCALED), "scale the crystal"),
        (HEAD + STAGE + 'scenarios = ["liquid"]\n[explore.melt]\ntemperature = 100\n', "then cooled"),
        (HEAD + STAGE + 'mode = "relax"\n', "leave out temperatures"),
        (HEAD + STAGE + "max_generations = 2\nclean_sweeps = 3\n", "3 clean sweeps"),
        (HEAD + STAGE + "[select]\nvolume_range = [2, 0.5]\n", "the crystal itself"),
        (HEAD + STAGE + "[questions]\nsample = 5\ngamma = [10, 0.1]\n", "[lowest, highest]"),
        (HEAD + '[[stages]]\nrepeat = [1, 1, 2]\nmode = "relax"\n[questions]\nsample = 5\n', "all stages relax"),
        (HEAD + STAGE + "[study]\nlevels = [4, 6]\n", "two campaigns"),
        (HEAD + "[study]\nlevels = [4, 5, 30]\n", "study.levels has 5, 30"),
        (HEAD + "[study]\nlevels = [4, 4]\n", "twice"),
        (HEAD + 'engine = "pair"\n[study]\nlevels = [4, 6]\n', "no levels"),
        (HEAD + "members = 3\n[study]\nlevels = [4, 6]\n", "study.seeds"),
        (HEAD + "[study]\nlevels = [4, 6]\n[questions]\nsample = 5\n", "a study has none"),
        (HEAD + STAGE + "[converge]\nlattice_parameter = 0.01\n", "initial.eos_points must be at least 5"),
        (HEAD + STAGE + "[converge]\nelastic = 5\n", "validation.elastic"),
        (HEAD.replace('"ase"', '"ase"\natom_energies = { Cu = -1.0 }') + STAGE, "label.atom_energies has Cu"),
        (HEAD.replace('["Al"]', '["Al", "Al"]') + STAGE, "twice"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, text: str, said: str) -> None:
    folder = make_folder(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_config(folder.config)
    assert said in str(caught.value)


def test_all_that_contradicts_itself_is_told_at_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, HEAD + "members = 3\n[study]\nlevels = [4, 5]\n[converge]\nelastic = 5\n")
    with pytest.raises(InputError, match=r"study\.levels has 5.*study\.seeds.*converge\.elastic"):
        read_config(folder.config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + STAGE + "[select]\nmin_distance = 3.0\n", "min_distance is 3 Å"),
        (HEAD.replace("min_dist", 'engine = "mlip-3"\nmlip.template = "no.mtp"\nmin_dist') + STAGE, "template"),
        (HEAD + STAGE + '[label.fidelity.fine]\ncalculator = "no.such.Thing"\n', "fidelity fine: "),
        (HEAD + '[[stages]]\nstructures = "near.extxyz"\ntemperatures = [300]\n', "below train.min_dist"),
        (HEAD.replace('"fcc"', '"rocksalt"') + STAGE, "cannot be built"),
    ],
)
def test_what_files_and_crystal_forbid_is_told_before_anything_is_labelled(
    tmp_path: Path, text: str, said: str
) -> None:
    near = bulk("Al", cubic=True)
    near.positions[1] = near.positions[0] + 0.4
    write(tmp_path / "near.extxyz", near)
    with pytest.raises(InputError) as caught:
        plan(tmp_path, text)
    assert said in str(caught.value)
    assert caught.value.next_step


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    writer = open_writer(make_folder(tmp_path / "other", HEAD + STAGE).database)
    with writer.transaction() as opened:
        yield opened
    writer.close()


def test_levels_can_be_added_to_a_study(tmp_path: Path, connection: Connection) -> None:
    folder = make_folder(tmp_path, HEAD)
    for levels, expected in (("[4]", 1), ("[4, 6]", 2)):
        protocol = plan(tmp_path, HEAD + f"[study]\nlevels = {levels}\n")
        tasks = Driver(folder, protocol).begin(connection, 1.0).tasks
        assert len(of_kind(tasks, TaskKind.TRAIN)) == expected
    assert [(g.stage, g.number) for g in dataset.read_generations(connection)] == [(0, 0)]


def test_errors_on_a_holdout_need_a_holdout(tmp_path: Path, connection: Connection) -> None:
    text = HEAD.replace("holdout = 2", "holdout = 0") + STAGE + "[converge]\nforce_error = 0.01\n"
    folder = make_folder(tmp_path, text)
    with pytest.raises(InputError, match=r"converge\.force_error can never be known"):
        Driver(folder, plan(tmp_path, text)).begin(connection, 1.0)
