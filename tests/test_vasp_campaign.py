"""A real pilot runs a small campaign whose labels are VASP's: runs fail at first, and are mended."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Typist
from folders import make_folder
from sqlalchemy import select
from started_pilot import plain_pilot
from vasp_runs import library, program, work

from db.engine import open_reader
from db.schema import attempts, labels, tasks
from pilot.cli.checks_campaign import check_campaign, settings_to_find
from pilot.config import read_config
from pilot.folder import Folder
from pilot.packing import files
from pilot.packing.choice import Lot, Packable
from pilot.packing.errand import Pace
from tasks.engines.vasp import ENGINE

CAMPAIGN = """
[run]
env = {{ VASP_FAILS = "{fails}" }}
[campaign]
name = "vasp"
species = ["Al"]
seed = 5
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 2
holdout = 1
eos_points = 0
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 1]
temperatures = [300]
max_generations = 1
[explore]
steps = 20
[select]
limit = 1
[label]
engine = "vasp"
[label.vasp]
command = "{command}"
potcar_dir = "library"
encut = 250
kspacing = 0.6
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
radial_basis_size = 4
first_iterations = 5
iterations = 3
"""


def campaign(root: Path, fails: str = "") -> Folder:
    command = program(root / "bin")
    folder = make_folder(root / "campaign", CAMPAIGN.format(command=command, fails=fails))
    library(folder.root / "library", "Al")
    return folder


@pytest.mark.engine
def test_a_campaign_whose_runs_of_vasp_do_not_converge_at_first_goes_on_with_what_mends_them(tmp_path: Path) -> None:
    folder = campaign(tmp_path, "SLOSHES OF 2")
    assert plain_pilot(folder).wait(timeout=200) == 0, (tmp_path / "campaign.out").read_text()
    with open_reader(folder.copy) as connection:
        labelled = connection.execute(select(tasks).where(tasks.c.engine == "vasp")).all()
        facts = (
            connection.execute(
                select(attempts.c.facts)
                .where(attempts.c.task_id.in_([task.id for task in labelled]))
                .where(attempts.c.verdict == "done")
            )
            .scalars()
            .all()
        )
        verdicts = connection.execute(select(attempts.c.verdict)).scalars().all()
        known = connection.execute(select(labels)).all()
    assert len(labelled) >= 3
    assert {task.state for task in labelled} == {"done"}
    assert len(known) == len(labelled) == len(facts)
    mended = [fact["corrections"] for fact in facts if "corrections" in fact]
    assert mended
    assert all(corrections["ALGO"] == "All" for corrections in mended)
    assert verdicts.count("not converged") >= len(mended)
    assert all(fact["potcars"] == ["PAW_PBE Al 01Jan2000"] for fact in facts)
    # of the licensed files there is nothing left outside of the library
    everything = [path for path in folder.root.rglob("*") if path.is_file() and "library" not in path.parts]
    assert len(everything) > 30
    for path in everything:
        assert b"secret numbers" not in path.read_bytes(), path
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                assert not any(b"secret numbers" in archive.read(name) for name in archive.namelist())
    assert "tried again with" in (tmp_path / "campaign.out").read_text()


def test_a_potcar_of_a_run_that_was_never_judged_is_not_packed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    task = work(tmp_path / "elsewhere")
    place = folder.root / folder.attempt(3)
    place.mkdir(parents=True)
    ENGINE.prepare(replace(task, directory=place))
    assert b"secret numbers" in (place / "POTCAR").read_bytes()
    made = files.make(folder, Lot("tasks", (Packable(3, str(folder.attempt(3)), 10),)), 10**9, Pace())
    assert made.ids == (3,)
    with zipfile.ZipFile(folder.root / made.archive) as archive:
        assert "000003/INCAR" in archive.namelist()
        assert not any(b"secret numbers" in archive.read(name) for name in archive.namelist())


def test_doctor_says_what_is_there_of_vasp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = campaign(tmp_path)
    typed = Typist(folder.root, capsys, monkeypatch)
    said = " ".join(typed("doctor").out.split())
    assert "POTCAR: PAW_PBE Al 01Jan2000" in said
    assert f"POTCAR files in {folder.root / 'library'}" in said
    (folder.root / "library" / "Al" / "POTCAR").unlink()
    missing = " ".join(typed("doctor", code=3).out.split())
    assert "the POTCAR Al of Al does not exist" in missing
    assert "set label.vasp.potcar_dir" in missing


def test_what_doctor_asks_is_asked_of_the_folder_of_the_campaign(tmp_path: Path) -> None:
    folder = campaign(tmp_path)
    config = read_config(folder.config)
    wanted = settings_to_find(folder, config)
    assert json.dumps(wanted)
    assert wanted["potcars"] == {"Al": "Al"}
    assert ENGINE.find(wanted).ok
    assert all(finding.ok for finding in check_campaign(folder, config))
