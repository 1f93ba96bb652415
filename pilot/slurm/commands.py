"""The command lines of SLURM's programs. Pure.

Tried on 22.05; by their man pages they are good for 20.11 to 25.05. Older ones have no ``--overlap``.
"""

from collections.abc import Mapping, Sequence

from pilot.slurm.parse import COLUMN

#: what ``parse.jobs`` reads: id, state, start, end, nodes, reason, name, folder, comment
JOB_COLUMNS = COLUMN.join(("%A", "%T", "%S", "%e", "%N", "%r", "%j", "%Z", "%k"))
#: what ``parse.states`` reads
STATE_COLUMNS = COLUMN.join(("%A", "%T"))
#: what ``parse.partitions`` reads: name, up, limit, nodes, cpus, memory, gres
PARTITION_COLUMNS = COLUMN.join(("%R", "%a", "%l", "%D", "%c", "%m", "%G"))
#: in the environment of squeue and scontrol: they print times as seconds since 1970, the same in every zone
MOMENTS = {"SLURM_TIME_FORMAT": "%s"}

#: what a job needs of the SLURM variables of its parent: how to find and be known to the controller
_ROAD = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})


def sbatch(script: str, *, dependency: str = "", test_only: bool = False, extra: Sequence[str] = ()) -> list[str]:
    """Hand in a batch script.

    Args:
        script: its path.
        dependency: "singleton", "afterany:123", …
        test_only: SLURM only says when and where the job would start.
        extra: more options; they win over those in the script.
    """
    options = [f"--dependency={dependency}"] if dependency else []
    options += ["--test-only"] if test_only else []
    # a script called "-x" would be taken for an option
    return ["sbatch", "--parsable", *options, *extra, script if not script.startswith("-") else f"./{script}"]


def squeue_jobs(job_ids: Sequence[str]) -> list[str]:
    """What these jobs do, one question for all; ends with an error when SLURM has forgotten the only one."""
    return ["squeue", "--noheader", "--jobs", ",".join(job_ids), "--format", JOB_COLUMNS]


def squeue_states(job_ids: Sequence[str]) -> list[str]:
    """The states of these jobs, also of those that are over but not yet forgotten."""
    return ["squeue", "--noheader", "--states=all", "--jobs", ",".join(job_ids), "--format", STATE_COLUMNS]


def squeue_user(user: str) -> list[str]:
    """All jobs of a user; not of one name, as a name with a comma would be taken for two."""
    return ["squeue", "--noheader", "--user", user, "--format", JOB_COLUMNS]


def show_job(job_id: str) -> list[str]:
    """All that SLURM knows of one job."""
    return ["scontrol", "--oneliner", "show", "job", job_id]


def show_reservations() -> list[str]:
    """What administrators have reserved."""
    return ["scontrol", "--oneliner", "show", "reservation"]


def show_hostnames(hostlist: str) -> list[str]:
    """SLURM's own reading of a hostlist."""
    return ["scontrol", "show", "hostnames", hostlist]


def show_config() -> list[str]:
    """The configuration of the cluster."""
    return ["scontrol", "show", "config"]


def sinfo_partitions() -> list[str]:
    """The partitions."""
    return ["sinfo", "--noheader", "--format", PARTITION_COLUMNS]


def mpi_types() -> list[str]:
    """Which kinds of MPI this SLURM can start."""
    return ["srun", "--mpi=list"]


def scancel_signal(job_id: str, name: str) -> list[str]:
    """Send a signal ("USR2") to the batch process alone: whatever the script has become by ``exec``."""
    return ["scancel", "--batch", "--signal", name, job_id]


def scancel_job(job_id: str) -> list[str]:
    """End a job."""
    return ["scancel", job_id]


def scancel_step(step: str) -> list[str]:
    """End one step ("123.0") of a job: SIGTERM, and SIGKILL after KillWait, to all its processes on all nodes."""
    return ["scancel", step]


def srun_world(nodes: Sequence[str], argv: Sequence[str], *, mpi: str = "pmi2") -> list[str]:
    """Start one MPI process on each of the nodes, with all cores, memory and GPUs that the job has there.

    For the environment of ``pilot.mpi.scrub.of_the_job``: what the batch script's own options leave behind there (as
    SLURM_CPUS_PER_TASK, SLURM_NTASKS, SLURM_TRES_PER_TASK) srun would take for options of this step.

    Args:
        nodes: of this job, those that live.
        argv: the program of each rank.
        mpi: how they find each other: the wheel ``mpich`` speaks pmi2.
    """
    count = str(len(nodes))
    return [
        "srun",
        f"--mpi={mpi}",
        # a lost node ends neither the job's other processes nor srun; the job itself needs `sbatch --no-kill`
        "--no-kill",
        # a rank that crashes or leaves early takes nobody with it, whatever the site's slurm.conf says
        "--kill-on-bad-exit=0",
        "--wait=0",
        # an `srun` of a task finds its cores, memory and GPUs free (for GPUs seen on 22.05 only)
        "--overlap",
        # an agent must see all cores of its node. No -c: since 21.08 it implies --exact. Where a site has no
        # task/affinity, srun warns that it "lacks support for cpu binding", and no more (22.05)
        "--cpu-bind=none",
        # all memory that the job has on the node, shared with other steps
        "--mem=0",
        # a job of `sbatch --export=NONE` would give its steps no environment
        "--export=ALL",
        # standard input goes to rank 0, which so notices the end of who started us
        "--input=0",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(nodes)}",
        *argv,
    ]


def query_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for squeue, scontrol and sinfo: without the user's own taste in columns and filters."""
    kept = {key: value for key, value in environ.items() if not key.startswith(("SQUEUE_", "SINFO_", "SCONTROL_"))}
    # what they say is read by a program: no translation
    return kept | {"LC_ALL": "C"} | MOMENTS


def submit_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for sbatch: a job that is submitted from a job must not inherit what SLURM said to that one."""
    return {
        key: value
        for key, value in environ.items()
        if not key.startswith("SLURM") or key in _ROAD or key.startswith("SLURM_SACK_")
    }
