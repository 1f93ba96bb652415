"""Intel MPI, whose launcher is a hydra of its own: on one node by fork, on several through SLURM.

``mpiexec.hydra`` is called and not ``mpirun``, a script round it: when the script alone is killed, all it has
started runs on.
"""

import re
from collections.abc import Sequence

from pilot.mpi.installed import Installed
from pilot.mpi.pinning import applications, choosing_cores
from pilot.mpi.protocol import Slot
from pilot.mpi.search import Search
from pilot.mpi.through_slurm import STEP, job_environ

_VERSION = re.compile(r"Intel\(R\) MPI Library.*?Version (\S+)")


class IntelMpi(Installed):
    """``mpiexec.hydra`` of Intel MPI."""

    name = "intelmpi"

    def _looked_for(self) -> Search:
        return Search(["mpiexec.hydra"], _VERSION, self._environ)

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``mpiexec.hydra``, with the ranks on the cores of the slot.

        Raises:
            InputError: the numbers do not fit, or an argument is a colon alone.
            MissingError: several nodes, and no SLURM job.
        """
        slot.check(command)
        program = self._search.program
        # each rank stays on the cores that it finds itself on
        env = {"I_MPI_PIN": "off"}
        if slot.others:
            names = ",".join(share.node for share in slot.shares)
            # of "n1:2,n2:2" it would ignore the numbers (seen, 2021.18)
            argv = [program, "-bootstrap", "slurm", "-hosts", names, "-ppn", str(slot.ranks_per_node)]
            argv += [*self._extra, "-n", str(slot.ranks)]
            env["I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"] = " ".join(STEP)
            # our numbers, and not those of the job
            env["I_MPI_JOB_RESPECT_PROCESS_PLACEMENT"] = "off"
            return [*argv, *choosing_cores(command, slot)], env | job_environ(self._job, slot)
        # without -hosts it believes SLURM_JOB_NODELIST
        argv = [program, "-bootstrap", "fork", "-hosts", "localhost", *self._extra]
        return [*argv, *applications(command, slot)], env
