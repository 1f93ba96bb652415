"""MPICH, and what else has its launcher hydra (MVAPICH): on one node by fork, on several through SLURM."""

import re
from collections.abc import Sequence

from pilot.mpi.installed import Installed
from pilot.mpi.pinning import applications, choosing_cores
from pilot.mpi.protocol import Slot
from pilot.mpi.search import Search
from pilot.mpi.through_slurm import STEP, hosts, job_environ

_VERSION = re.compile(r"HYDRA build details:\s+Version:\s+(\S+)")


class Mpich(Installed):
    """``mpiexec`` of MPICH."""

    name = "mpich"

    def _looked_for(self) -> Search:
        return Search(["mpiexec.hydra", "mpiexec"], _VERSION, self._environ)

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``mpiexec``, with the ranks on the cores of the slot.

        Raises:
            InputError: the numbers do not fit, or an argument is a colon alone.
            MissingError: several nodes, and no SLURM job.
        """
        slot.check(command)
        # -rmk user: take no list of nodes from SLURM
        argv = [self._search.program, "-rmk", "user"]
        if slot.others:
            argv += ["-launcher", "slurm", "-hosts", hosts(slot), *self._extra, "-n", str(slot.ranks)]
            env = {"HYDRA_LAUNCHER_EXTRA_ARGS": " ".join(STEP)}
            return [*argv, *choosing_cores(command, slot)], env | job_environ(self._job, slot)
        return [*argv, "-launcher", "fork", *self._extra, *applications(command, slot)], {}
