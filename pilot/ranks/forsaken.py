"""What is left to do for a rank whose manager is not heard any more.

With ``sbatch --no-kill`` a job outlives the node of its batch process: SLURM leaves it running, with nobody in it, and
no other pilot can begin, as the lease is held by a job that is not over. So who is left ends the job.
"""

from pilot import host
from pilot.slurm.client import Slurm

#: SLURM takes a silent node for dead after its SlurmdTimeout, usually 300 s
PATIENCE_S = 1200.0
EVERY_S = 20.0
#: so many of the ranks ask: not all of a thousand at once, and not one alone, which may be dead too
WITNESSES = 3


def end_forsaken_job(slurm: Slurm, job_id: str, patience_s: float = PATIENCE_S, every_s: float = EVERY_S) -> bool:
    """End the job once SLURM says that the node of its batch process is lost; whether it came to that.

    As long as SLURM does not say so nothing is done: perhaps it is we who are cut off.
    """
    deadline = host.monotonic() + patience_s
    while host.monotonic() < deadline:
        if slurm.has_lost_its_head(job_id):
            return slurm.end_job(job_id)
        host.pause(every_s)
    return False
