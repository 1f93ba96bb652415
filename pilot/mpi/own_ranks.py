"""How the pilot's own ranks are started, one on each node of an allocation. Pure.

The wheel ``mpich``, which mpi4py finds in our environment, speaks PMI-2: srun can start it on any SLURM with nothing
from the site. Its own ``mpiexec``, and the ``mpirun`` of a site's Open MPI, are the other ways.
"""

from collections.abc import Callable, Sequence
from pathlib import PurePath

from pilot.slurm.commands import srun_world

#: The library that mpi4py must load where Open MPI starts the ranks: it would take the wheel's. And whoever has
#: started the pilot as root (on a test machine) need not be asked by Open MPI whether he meant it.
_OPEN_MPI = {
    "MPI4PY_LIBMPI": "libmpi.so.40",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}

Start = tuple[list[str], dict[str, str]]


def start_ranks(way: str, nodes: Sequence[str], argv: Sequence[str]) -> Start:
    """What to start, and what to add to the environment.

    Args:
        way: "srun", "mpiexec" (of the wheel mpich) or "mpirun" (of Open MPI).
        nodes: one rank on each.
        argv: what each rank is: our Python, beside which the wheel has put its ``mpiexec``, and its arguments.
    """
    return _WAYS[way](nodes, argv)


def _srun(nodes: Sequence[str], argv: Sequence[str]) -> Start:
    return list(srun_world(nodes, argv)), {}


def _mpiexec(nodes: Sequence[str], argv: Sequence[str]) -> Start:
    ours = str(PurePath(argv[0]).with_name("mpiexec"))
    options = ["-launcher", "slurm", "-hosts", ",".join(nodes), "-ppn", "1", "-n", str(len(nodes))]
    # a rank that dies must not end the others
    return [ours, *options, "-disable-auto-cleanup", "-bind-to", "none", *argv], {}


def _mpirun(nodes: Sequence[str], argv: Sequence[str]) -> Start:
    options = ["--host", ",".join(nodes), "-np", str(len(nodes)), "--map-by", "node", "--bind-to", "none"]
    # what Open MPI reads of the job must tell of as many ranks as nodes
    added = _OPEN_MPI | {"SLURM_TASKS_PER_NODE": "1" if len(nodes) == 1 else f"1(x{len(nodes)})"}
    return ["mpirun", *options, "-x", "MPI4PY_LIBMPI", *argv], added


_WAYS: dict[str, Callable[[Sequence[str], Sequence[str]], Start]] = {
    "srun": _srun,
    "mpiexec": _mpiexec,
    "mpirun": _mpirun,
}
