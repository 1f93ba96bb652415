"""The MPIs that tests start: Open MPI 4 of the machine, and what `make mpis` has put into .venv-mpi."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilot import host
from pilot.mpi.choose import Chooser
from pilot.mpi.protocol import MpiLauncher, Slot
from pilot.mpi.scrub import scrubbed

ROOT = Path(__file__).parent.parent
CORES = host.usable_cores()
PATIENCE_S = 90.0
_SYSTEM = "/usr/local/bin:/usr/bin:/bin"

#: what SLURM, and sites, put into the environment of a job; its nodes are not there
DIRT = {
    "SLURM_JOBID": "1",
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NODELIST": "node[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "0",
    "OMPI_MCA_plm_slurm_args": "--external-launcher",
    "PRTE_MCA_plm_slurm_args": "--external-launcher",
    "HYDRA_BOOTSTRAP": "slurm",
    "HYDRA_LAUNCHER_EXTRA_ARGS": "--external-launcher",
    "I_MPI_HYDRA_BOOTSTRAP": "slurm",
    "I_MPI_PMI_LIBRARY": "/usr/lib/libpmi.so",
    "I_MPI_PIN_PROCESSOR_LIST": "0",
}

#: a rank says: rank, size, sum over the ranks of (rank + 1), its cores, and what follows in its arguments
WHERE = """
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
os.write(1, f"{world.rank} {world.size} {total} {cores} {' '.join(sys.argv[1:])}\\n".encode())
"""


@dataclass(frozen=True)
class Mpi:
    """An MPI, with a Python whose mpi4py takes it."""

    name: str
    python: Path
    path: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def environ(self, **more: str) -> dict[str, str]:
        """A clean one, in which this MPI is the first on the PATH."""
        return {"PATH": self.path, "HOME": os.environ.get("HOME", "/"), **self.variables, **more}

    def launcher(self, environ: Mapping[str, str], extra: Sequence[str] = ()) -> MpiLauncher:
        return Chooser(self.name, environ, {}, extra).choose(2)

    def where(self, *words: str) -> list[str]:
        return [str(self.python), "-c", WHERE, *words]

    def run(self, command: Sequence[str], slot: Slot, dirt: Mapping[str, str] = DIRT, **how: str) -> host.Ran:
        """Start the command as the pilot does, in the environment of a job of SLURM."""
        environ = scrubbed({**dirt, **self.environ()})
        argv, added = self.launcher(environ).wrap(command, slot)
        return run(argv, {**environ, **added, **how})


def run(argv: Sequence[str], environ: Mapping[str, str], stdin: str = "", cwd: Path | None = None) -> host.Ran:
    done = subprocess.run(
        list(argv), env=dict(environ), input=stdin, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return host.Ran(done.returncode, done.stdout, done.stderr)


def _wheel(name: str, folder: str) -> Mpi:
    bin_ = ROOT / ".venv-mpi" / folder / "bin"
    return Mpi(name, bin_ / "python", f"{bin_}{os.pathsep}{_SYSTEM}")


#: under Open MPI 4 ours, told not to take the wheel of MPICH that is beside it
OPENMPI4 = Mpi("openmpi4", Path(sys.executable), _SYSTEM, {"MPI4PY_LIBMPI": "libmpi.so.40"})
OPENMPI5 = _wheel("openmpi5", "openmpi5")
MPICH = _wheel("mpich", "mpich")
INTELMPI = _wheel("intelmpi", "impi")
MPIS = {mpi.name: mpi for mpi in (OPENMPI4, OPENMPI5, MPICH, INTELMPI)}


def needed(name: str) -> Mpi:
    """That MPI; the test is skipped where it is not there."""
    mpi = MPIS[name]
    if len(CORES) < 2:
        pytest.skip("needs two cores")
    if not mpi.python.exists():
        pytest.skip(f"no {name} here: `make mpis` installs its wheel")
    if Chooser(name, mpi.environ()).findings()[name] is None:
        pytest.skip(f"no {name} here: its mpirun is not on {mpi.path}")
    return mpi
