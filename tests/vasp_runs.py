"""Runs of a program that behaves like VASP (tests/programs/vasp_std), in this process or as one of their own."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from db.records import Resources
from tasks.engines.vasp import ENGINE
from tasks.formats.atoms import from_atoms
from tasks.protocol import Exit, Judgement, Work

PROGRAM = Path(__file__).parent / "programs" / "vasp_std"
SPECIES = ["Cu", "Al", "Ag"]
_POTCAR = """  PAW_PBE {name} 01Jan2000
   1.00000000000000
 parameters from PSCTR are:
   VRHFIN ={symbol}: made up
   LEXCH  = PE
   TITEL  = PAW_PBE {name} 01Jan2000
   ENMAX  =  {enmax}; ENMIN  =   100.000 eV
 secret numbers of {name}
 End of Dataset
"""


def library(folder: Path, *names: str, enmax: float = 240.0) -> Path:
    """A folder of POTCAR files that hold nothing but a head."""
    for name in names or SPECIES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = _POTCAR.format(name=name, symbol=name.partition("_")[0], enmax=f"{enmax:.3f}")
        (folder / name / "POTCAR").write_text(text)
    return folder


def program(folder: Path) -> Path:
    """The program as an executable of this Python, in a folder for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vasp_std"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} "$@"\n')
    path.chmod(0o755)
    return path


def work(folder: Path, atoms: Atoms | None = None, *, attempt: int = 17, kpoints: Any = None, **settings: Any) -> Work:
    """A task that labels; by default two atoms of Al."""
    directory = folder / f"{attempt}"
    directory.mkdir(parents=True)
    structure, _ = from_atoms(bulk("Al", a=4.04) * (1, 1, 2) if atoms is None else atoms)
    spec = {
        "structure": structure.to_json(),
        "species": SPECIES,
        "kpoints": kpoints,
        "settings": {
            "potcar_dir": str(library(folder / "library")),
            "encut": 300.0,
            "kspacing": 0.4,
            **settings,
        },
    }
    return Work(root=folder, directory=directory, attempt_id=attempt, spec=spec, resources=Resources())


def run(task: Work, **environ: str) -> Exit:
    """Prepare, and run in this process."""
    ENGINE.prepare(task)
    return run_prepared(task, environ)


def run_prepared(task: Work, environ: Mapping[str, str]) -> Exit:
    """Run in this process what was prepared; starting Python and ASE anew takes most of the time of a real run."""
    with (task.directory / "vasp.out").open("w") as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (task.directory / "vasp.err").touch()
        return Exit(code=_module().main(task.directory, environ, out))


def start(task: Work, **environ: str) -> subprocess.Popen[bytes]:
    """Prepare, and start as a process of its own."""
    command = ENGINE.prepare(task)
    argv = [sys.executable, str(PROGRAM)]
    env = {**os.environ, **command.env, **environ}
    with (task.directory / command.stdout).open("wb") as out, (task.directory / command.stderr).open("wb") as err:
        return subprocess.Popen(argv, cwd=task.directory, env=env, stdout=out, stderr=err, stdin=subprocess.DEVNULL)


def judged(task: Work, **environ: str) -> Judgement:
    """Prepare, run in this process, judge."""
    return ENGINE.judge(task, run(task, **environ))


def strained() -> Atoms:
    """Five atoms of three elements in an order of their own, with forces, and all six components of stress."""
    atoms = bulk("Al", a=4.0, cubic=True)
    atoms.set_chemical_symbols(["Al", "Cu", "Al", "Ag"])
    atoms.rattle(0.08, seed=3)
    deformation = np.array([[1.02, 0.01, 0.0], [0.0, 0.99, 0.03], [0.02, 0.0, 1.01]])
    atoms.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return atoms


def _module() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("vasp_std", str(PROGRAM))
    spec = importlib.util.spec_from_loader("vasp_std", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
