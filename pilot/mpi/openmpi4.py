"""Open MPI 4: on one node without SLURM, on several through it.

Open MPI's own ``--cpu-set`` is not used. It counts cores in the order of the hardware's tree and not as the
kernel numbers them, and where a core has two hardware threads it puts two ranks on one core and leaves the other
idle (seen with ``--display-map`` on synthetic topologies, 4.1.4). See :mod:`pilot.mpi.pinning`.
"""

from collections.abc import Sequence

from pilot.mpi.installed import Installed
from pilot.mpi.openmpi import additions, search_mpirun
from pilot.mpi.pinning import applications, choosing_cores
from pilot.mpi.protocol import Slot
from pilot.mpi.search import Search
from pilot.mpi.through_slurm import STEP, hosts, job_environ, nodelist


class OpenMpi4(Installed):
    """``mpirun`` of Open MPI 4."""

    name = "openmpi4"

    def _looked_for(self) -> Search:
        return search_mpirun(4, self._environ)

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``mpirun``, with the ranks on the cores of the slot.

        Raises:
            InputError: the numbers do not fit, or an argument is a colon alone.
            MissingError: several nodes, and no SLURM job.
        """
        slot.check(command)
        mpirun = self._search.program
        env = additions(mpirun, self._environ)
        if slot.others:
            # not ras slurm: it would want to know what SLURM_TASKS_PER_NODE is; --host says it all. Where mpirun
            # takes the host list for all there is, it does not tell srun which nodes (seen): so we do; if it does,
            # its own list comes later, and counts. Its own ranks, those of the head, are no children of srun.
            argv = [mpirun, "--mca", "plm", "slurm", "--mca", "ras", "^slurm"]
            argv += ["--mca", "plm_slurm_args", " ".join([*STEP, *nodelist(slot)]), "--host", hosts(slot)]
            argv += ["--bind-to", "none", *self._extra, "-np", str(slot.ranks), *choosing_cores(command, slot)]
            return argv, env | job_environ(self._job, slot) | {"SLURMD_NODENAME": slot.node}
        argv = [mpirun, "--mca", "plm", "isolated", "--mca", "ras", "^slurm", "--host", f"localhost:{slot.ranks}"]
        return [*argv, "--bind-to", "none", *self._extra, *applications(command, slot, "-np")], env
