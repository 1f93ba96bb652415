"""What a user of a campaign does between two pilots, and what it must not do to the science."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write
from folders import make_folder
from sqlalchemy import Connection, select

from db import attempt_table, dataset, pilot_table, task_table
from db.dataset import Candidate
from db.engine import open_writer
from db.errors import InputError
from db.records import Attempt, Label, NewTask, Task
from db.schema import attempts as attempt_rows
from db.schema import tasks
from db.states import EdgeKind, TaskKind, TaskState, Verdict
from pilot.campaign import cells, planner
from pilot.campaign.criteria import Turn
from pilot.campaign.driver import Driver
from pilot.campaign.explorations import exploring_generation
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Source
from pilot.config import read_config
from pilot.folder import Folder
from tasks.mtp.training import train
from tasks.protocol import Judgement

CONFIG = """
[campaign]
name = "test"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 3
holdout = 1
eos_points = 0
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
max_generations = 1
[label]
engine = "ase"
quorum = 0.5
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
[converge]
flat = 0
"""
MORE_GENERATIONS = CONFIG.replace("max_generations = 1", "max_generations = 5")
MORE_STAGES = CONFIG.replace("[label]\n", "[[stages]]\nrepeat = [2, 2, 2]\ntemperatures = [300]\n[label]\n")
OTHER_LABELS = CONFIG.replace("[train]", "arguments = { asap_cutoff = true }\n[train]")

SOURCE = Source(0, 0, "potentials/s1g00", "generations/s1g00")


def driver_of(root: Path, config: str) -> Driver:
    folder = make_folder(root, config)
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    return Driver(folder, protocol)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    writer = open_writer(Folder(make_folder(tmp_path, CONFIG).root).database)
    with writer.transaction() as opened:
        yield opened
    writer.close()


def insert(connection: Connection, tasks: list[NewTask]) -> None:
    task_table.insert_tasks(connection, tasks, 1.0)


def begun(connection: Connection, driver: Driver) -> None:
    """A campaign with its first potential, that is learning from its only generation when its pilot dies."""
    insert(connection, driver.begin(connection, 1.0).tasks)
    epoch = pilot_table.begin_pilot(connection, host="here", pid=1, job_id=None, at=1.0)
    train_id = task_of_key(connection, "s0g0-train").id
    attempts = [
        Attempt(
            id=1,
            task_id=train_id,
            pilot_id=epoch,
            number=1,
            node="n",
            cores=(0,),
            gpus=(),
            directory="a",
            started_at=1.0,
        )
    ]
    attempt_table.record_starts(connection, attempts)
    initial, first = dataset.read_generations(connection)
    dataset.add_potential(connection, initial.id, "potentials/s1g00", attempt_id=1, facts={}, at=1.0)
    learn(connection, driver, first, Turn.NOT_CONVERGED)


def learn(connection: Connection, driver: Driver, now: dataset.Generation, turn: Turn) -> None:
    broke = 0 if turn is Turn.CONVERGED else 1
    sweep = {"wanted": 1, "done": 1, "broke": broke, "selected": 4}
    dataset.note_generation(connection, now.id, {"sweep": sweep}, outcome=turn, at=1.0)
    cell = driver.protocol.stage_cell(0)
    found = [Candidate(cells.strained(cell, 0.1, 0.1, seed), "train", "s1g01") for seed in range(4)]
    new = planner.learning_generation(driver.protocol, 0, 1, found, SOURCE)
    dataset.add_structures(connection, found, now.id)
    insert(connection, [replace(task, generation=now.id) for task in new.tasks])


def task_of_key(connection: Connection, key: str) -> Task:
    row = connection.execute(select(tasks.c.id).where(tasks.c.key == key)).scalar_one()
    return task_table.read_tasks(connection, [row])[row]


def test_a_campaign_that_may_go_on_explores_with_the_potential_that_is_still_in_the_making(
    connection: Connection, tmp_path: Path
) -> None:
    begun(connection, driver_of(tmp_path, CONFIG))
    more = driver_of(tmp_path, MORE_GENERATIONS).begin(connection, 2.0)
    (explore,) = [task for task in more.tasks if task.kind is TaskKind.EXPLORE]
    assert explore.spec["potential"] == "potentials/s1g01/pot.mtp"
    assert explore.after == (("s0g1-train", EdgeKind.DONE),)
    (chosen,) = [task for task in more.tasks if task.kind is TaskKind.SELECT]
    assert chosen.spec["train"] == "generations/s1g01/train.cfg"


def test_a_converged_campaign_goes_on_when_a_stage_is_added_and_only_then(
    connection: Connection, tmp_path: Path
) -> None:
    driver = driver_of(tmp_path, CONFIG)
    begun(connection, driver)
    first = dataset.read_generations(connection)[-1]
    sweep = {"wanted": 1, "done": 1, "broke": 0, "selected": 0}
    dataset.note_generation(connection, first.id, {"sweep": sweep}, outcome=Turn.CONVERGED, at=1.0)
    assert driver.begin(connection, 2.0).tasks == []
    more = driver_of(tmp_path, MORE_STAGES).begin(connection, 3.0)
    assert {task.key for task in more.tasks} == {"s1g1-explore-300-1-0", "s1g1-select"}
    with pytest.raises(InputError, match="stage 2 has begun"):
        driver.begin(connection, 4.0)


def test_a_label_has_the_settings_that_it_was_planned_with(connection: Connection, tmp_path: Path) -> None:
    before = driver_of(tmp_path, CONFIG)
    begun(connection, before)
    task = next(t for t in labels_of(connection) if "initial train 1" in t.name)
    connection.execute(attempt_rows.update().values(task_id=task.id))
    attempt = Attempt(
        id=1, task_id=task.id, pilot_id=1, number=1, node="n", cores=(0,), gpus=(), directory="a", started_at=1.0
    )
    label = Label(1.0, tuple((0.0, 0.0, 0.0) for _ in task.spec["structure"]["numbers"]))
    after = driver_of(tmp_path, OTHER_LABELS)
    assert after.protocol.label_settings() != before.protocol.label_settings()
    # it was running when its pilot died; the next one, with another pilot.toml, finds it finished
    after.task_ended(connection, task, attempt, Judgement(Verdict.DONE, label=label), (), 2.0)
    assert dataset.count_labels(connection, after.protocol.label_settings()) == {}
    assert dataset.count_labels(connection, before.protocol.label_settings()) == {"train": 1}
    with pytest.raises(InputError, match="other settings"):
        after.begin(connection, 3.0)


def labels_of(connection: Connection) -> list[Task]:
    ids = connection.execute(select(tasks.c.id).where(tasks.c.kind == TaskKind.LABEL)).scalars().all()
    return list(task_table.read_tasks(connection, ids).values())


@pytest.mark.parametrize(("turn", "released"), [(Turn.SAME_STAGE, True), (Turn.NOT_CONVERGED, False)])
def test_the_last_fit_waits_for_all_its_labels(
    connection: Connection, tmp_path: Path, turn: Turn, released: bool
) -> None:
    driver = driver_of(tmp_path, CONFIG)
    begun(connection, driver)
    first = dataset.read_generations(connection)[-1]
    dataset.note_generation(connection, first.id, {}, outcome=turn, at=1.0)
    mine = [task.id for task in labels_of(connection) if task.generation == first.id]
    connection.execute(tasks.update().where(tasks.c.id.in_(mine[:2])).values(state=TaskState.RUNNING))
    connection.execute(tasks.update().where(tasks.c.id.in_(mine[:2])).values(state=TaskState.DONE))
    assert bool(driver.labels_changed(connection, first.id, 2.0).release) is released


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min_dist = 1.8", "min_dist = 2.9", "2.864 Å apart"),
        ("min_dist = 1.8", "min_dist = 1.8\nmax_dist = 2.5", "2.864 Å apart"),
        ("train = 3", "train = 3\nstrain = 0\nrattle = 0", "all cells would be the same"),
        ("temperatures = [300]", "temperatures = [300, 300.0]", "twice"),
        ("temperatures = [300]", "temperatures = [300]\npressures = [1, 1]", "twice"),
        ('structure = "fcc"\na = 4.05', 'file = "alloy.xyz"', "the crystal has Cu"),
        ('structure = "fcc"\na = 4.05', 'file = "molecule.xyz"', "not periodic"),
    ],
)
def test_what_would_give_numbers_that_mean_nothing_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    write(tmp_path / "alloy.xyz", Atoms("AlCu", [[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True))
    write(tmp_path / "molecule.xyz", Atoms("Al2", [[0, 0, 0], [2, 2, 2]]))
    with pytest.raises(InputError, match=said):
        driver_of(tmp_path, CONFIG.replace(old, new))


def test_conditions_that_differ_are_explorations_that_differ(tmp_path: Path) -> None:
    config = CONFIG.replace("temperatures = [300]", "temperatures = [300]\npressures = [1000000, 1000001]")
    driver = driver_of(tmp_path, config)
    made = exploring_generation(driver.protocol, 0, 1, SOURCE)
    assert len({task.key for task in made.tasks}) == len(made.tasks) == 3


def test_training_on_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is labelled"):
        train({"species": ["Al"], "train": None}, tmp_path, tmp_path)


def test_a_kgrid_of_a_stage_reaches_its_labels(tmp_path: Path) -> None:
    config = CONFIG.replace("eos_points = 0", "eos_points = 5\nkpoints = [6, 6, 3]")
    driver = driver_of(tmp_path, config.replace("[label]\n", "kpoints = [4, 4, 2]\n[label]\n"))
    first = planner.initial_generation(driver.protocol)
    assert {str(t.spec["kpoints"]) for t in first.tasks if t.kind is TaskKind.LABEL} == {"[6, 6, 3]"}
    found = [Candidate(driver.protocol.stage_cell(0), "train", "x")]
    later = planner.learning_generation(driver.protocol, 0, 1, found, SOURCE)
    assert {str(t.spec["kpoints"]) for t in later.tasks if t.kind is TaskKind.LABEL} == {"[4, 4, 2]"}
