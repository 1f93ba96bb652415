"""How the pilot's own ranks are started, one on each node of an allocation. Pure.

The wheel ``mpich``, which mpi4py finds in our environment, speaks PMI-2: srun can start it on any SLURM with nothing
from the site. Its own ``mpiexec``, and the ``mpirun`` of a site's Open MPI, are the other ways.
"""

from collections.abc import Sequence
from pathlib import PurePath

from db.errors import InputError
from pilot.slurm.commands import srun_world

#: The library that mpi4py must load where Open MPI starts the ranks: it would take the wheel's. And whoever has
#: started the pilot as root (on a test machine) need not be asked by Open MPI whether he meant it.
_OPEN_MPI = {
    "MPI4PY_LIBMPI": "libmpi.so.40",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}

Start = tuple[list[str], dict[str, str]]


def start_ranks(way: str, nodes: Sequence[str], argv: Sequence[str], *, job_nodes: int = 0) -> Start:
    """What to start, and what to add to the environment.

    Args:
        way: "srun", "mpiexec" (of the wheel mpich) or "mpirun" (of Open MPI).
        nodes: one rank on each.
        argv: what each rank is: our Python, beside which the wheel has put its ``mpiexec``, and its arguments.
        job_nodes: how many nodes the job has in all; 0: just these.

    Raises:
        InputError: there is no such way.
    """
    match way:
        case "srun":
            return list(srun_world(nodes, argv)), {}
        case "mpiexec":
            return _mpiexec(nodes, argv)
        case "mpirun":
            return _mpirun(nodes, argv, max(job_nodes, len(nodes)))
    raise InputError(f"ranks cannot be started by {way!r}", where="run.world in pilot.toml")


def _mpiexec(nodes: Sequence[str], argv: Sequence[str]) -> Start:
    ours = str(PurePath(argv[0]).with_name("mpiexec"))
    options = ["-launcher", "slurm", "-hosts", ",".join(nodes), "-ppn", "1", "-n", str(len(nodes))]
    # a rank that dies must not end the others
    return [ours, *options, "-disable-auto-cleanup", "-bind-to", "none", *argv], {}


def _mpirun(nodes: Sequence[str], argv: Sequence[str], job_nodes: int) -> Start:
    options = ["--host", ",".join(nodes), "-np", str(len(nodes)), "--map-by", "node", "--bind-to", "none"]
    # what Open MPI reads of the job must tell of one rank on each of *its* nodes: with fewer it mistakes them
    added = _OPEN_MPI | {"SLURM_TASKS_PER_NODE": "1" if job_nodes == 1 else f"1(x{job_nodes})"}
    return ["mpirun", *options, "-x", "MPI4PY_LIBMPI", *argv], added
