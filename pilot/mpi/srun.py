"""SLURM's own srun: for sites where ``mpirun`` does not work or is not there (LUMI, Dardel, Perlmutter).

Every task is a step of the job, which the site's slurmctld has to create and to end: some steps a second are
possible, and sites do not like thousands of them. So "auto" takes it only if nothing else is there.

The ranks are children of SLURM's daemon on each node, not of the pilot's launcher.
"""

import re
from collections.abc import Sequence

from db.errors import InputError
from pilot.mpi.installed import Installed
from pilot.mpi.pinning import choosing_cores
from pilot.mpi.protocol import Slot
from pilot.mpi.search import Search
from pilot.mpi.through_slurm import STEP, job_environ, nodelist


class Srun(Installed):
    """``srun`` inside our job.

    Args:
        environ: of the tasks.
        job: the variables of the SLURM job that we are in.
        extra: arguments for ``srun``, such as ``--mpi=pmi2`` where the site's default is wrong for the program.
    """

    name = "srun"

    def _looked_for(self) -> Search:
        # even `srun --version` wants to know where slurm.conf is; Debian's says "slurm-wlm 22.05.8"
        return Search(["srun"], re.compile(r"^slurm\S* (\S+)", re.MULTILINE), {**self._environ, **self._job})

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``srun``, with the ranks on the cores of the slot.

        Raises:
            InputError: the numbers do not fit, the node has no name, or an argument is a colon alone.
            MissingError: we are in no SLURM job.
        """
        slot.check(command)
        env = job_environ(self._job, slot)
        if not slot.node:
            raise InputError(
                "srun has to be told the name of the node",
                where="the slot of the attempt",
                next_step="this is a mistake of the pilot, not yours; name another MPI launcher",
            )
        argv = [self._search.program, *STEP, *nodelist(slot), "--kill-on-bad-exit=1"]
        argv += [f"--ntasks={slot.ranks}", f"--ntasks-per-node={slot.ranks_per_node}"]
        return [*argv, *self._extra, *choosing_cores(command, slot)], env
