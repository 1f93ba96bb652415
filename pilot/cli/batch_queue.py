"""SLURM's queue as `pilot submit` sees it: our jobs for one folder, handing in another, taking one out."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from db.errors import MissingError, StateError
from pilot import host
from pilot.cli.batch_script import CHAIN, OPTIONS, Order
from pilot.mpi.scrub import scrubbed
from pilot.slurm import commands
from pilot.slurm.client import QUESTION_S, Slurm
from pilot.slurm.parse import OVER, QueuedJob

#: States of jobs that have no nodes yet, and will have some.
_WAITS = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})


def waits(job: QueuedJob) -> bool:
    """Whether the job waits for its nodes."""
    return job.state in _WAITS


class BatchQueue:
    """Speaks with SLURM.

    Args:
        environ: ours; of what SLURM and MPI have set in it for the job that we may be in nothing is handed on.
        question_s: how long an answer of squeue is awaited.
    """

    def __init__(self, environ: Mapping[str, str], question_s: float = QUESTION_S) -> None:
        clean = scrubbed(environ) | {name: environ[name] for name in environ if name.startswith("SLURM")}
        # each job that is handed in says anew whether it belongs to a chain
        self._environ = {name: value for name, value in clean.items() if name not in {CHAIN, OPTIONS}}
        self._slurm = Slurm(self._environ, question_s=question_s)

    def is_there(self) -> bool:
        """Whether this machine has SLURM's programs."""
        return shutil.which("sbatch", path=self._environ.get("PATH")) is not None

    def demand(self) -> None:
        """See that this machine has SLURM's programs.

        Raises:
            MissingError: it has not.
        """
        if not self.is_there():
            raise MissingError(
                "there is no sbatch here: this machine knows no SLURM",
                where=self._environ.get("PATH", ""),
                next_step="type it on a login node of the cluster; `pilot run` runs here and now, without SLURM",
            )

    def jobs(self, root: Path, names: Sequence[str]) -> list[QueuedJob]:
        """Our jobs of these names whose folder is ``root``, and which are not at their very end.

        Raises:
            StateError: SLURM does not say.
        """
        found: list[QueuedJob] = []
        for name in names:
            jobs = self._slurm.jobs_of(name)
            if jobs is None:
                raise StateError(
                    f"SLURM does not say what is queued ({self._slurm.last_trouble})",
                    next_step="`squeue --me` shows it",
                )
            found += jobs
        over = OVER | {"COMPLETING"}
        return [job for job in found if job.state not in over and Path(job.folder).resolve() == root.resolve()]

    def submit(self, order: Order) -> str:
        """Hand in a job; its id.

        Raises:
            PilotError: SLURM refuses it or does not answer.
        """
        return self._with(order).submit(order.argv())

    def rehearse(self, order: Order) -> str:
        """When and where it would start, as SLURM says.

        Raises:
            PilotError: SLURM would refuse it.
        """
        return self._with(order).rehearse(order.argv(test_only=True))

    def _with(self, order: Order) -> Slurm:
        return Slurm(self._environ | dict(order.environ))

    def cancel(self, job_id: str) -> None:
        """Take a job out that still waits.

        Raises:
            MissingError: there is no scancel here.
            StateError: SLURM refuses, or does not answer.
        """
        argv = ["scancel", "--state=PENDING", job_id]
        done = host.run(argv, QUESTION_S, commands.query_environ(self._environ))
        if done.code != 0:
            said = "no answer" if done.code is None else done.stderr.strip() or f"exit code {done.code}"
            raise StateError(f"scancel did not do it: {said}", where=shlex.join(argv), next_step="`squeue --me`")
