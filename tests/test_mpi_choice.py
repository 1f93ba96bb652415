"""Which launcher is chosen, for which program, on which PATH: with launchers and libraries made up."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from db.errors import InputError, MissingError
from db.records import Share
from pilot.mpi import choose
from pilot.mpi.choose import LAUNCHERS, Chooser
from pilot.mpi.protocol import Slot
from pilot.mpi.through_slurm import hosts

JOB = {"SLURM_JOB_ID": "17"}
ANSWERS = {
    "openmpi4": ("mpirun", "mpirun (Open MPI) 4.1.6"),
    "openmpi5": ("mpirun", "mpirun (Open MPI) 5.0.3"),
    "intelmpi": ("mpiexec.hydra", "Intel(R) MPI Library for Linux* OS, Version 2021.12 Build 20240213 (id: 4f55822)"),
    "mpich": ("mpiexec", "HYDRA build details:\n    Version:                                 4.1.2"),
    "srun": ("srun", "slurm 23.11.4"),
}
VERSIONS = {"openmpi4": "4.1.6", "openmpi5": "5.0.3", "intelmpi": "2021.12", "mpich": "4.1.2", "srun": "23.11.4"}

Path_ = Callable[..., dict[str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path_:
    """An environment whose PATH has these launchers, in this order."""

    def made(*names: str) -> dict[str, str]:
        for name in names:
            program, answer = ANSWERS[name]
            (tmp_path / name).mkdir(exist_ok=True)
            file = tmp_path / name / program
            file.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
            file.chmod(0o755)
        return {"PATH": os.pathsep.join([*(str(tmp_path / name) for name in names), "/bin"])}

    return made


@pytest.fixture
def linked_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    return lambda library: monkeypatch.setattr(choose, "library_of", lambda program, environ: library)


@pytest.fixture(autouse=True)
def no_launcher_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """/bin, needed for the shell, has an mpirun."""
    look = choose.Search._look if hasattr(choose, "Search") else None
    assert look is None
