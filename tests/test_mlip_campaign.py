"""Whole campaigns with MLIP's programs, and one that moves to them between two runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from folders import make_folder
from mlip_programs import put_on_path
from sqlalchemy import text

from db import dataset
from db.engine import open_reader
from pilot.folder import Folder

CONFIG = """
[campaign]
name = "mlip"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.0
[initial]
train = 4
holdout = 1
eos_points = 0
repeat = [1, 1, 1]
[[stages]]
repeat = [1, 1, 1]
temperatures = [300]
max_generations = 4
{stages}
[explore]
engine = "{explore}"
ensemble = "nvt"
steps = 30
gamma_save = 3e3
gamma_break = 1e4
[select]
limit = 1
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
engine = "{train}"
level = 2
radial_basis_size = 4
min_dist = 1.5
first_iterations = 3
iterations = 3
[converge]
flat = 0
[run]
cores = 2
"""
SECOND_STAGE = "[[stages]]\nrepeat = [1, 1, 2]\ntemperatures = [900]\ngamma_save = 1.01"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    put_on_path(tmp_path / "bin", monkeypatch)
    return make_folder(tmp_path / "campaign")


def run(folder: Folder, train: str, explore: str, stages: str = "") -> str:
    """One ``pilot run`` to its end; what it said."""
    folder.config.write_text(CONFIG.format(train=train, explore=explore, stages=stages))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(folder.root)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def engines_of(folder: Folder, kind: str) -> list[str]:
    """Of the tasks of a kind that are done, in order."""
    with open_reader(folder.database) as connection:
        found = connection.execute(
            text("SELECT engine FROM tasks WHERE kind = :kind AND state = 'done' ORDER BY id"), {"kind": kind}
        )
        return [str(engine) for (engine,) in found]


def last_and_potentials(folder: Folder) -> tuple[dataset.Generation, list[dataset.Potential]]:
    with open_reader(folder.database) as connection:
        return dataset.read_generations(connection)[-1], dataset.read_potentials(connection)


def test_a_campaign_with_mlip_ends_converged(folder: Folder) -> None:
    run(folder, "mlip-3", "lammps-mlip")
    last, potentials = last_and_potentials(folder)
    assert last.outcome == "converged", last
    assert set(engines_of(folder, "train")) == {"mlip-3"}
    assert set(engines_of(folder, "explore")) == {"lammps-mlip"}
    for potential in potentials:
        # MLIP's own file is published, too
        assert (folder.root / potential.path / "pot.almtp").is_file()
        assert potential.facts["mlip"]["ended"]


def test_a_campaign_that_moves_from_motep_to_mlip_keeps_what_it_has(folder: Folder) -> None:
    run(folder, "motep", "lammps")
    last, before = last_and_potentials(folder)
    assert last.outcome == "converged", last
    labels = engines_of(folder, "label")
    published = [(folder.root / potential.path / "pot.mtp").read_bytes() for potential in before]
    run(folder, "mlip-3", "lammps-mlip", SECOND_STAGE)
    last, after = last_and_potentials(folder)
    assert (last.stage, last.outcome) == (1, "converged")
    # the first potentials are what they were, and the next one began where they ended, from all the labels
    assert [potential.path for potential in after[: len(before)]] == [potential.path for potential in before]
    assert [(folder.root / potential.path / "pot.mtp").read_bytes() for potential in before] == published
    assert engines_of(folder, "train") == ["motep"] * len(before) + ["mlip-3"] * (len(after) - len(before))
    assert "lammps-mlip" in engines_of(folder, "explore")
    assert len(after) > len(before), "nothing was learned in the second stage"
    facts = after[-1].facts
    assert facts["holdout_before"] is not None
    assert facts["configurations"] >= before[-1].facts["configurations"] + 1
    assert len(engines_of(folder, "label")) > len(labels)
