"""What all launchers need that start ranks on other nodes: SLURM's srun, inside the job that we run in."""

from collections.abc import Mapping

from db.errors import MissingError
from pilot.mpi.protocol import Slot

#: for the step that holds the launcher's daemons: beside the steps that are there, with all cores and all memory
#: that the job has on the node, and not bound by SLURM. Not --exact: together with --overlap SLURM gives each step
#: the same first cores of the node.
STEP = ("--overlap", "--mem=0", "--cpu-bind=none", "--export=ALL")


def job_environ(job: Mapping[str, str], slot: Slot) -> dict[str, str]:
    """The environment in which ``srun`` finds the job again.

    Raises:
        MissingError: we are in no job.
    """
    if "SLURM_JOB_ID" not in job:
        raise MissingError(
            "starting through SLURM is possible inside a SLURM job only",
            where=f"a task on {1 + len(slot.others)} node(s)",
            next_step="submit the pilot (`pilot submit`), or set nodes = 1 and another MPI launcher than srun",
        )
    return dict(job)


def hosts(slot: Slot) -> str:
    """``n1:4,n2:4``: each node with the number of its ranks."""
    return ",".join(f"{share.node}:{slot.ranks_per_node}" for share in slot.shares)


def nodelist(slot: Slot) -> tuple[str, str]:
    """The nodes of a slot as srun wants them."""
    return f"--nodes={len(slot.shares)}", f"--nodelist={','.join(share.node for share in slot.shares)}"
