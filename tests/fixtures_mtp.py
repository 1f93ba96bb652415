"""A small real potential for aluminium, labelled with EMT and trained once a session; and how to run a step."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from motep.potentials.mtp.data import MTPData

from db.records import Label, Structure
from tasks.formats.atoms import from_atoms
from tasks.mtp.active_set import ActiveSet, load_active_set
from tasks.mtp.data_sets import Sample, write_samples
from tasks.mtp.evaluator import open_potential
from tasks.mtp.training import train

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples" / "mlip"
AL = [13]
LATTICE = 4.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def aluminium(repeat: tuple[int, int, int], a: float = LATTICE) -> Structure:
    """fcc in its primitive cell, repeated."""
    return from_atoms(bulk("Al", "fcc", a=a).repeat(repeat))[0]


def labelled(count: int, seed: int, size: tuple[int, int, int] = (1, 1, 2)) -> list[Sample]:
    """Rattled and strained cells with EMT's energy, forces and stress."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        atoms = bulk("Al", "fcc", a=LATTICE * rng.uniform(0.94, 1.08)).repeat(size)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0.0, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.12, rng=rng)
        atoms.calc = EMT()
        label = Label.from_json(
            {
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces().tolist(),
                "stress": atoms.get_stress().tolist(),
            }
        )
        samples.append(Sample(from_atoms(atoms)[0], label))
    return samples


@dataclass(frozen=True)
class Trained:
    """What a training left behind."""

    root: Path
    facts: dict[str, Any]
    potential: MTPData
    active: ActiveSet


def train_spec(**changes: Any) -> dict[str, Any]:
    """The spec of a short training in the folder of :func:`trained`."""
    spec: dict[str, Any] = {
        "train": "train.cfg",
        "holdout": "holdout.cfg",
        "start": None,
        "level": 6,
        "species": ["Al"],
        "min_dist": 2.0,
        "max_dist": 5.5,
        "radial_basis_size": 6,
        "weights": {"energy": 1.0, "forces": 0.01, "stress": 0.001},
        "iterations": 40,
        "seed": 1,
    }
    return spec | changes


_FOLDER = tempfile.TemporaryDirectory(prefix="mtp-tests-")


@functools.cache
def trained() -> Trained:
    """Level 6 on 40 configurations of EMT aluminium: pot.mtp, active.npz, train.cfg, holdout.cfg."""
    root = Path(_FOLDER.name)
    write_samples(root / "train.cfg", labelled(30, 1) + labelled(10, 3, (1, 2, 2)), ["Al"])
    write_samples(root / "holdout.cfg", labelled(8, 2), ["Al"])
    facts = train(train_spec(), root, root)
    potential = open_potential(root / "pot.mtp", AL)
    return Trained(root, facts, potential, load_active_set(root / "active.npz", potential))


def explore_spec(**changes: Any) -> dict[str, Any]:
    """The spec of a short exploration with the potential of :func:`trained`."""
    spec: dict[str, Any] = {
        "potential": "pot.mtp",
        "active_set": "active.npz",
        "species": ["Al"],
        "structure": aluminium((1, 1, 4)).to_json(),
        "rattle": 0.02,
        "seed": 7,
        "temperature": 300.0,
        "pressure": None,
        "coupling": "iso",
        "steps": 300,
        "timestep_fs": 1.0,
        "gamma_save": 2.1,
        "gamma_break": 10.0,
        "max_saved": 20,
    }
    return spec | changes


def python(arguments: Sequence[str], where: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, in a process of its own, as a pilot would: LAMMPS brings MPI along."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=where,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_step(step: str, spec: dict[str, Any], where: Path, root: Path) -> tuple[int, dict[str, Any], str]:
    """Do one step in a process; its exit code, result.json, and what it printed."""
    task = {"step": step, "attempt_id": 5, "root": str(root), "threads": 1, "spec": spec}
    (where / "task.json").write_text(json.dumps(task))
    done = python(["-m", "tasks.steps"], where)
    result = where / "result.json"
    return done.returncode, json.loads(result.read_text()) if result.exists() else {}, done.stdout + done.stderr
