"""What is kept of where a label comes from, and how it is handed on."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import ase.db
import ase.io
import pytest
from ase.build import bulk
from folders import make_folder
from sqlalchemy import Connection

from db import attempt_table, dataset, pilot_table, task_table
from db.dataset import Candidate
from db.engine import open_writer
from db.records import Attempt, Label, NewTask, Resources, Structure, Task
from db.states import Role, TaskKind, TaskState, Verdict
from pilot.campaign.driver import Driver
from pilot.campaign.from_config import protocol_of
from pilot.campaign.provenance import provenance_of
from pilot.cli.exporting import export_campaign
from pilot.config import read_config
from pilot.folder import Folder
from tasks.formats.atoms import from_atoms
from tasks.formats.cfg import read_cfg
from tasks.protocol import Judgement

CONFIG = """
[campaign]
name = "test"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path, CONFIG)


@pytest.fixture
def connection(folder: Folder) -> Iterator[Connection]:
    writer = open_writer(folder.database)
    with writer.transaction() as opened:
        yield opened
    writer.publish_copy(folder.copy)
    writer.close()


def driver_of(folder: Folder) -> Driver:
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    return Driver(folder, protocol)


def structure_of(seed: int) -> Structure:
    atoms = bulk("Al")
    atoms.rattle(0.1, seed=seed)
    return from_atoms(atoms)[0]


def label_it(connection: Connection, driver: Driver, new: NewTask, number: int) -> tuple[Task, Attempt]:
    """A task of the kind label ends well."""
    ((task,), _) = task_table.insert_tasks(connection, [new], 1.0)
    epoch = pilot_table.begin_pilot(connection, host="here", pid=1, job_id=None, at=1.0)
    attempt = Attempt(number, task.id, epoch, 1, "here", (0,), (), f"runs/000/{number:06d}", 1.0)
    attempt_table.record_starts(connection, [attempt])
    facts = {"seconds": 0.5, "version": "3.29", "scf_steps": None}
    label = Label(-1.0, ((0.0, 0.0, 0.1),), (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3))
    driver.task_ended(connection, task, attempt, Judgement(Verdict.DONE, "", facts, label), [], 2.0)
    return task, attempt


def test_a_label_keeps_task_attempt_engine_and_version(folder: Folder, connection: Connection) -> None:
    driver = driver_of(folder)
    (new,), _ = driver.add_labels(connection, [(structure_of(1), "x")])
    task, attempt = label_it(connection, driver, new, 9)
    ((_, _, about),) = dataset.read_labelled(connection, "train")
    assert about["provenance"] == {
        "task": task.id,
        "attempt": attempt.id,
        "number": 1,
        "engine": "ase",
        "version": "3.29",
        "seconds": 0.5,
    }
    table = dataset.read_settings(connection)[about["settings"]]
    assert table["engine"] == "ase"
    assert table["table"]["calculator"] == "ase.calculators.emt.EMT"


def test_the_version_is_found_by_whatever_name_the_engine_has_for_it() -> None:
    task = Task(1, TaskKind.LABEL, "qe", "label", TaskState.RUNNING, {"fidelity": "high"}, resources=Resources())
    attempt = Attempt(2, 1, 1, 3, "here", (0,), (), "runs/000/000002", 1.0)
    facts = {"qe_version": "6.7", "scf_steps": 9, "kpoints": [4, 4, 2], "energy": -1.0, "max_force": 0.1}
    assert provenance_of(task, attempt, Judgement(Verdict.DONE, "", facts)) == {
        "task": 1,
        "attempt": 2,
        "number": 3,
        "engine": "qe",
        "version": "6.7",
        "scf_steps": 9,
        "kpoints": [4, 4, 2],
        "fidelity": "high",
    }


def test_each_role_is_exported_to_its_own_file_with_what_is_known(folder: Folder, tmp_path: Path) -> None:
    driver = driver_of(folder)
    settings = driver.protocol.label_settings()
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        generation = dataset.add_generation(connection, 0, 3, 1.0)
        for number, role in enumerate(Role):
            candidate = Candidate(structure_of(number), role, f"a {role}", 2.5 if role is Role.TRAIN else None)
            dataset.add_structures(connection, [candidate], generation)
            label = Label(-1.0 - number, ((0.0, 0.0, 0.1),))
            origin = {"engine": "vasp", "version": "6.3", "file": "x/OUTCAR", "index": number}
            for name in (settings, "older"):
                dataset.add_label(
                    connection,
                    candidate.structure.content_hash(),
                    label,
                    settings=name,
                    attempt_id=None,
                    at=1.0,
                    provenance=origin,
                )
    writer.publish_copy(folder.copy)
    writer.close()
    place = tmp_path / "out"
    export_campaign(folder, place)
    for role in Role:
        for path in (place / f"{role}.extxyz", place / "other-settings" / "older" / f"{role}.extxyz"):
            assert ase.io.read(path).info["role"] == role
    atoms = ase.io.read(place / "train.extxyz")
    known = {"source": "a train", "settings": settings, "generation": "s1g03", "grade": 2.5, "engine": "vasp 6.3"}
    assert known.items() <= atoms.info.items()
    with ase.db.connect(place / "train.db") as database:
        assert known.items() <= database.get(1).data.items()
    features = dict(next(read_cfg(place / "train.cfg")).features)
    assert (features["source"], features["MV_grade"], features["generation"]) == ("a train", "2.5", "s1g03")
    with (place / "provenance.csv").open() as file:
        (train,) = [line for line in csv.DictReader(file) if line["set"] == "train"]
    assert (train["engine"], train["version"], train["imported_from"]) == ("vasp", "6.3", "x/OUTCAR")
    assert (train["stage"], train["generation"], train["gamma"]) == ("1", "3", "2.5000")
    names = json.loads((place / "settings.json").read_text())
    assert names[settings]["present"]
    assert names["older"]["labels"] == dict.fromkeys(Role, 1)
