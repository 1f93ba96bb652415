"""The edge to SLURM: asks its programs, and never waits long for an answer.

A controller that is busy, restarts or answers nonsense is part of every week of a large machine. So a question that
gets no answer is None, and the reason is in ``last_trouble``; who asks goes on with what it knew before.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from db.errors import MissingError
from pilot import host
from pilot.slurm import commands, parse
from pilot.slurm.parse import OVER, Maintenance, Partition, QueuedJob
from pilot.slurm.refusals import refusal

QUESTION_S = 10.0
#: a job that is handed in while the controller is busy should not be handed in twice, so we wait
SUBMIT_S = 90.0
#: how SLURM says that it has forgotten a job, or never knew it
_FORGOTTEN = "Invalid job id"
_STEP_IS_OVER = (_FORGOTTEN, "already completing or completed")

Run = Callable[[Sequence[str], float, Mapping[str, str] | None], host.Ran]
T = TypeVar("T")


class Slurm:
    """SLURM's programs, as they answer a process with this environment.

    Args:
        environ: of who asks: PATH, SLURM_CONF.
        run: starts a program; ``host.run`` but in tests.

    Attributes:
        last_trouble: why the last question had no answer; "" when it had one.
    """

    def __init__(self, environ: Mapping[str, str], run: Run = host.run, question_s: float = QUESTION_S) -> None:
        self._query_environ = commands.query_environ(environ)
        self._submit_environ = commands.submit_environ(environ)
        self._run = run
        self._question_s = question_s
        self._cluster: str | None = None
        self.last_trouble = ""

    def end_time(self, job_id: str) -> float | None:
        """When the job's time limit will end it, as SLURM knows it now (a job without a limit: in a year)."""
        found = self._job(job_id)
        if found is not None and found.ends_at is not None:
            return found.ends_at
        status = self._ask(commands.show_job(job_id), lambda text: parse.job_status(text, job_id, _local))
        return None if status is None else status.ends_at

    def living_nodes(self, job_id: str) -> tuple[str, ...] | None:
        """The job's nodes that SLURM still counts as alive; a dead one is missing after about SlurmdTimeout."""
        found = self._job(job_id)
        return None if found is None else found.nodes

    def job_is_over(self, job_id: str, restart: int = 0, cluster: str = "") -> bool | None:
        """Whether that run of the job has ended with all its processes; None when SLURM does not say.

        Args:
            job_id: a job of this cluster.
            restart: which run of it: a job that was put back into the queue is the same job again.
            cluster: the cluster's name if it is known; of another cluster's jobs this SLURM knows nothing.
        """
        if cluster and self.cluster_name() != cluster:
            self.last_trouble = self.last_trouble or f"job {job_id} is of cluster {cluster}, and we ask {self._cluster}"
            return None
        done = self._answer(commands.show_job(job_id))
        if done is None:
            return None
        if done.code != 0:
            forgotten = _FORGOTTEN in done.stderr
            self.last_trouble = "" if forgotten else _said(commands.show_job(job_id), done)
            return True if forgotten else None
        status = self._read(done.stdout, lambda text: parse.job_status(text, job_id, _local))
        if status is None:
            return None
        # COMPLETING: its processes may still live, and write
        return status.state in OVER or (status.restarts > restart and status.state != "COMPLETING")

    def states(self, job_ids: Sequence[str]) -> Mapping[str, str] | None:
        """The state of each job, in one question. Jobs that SLURM has forgotten are missing."""
        if not job_ids:
            return {}
        done = self._answer(commands.squeue_states(job_ids))
        if done is not None and done.code != 0 and _FORGOTTEN in done.stderr:
            self.last_trouble = ""
            return {}
        return self._good(commands.squeue_states(job_ids), done, parse.states)

    def maintenance(self, nodes: Sequence[str]) -> tuple[float, float] | None:
        """Start and end of the next window for maintenance that touches one of the nodes, or that lasts now.

        None also when there is none: then ``last_trouble`` is empty.
        """
        windows = self.maintenance_windows()
        for window in windows or ():
            if window.end > host.now() and (window.nodes is None or not set(window.nodes).isdisjoint(nodes)):
                return window.start, window.end
        return None

    def maintenance_windows(self) -> tuple[Maintenance, ...] | None:
        """All windows for maintenance, the earliest first."""
        return self._ask(commands.show_reservations(), lambda text: parse.maintenance(text, _local))

    def jobs_of(self, name: str, user: str = "") -> tuple[QueuedJob, ...] | None:
        """The jobs of that name, waiting or running, of a user (by default the one who asks)."""
        # the number: on some machines there is no name for it
        argv = commands.squeue_user(user or str(os.getuid()))
        found = self._ask(argv, lambda text: parse.jobs(text, _local))
        return None if found is None else tuple(job for job in found if job.name == name)

    def partitions(self) -> tuple[Partition, ...] | None:
        """The partitions of this cluster."""
        return self._ask(commands.sinfo_partitions(), parse.partitions)

    def cluster_name(self) -> str | None:
        """The name of the cluster that answers; asked once."""
        if self._cluster is None:
            self._cluster = self._ask(commands.show_config(), parse.cluster_name)
        return self._cluster

    def mpi_types(self) -> tuple[str, ...] | None:
        """The kinds of MPI that srun can start here; the pilot's own ranks need "pmi2"."""
        done = self._answer(commands.mpi_types())
        # 22.05 prints it on standard error
        return None if done is None else parse.mpi_types(done.stdout + done.stderr)

    def signal(self, job_id: str, name: str) -> bool:
        """Send a signal ("USR2") to the job's batch process; whether SLURM took it."""
        return self._ask(commands.scancel_signal(job_id, name), str) is not None

    def has_lost_its_head(self, job_id: str) -> bool | None:
        """Whether the job goes on though the node of its batch process is lost; None when SLURM does not say."""
        status = self._ask(commands.show_job(job_id), lambda text: parse.job_status(text, job_id, _local))
        return None if status is None else status.headless

    def end_job(self, job_id: str) -> bool:
        """End a job with all its processes; whether SLURM took it."""
        return self._ask(commands.scancel_job(job_id), str) is not None

    def end_step(self, step: str) -> bool:
        """End a step ("123.0") with all its processes; whether SLURM took it, or the step is over already."""
        done = self._answer(commands.scancel_step(step))
        if done is not None and done.code != 0 and any(words in done.stderr for words in _STEP_IS_OVER):
            return True
        return self._good(commands.scancel_step(step), done, str) is not None

    def submit(self, argv: Sequence[str]) -> str:
        """Hand in a job with a command line of ``commands.sbatch``; its id.

        Raises:
            PilotError: SLURM refuses or does not answer; in sbatch's own words, with what to do about it.
        """
        done = self._run(argv, SUBMIT_S, self._submit_environ)
        try:
            if done.code == 0:
                return parse.job_id(done.stdout)
        except ValueError as error:
            raise refusal(argv, done.code, f"{error}\n{done.stderr}") from error
        raise refusal(argv, done.code, done.stderr or done.stdout)

    def rehearse(self, argv: Sequence[str]) -> str:
        """What sbatch says to a command line with ``test_only``: when and where the job would start.

        Raises:
            PilotError: as ``submit``.
        """
        done = self._run(argv, SUBMIT_S, self._submit_environ)
        if done.code != 0:
            raise refusal(argv, done.code, done.stderr or done.stdout)
        lines = (done.stderr + done.stdout).strip().splitlines()
        return lines[-1].removeprefix("sbatch:").strip() if lines else ""

    def _job(self, job_id: str) -> QueuedJob | None:
        found = self._ask(commands.squeue_jobs([job_id]), lambda text: parse.jobs(text, _local))
        if found is None:
            return None
        for job in found:
            if job.job_id == job_id:
                return job
        self.last_trouble = f"job {job_id} is not in the queue any more"
        return None

    def _ask(self, argv: Sequence[str], read: Callable[[str], T]) -> T | None:
        return self._good(argv, self._answer(argv), read)

    def _good(self, argv: Sequence[str], done: host.Ran | None, read: Callable[[str], T]) -> T | None:
        if done is None:
            return None
        if done.code != 0:
            self.last_trouble = _said(argv, done)
            return None
        return self._read(done.stdout, read)

    def _answer(self, argv: Sequence[str]) -> host.Ran | None:
        """What the program printed; None when it is missing or took too long."""
        self.last_trouble = ""
        try:
            done = self._run(argv, self._question_s, self._query_environ)
        except MissingError as error:
            self.last_trouble = error.what
            return None
        if done.code is None:
            self.last_trouble = f"{argv[0]} did not answer within {self._question_s:g} s"
            return None
        return done

    def _read(self, text: str, read: Callable[[str], T]) -> T | None:
        try:
            return read(text)
        except (ValueError, OverflowError) as error:
            self.last_trouble = str(error)
            return None


def _local(text: str) -> float:
    """Seconds since 1970 of a wall-clock time in the zone of this machine, which is SLURM's too."""
    return datetime.fromisoformat(text).timestamp()


def _said(argv: Sequence[str], done: host.Ran) -> str:
    words = (done.stderr or done.stdout).strip().splitlines()
    return f"{argv[0]}: {words[-1][:300] if words else 'no word'} (code {done.code})"
