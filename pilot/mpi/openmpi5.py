"""Open MPI 5, whose ``mpirun`` is PRRTE's ``prterun``: on one node without SLURM, on several through it.

It does not hand on its standard input: rank 0 would wait for the end of it for ever, even if it is /dev/null (seen with
5.0.11), and long input arrives several times (openpmix/prrte#2579). So it is told to leave it alone, and rank 0, a
child of ``mpirun``, opens what ``mpirun`` has there. Across nodes the ranks have no input.

``--map-by pe-list=1,0:ordered`` works, too (seen, 5.0.11); the ranks are pinned as with all others, see
:mod:`pilot.mpi.pinning`.
"""

from collections.abc import Sequence

from pilot.mpi.installed import Installed
from pilot.mpi.openmpi import additions, search_mpirun
from pilot.mpi.pinning import applications, choosing_cores
from pilot.mpi.protocol import Slot
from pilot.mpi.search import Search
from pilot.mpi.through_slurm import STEP, hosts, job_environ, nodelist

_INPUT_OF_MPIRUN = ("/bin/sh", "-c", 'exec "$@" < "/proc/$PPID/fd/0"', "pilot")


class OpenMpi5(Installed):
    """``mpirun`` of Open MPI 5."""

    name = "openmpi5"

    def _looked_for(self) -> Search:
        return search_mpirun(5, self._environ)

    def wrap(self, command: Sequence[str], slot: Slot) -> tuple[list[str], dict[str, str]]:
        """``mpirun``, with the ranks on the cores of the slot.

        Raises:
            InputError: the numbers do not fit, or an argument is a colon alone.
            MissingError: several nodes, and no SLURM job.
        """
        slot.check(command)
        mpirun = self._search.program
        env = additions(mpirun, self._environ)
        argv = [mpirun, "--stdin", "none", "--prtemca", "ras", "^slurm"]
        if slot.others:
            argv += ["--prtemca", "plm", "slurm"]
            argv += ["--prtemca", "plm_slurm_args", " ".join([*STEP, *nodelist(slot)]), "--host", hosts(slot)]
            argv += ["--bind-to", "none", *self._extra, "-np", str(slot.ranks), *choosing_cores(command, slot)]
            return argv, env | job_environ(self._job, slot) | {"SLURMD_NODENAME": slot.node}
        # there is no plm "isolated" any more; for one host none is ever used
        argv += ["--prtemca", "plm", "^slurm"]
        argv += ["--host", f"localhost:{slot.ranks}", "--bind-to", "none", *self._extra]
        return [*argv, *applications(command, slot, "-np", _INPUT_OF_MPIRUN)], env
