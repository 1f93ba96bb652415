"""Small real campaigns (EMT, LAMMPS, motep) through what goes beyond one crystal and one cell size, each to its end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write
from folders import make_folder
from sqlalchemy import select

from db import dataset
from db.engine import open_reader
from db.schema import tasks
from pilot.folder import Folder

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ALUMINIUM = """
[campaign]
name = "wide"
species = ["Al"]
if_not_converged = "continue"
[crystal]
structure = "fcc"
a = 4.0
[initial]
train = 10
holdout = 4
eos_points = 5
strain = 0.08
[explore]
steps = 60
timestep_fs = 2.0
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 4
min_dist = 1.8
max_dist = 4.6
radial_basis_size = 5
first_iterations = 20
iterations = 8
"""


def run(root: Path, config: str) -> Folder:
    """A campaign from its beginning to its end."""
    folder = make_folder(root, config)
    argv = [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(root)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    # 1: it ended, but has not converged
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    assert states(folder) == {"done"}, ended.stdout + ended.stderr
    return folder


def states(folder: Folder) -> set[str]:
    with open_reader(folder.copy) as connection:
        return set(connection.execute(select(tasks.c.state).distinct()).scalars())


def generations(folder: Folder) -> dict[tuple[int, int], dict[str, Any]]:
    with open_reader(folder.copy) as connection:
        return {(g.stage, g.number): dict(g.facts) for g in dataset.read_generations(connection)}


def facts_of(folder: Folder, kind: str) -> list[dict[str, Any]]:
    from db.schema import attempts

    with open_reader(folder.copy) as connection:
        question = select(attempts.c.facts).join(tasks, tasks.c.id == attempts.c.task_id).where(tasks.c.kind == kind)
        return [dict(facts) for facts in connection.execute(question).scalars()]


def labels_by_settings(folder: Folder) -> dict[str, dict[str, int]]:
    from sqlalchemy import func

    from db.schema import labels, structures

    with open_reader(folder.copy) as connection:
        question = (
            select(labels.c.settings, structures.c.role, func.count())
            .join(structures, structures.c.id == labels.c.structure_id)
            .group_by(labels.c.settings, structures.c.role)
        )
        found: dict[str, dict[str, int]] = {}
        for settings, role, count in connection.execute(question):
            found.setdefault(settings, {})[role] = count
        return found


def test_solid_and_liquid_then_labels_of_a_higher_fidelity(tmp_path: Path) -> None:
    """The way of the MLIP-2 paper's aluminium, in small: scenarios over a and T, then all is labelled anew."""
    stages = """
[[stages]]
repeat = [1, 2, 2]
ensemble = "nvt"
temperatures = [500]
lattice_parameters = [4.0, 4.1]
scenarios = ["crystal", "liquid"]
max_generations = 1
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
fidelity = "fine"
max_generations = 1
[explore.melt]
steps = 40
cooling_steps = 40
[label.fidelity.fine]
arguments = { asap_cutoff = true }
"""
    folder = run(tmp_path, ALUMINIUM + stages)
    found = generations(folder)
    assert list(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found[0, 1]["sweep"]["wanted"] == 4
    coarse, fine = sorted(labels_by_settings(folder).values(), key=lambda roles: "holdout" in roles, reverse=True)
    assert coarse["holdout"] == fine["holdout"] == 4
    assert fine["train"] >= coarse["train"]
    # the fit after the change knows nothing of the labels before it
    assert found[1, 0]["train"]["configurations"] == coarse["train"]
    assert found[1, 1]["of"] == [1, 0]


def test_an_ensemble_gives_error_bars_and_a_sample_answers_how_errors_go_with_grades(tmp_path: Path) -> None:
    config = (
        ALUMINIUM.replace("level = 4", "level = 6").replace("steps = 60", "steps = 60\ngamma_break = 1000")
        + "members = 3\n[[stages]]\nrepeat = [1, 1, 2]\ntemperatures = [300]\nmax_generations = 1\n"
    )
    config += (
        "[questions]\nsample = 6\ngamma = [0.1, 1000]\n[validation]\nelastic = true\n"
        "[converge]\nelastic = 30\nlattice_parameter = 0.5\n"
    )
    folder = run(tmp_path, config)
    found = generations(folder)
    evaluation = found[0, 0]["evaluation"]
    assert len(evaluation["members"]["eps_F"]) == 3
    assert evaluation["error_bars"]["eps_F"] > 0.0
    assert evaluation["elastic_dft"]["C11"] > evaluation["elastic_dft"]["C12"] > 0.0
    questions = found[0, 1]["questions"]
    assert 0 < questions["sample"]["n"] <= 6
    assert "sample" in labels_by_settings(folder)[next(iter(labels_by_settings(folder)))]
    why = found[0, 1]["why"]
    assert "elastic constants" in why
    assert "lattice parameter" in why


def test_a_committee_of_pair_potentials_explores_an_alloy_and_relaxes_a_pool(tmp_path: Path) -> None:
    write(tmp_path / "pool.extxyz", [bulk("Ag", "fcc", a=4.0), bulk("Pd", "fcc", a=4.0), bulk("Pd", "bcc", a=3.1)])
    config = (
        ALUMINIUM.replace('["Al"]', '["Ag", "Pd"]')
        .replace("a = 4.0\n", "a = 4.0\ncomposition = { Ag = 0.5, Pd = 0.5 }\n", 1)
        .replace("level = 4", 'engine = "pair"\nmembers = 3')
        .replace("steps = 60", 'steps = 60\ngrade = "committee"\ngamma_save = 0.02\ngamma_break = 1.0')
        .replace("train = 10", "train = 16")
    )
    config += "[[stages]]\nrepeat = [1, 2, 2]\ntemperatures = [300]\nmax_generations = 1\n"
    config += '[[stages]]\nmode = "relax"\nstructures = "pool.extxyz"\nmax_generations = 1\n'
    config += "[select]\nlimit = 3\n"
    folder = run(tmp_path / "alloy", config.replace("pool.extxyz", str(tmp_path / "pool.extxyz")))
    found = generations(folder)
    assert [key for key in found if key[1]] == [(0, 1), (1, 1)]
    assert all(facts["sweep"]["selected"] <= 3 for facts in found.values() if "sweep" in facts)
    relaxed = [facts for facts in facts_of(folder, "explore") if "relaxed" in facts]
    assert sum(facts["relaxed"] for facts in relaxed) + sum(facts["broke"] for facts in relaxed) >= 1


def test_extrapolative_neighbourhoods_of_a_large_cell_are_cut_out_and_learned(tmp_path: Path) -> None:
    stages = '[[stages]]\nrepeat = [3, 3, 3]\ncell = "conventional"\ntemperatures = [1200]\nmax_generations = 1\n'
    stages += 'grade = "neighbourhood"\nsteps = 30\n[explore.neighbourhoods]\nradius = 3.2\nvacuum = 4.0\n'
    stages += "[select]\nlimit = 4\n"
    folder = run(tmp_path, ALUMINIUM.replace("strain = 0.08", "strain = 0.03\nrattle = 0.03") + stages)
    with open_reader(folder.copy) as connection:
        clusters = [
            structure
            for structure, label, _ in dataset.read_labelled(connection, "train")
            if not any(structure.pbc) and label.stress is None
        ]
    assert 1 <= len(clusters) <= 4
    assert all(len(cluster.numbers) < 40 for cluster in clusters)
    assert generations(folder)[0, 1]["train"]["configurations"] == 10 + len(clusters)


def test_a_study_of_levels_ends_with_a_point_for_each(tmp_path: Path) -> None:
    folder = run(tmp_path, ALUMINIUM + "[study]\nlevels = [2, 4]\n")
    (facts,) = generations(folder).values()
    assert {"study-l2-1", "study-l4-1"} < set(facts)
    assert facts["why"] == "2 of 2 points of the study are done"
    errors = [facts[point]["holdout"]["eps_F"] for point in ("study-l2-1", "study-l4-1")]
    assert all(0.0 < error < 0.5 for error in errors)
