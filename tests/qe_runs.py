"""Real runs of pw.x for tests: small cells, one rank."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from db.records import Resources
from tasks.engines.qe import ENGINE
from tasks.formats.atoms import from_atoms
from tasks.protocol import Exit, Work

PSEUDO = Path("/usr/share/espresso/pseudo")
ALUMINIUM = {"pseudopotentials": {"Al": "Al.pz-vbc.UPF"}, "ecutwfc": 12, "kspacing": 1.4, "degauss": 0.05}
ALONE = {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
needs_files = pytest.mark.skipif(not (PSEUDO / "Al.pz-vbc.UPF").is_file(), reason="needs quantum-espresso-data")
DEADLINE_S = 60.0


def needs_pw(test: Any) -> Any:
    """Mark a test that runs pw.x, or reads what a run of it has written."""
    there = shutil.which("pw.x") is not None and (PSEUDO / "Al.pz-vbc.UPF").is_file()
    return pytest.mark.engine(pytest.mark.skipif(not there, reason="needs pw.x and quantum-espresso-data")(test))


def work(folder: Path, atoms: Any = None, *, kpoints: Any = None, attempt: int = 17, **settings: Any) -> Work:
    """A task that labels aluminium."""
    folder.mkdir(exist_ok=True)
    structure, _ = from_atoms(bulk("Al", a=4.04) if atoms is None else atoms)
    spec = {
        "structure": structure.to_json(),
        "species": ["Al"],
        "kpoints": kpoints,
        "settings": {**ALUMINIUM, **settings},
    }
    return Work(root=folder, directory=folder, attempt_id=attempt, spec=spec, resources=Resources())


def start(task: Work) -> subprocess.Popen[bytes]:
    """Prepare an attempt and start it."""
    command = ENGINE.prepare(task)
    env = {**os.environ, **ALONE, **command.env}
    with (task.directory / command.stdout).open("wb") as out, (task.directory / command.stderr).open("wb") as err:
        return subprocess.Popen(
            command.argv, cwd=task.directory, env=env, stdout=out, stderr=err, stdin=subprocess.DEVNULL
        )


def finish(process: subprocess.Popen[bytes]) -> Exit:
    """Wait for its end."""
    code = process.wait(timeout=DEADLINE_S)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)


def run(task: Work) -> Exit:
    """Prepare, start, wait."""
    return finish(start(task))


def long_work(folder: Path, **settings: Any) -> Work:
    """Some ten seconds of work on one core."""
    only = {"system": {"nosym": True, "noinv": True}}
    return work(folder, kpoints=[5, 5, 5], ecutwfc=70, conv_thr=1e-13, input=only, **settings)


def wait_for(task: Work, words: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until it has printed something."""
    deadline = time.monotonic() + DEADLINE_S
    while words not in (task.directory / "pw.out").read_text():
        assert process.poll() is None, "it ended before it printed " + words
        assert time.monotonic() < deadline, "it never printed " + words
        time.sleep(0.005)


def middling_work(folder: Path, **settings: Any) -> Work:
    """A second or two of work on one core, in some eight SCF steps."""
    only = {"system": {"nosym": True, "noinv": True}}
    return work(folder, sheared(), kpoints=[4, 4, 1], ecutwfc=30, conv_thr=1e-11, input=only, **settings)


def until_step(task: Work, step: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for the beginning of an SCF step."""
    wait_for(task, f"iteration #{step:3d}", process)


def sheared() -> Any:
    """Two atoms with forces, in a cell with all six components of stress."""
    atoms = bulk("Al", a=4.04) * (1, 1, 2)
    atoms.rattle(0.1, seed=4)
    deformation = np.array([[1.02, 0.01, 0.0], [0.0, 0.99, 0.03], [0.02, 0.0, 1.01]])
    atoms.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return atoms
