"""What SLURM granted us, as the environment of the batch process tells it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from db.errors import InputError
from pilot.slurm.hostlist import counts, gpu_ids, hosts

MIB_IN_MB = 1.048576
_WHOLE = re.compile(r"[0-9]{1,15}")
_MOMENT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NodeGrant:
    """What is ours of one node; None where SLURM does not say, and the agent there has to look.

    Attributes:
        cpus: as SLURM counts them: cores, or hardware threads where the site schedules those.
        memory_mb: None also when it is all that the node has.
        gpus: as CUDA_VISIBLE_DEVICES numbers them; SLURM tells it for the node of the batch process only.
    """

    name: str
    cpus: int | None = None
    memory_mb: int | None = None
    gpus: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes that SLURM granted.

    Attributes:
        job_id: SLURM's; together with ``restart`` it names this run of the job.
        restart: how often the job was put back into the queue and ran again.
        ends_at: as SLURM said it at the start (23.02 and later); administrators change it, so ask the client.
        cluster: two clusters may both have a job 123, and share a disk.
    """

    job_id: str
    restart: int
    name: str
    nodes: tuple[NodeGrant, ...]
    starts_at: float | None = None
    ends_at: float | None = None
    partition: str = ""
    account: str = ""
    cluster: str = ""

    @property
    def node_names(self) -> tuple[str, ...]:
        """The names of the nodes, in SLURM's order; the batch process runs on the first."""
        return tuple(node.name for node in self.nodes)


def from_environment(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation that we run in; None outside of one.

    Raises:
        InputError: a variable is missing or makes no sense, or it is a heterogeneous job.
    """
    job_id = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID")
    if not job_id:
        return None
    if environ.get("SLURM_HET_SIZE", "1") not in {"", "0", "1"}:
        raise InputError(
            f"job {job_id} is a heterogeneous job, and pilot cannot use those",
            where="SLURM_HET_SIZE in the environment",
            next_step="leave out the lines `#SBATCH hetjob` and ask for one kind of nodes",
        )
    names = _read(environ, "SLURM_JOB_NODELIST", hosts)
    if not names or len(set(names)) < len(names):
        raise _trouble("SLURM_JOB_NODELIST", environ, "a node stands twice in it" if names else "")
    cpus = _cpus(environ, len(names))
    memory = _memory(environ, cpus)
    gpus = _head_gpus(environ, names[0])
    return Allocation(
        job_id=job_id,
        restart=_read(environ, "SLURM_RESTART_COUNT", _whole) or 0,
        name=environ.get("SLURM_JOB_NAME", ""),
        nodes=tuple(
            NodeGrant(name, count, mb, gpus if name == names[0] else None)
            for name, count, mb in zip(names, cpus, memory, strict=True)
        ),
        starts_at=_read(environ, "SLURM_JOB_START_TIME", _moment),
        ends_at=_read(environ, "SLURM_JOB_END_TIME", _moment),
        partition=environ.get("SLURM_JOB_PARTITION", ""),
        account=environ.get("SLURM_JOB_ACCOUNT", ""),
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
    )


def _cpus(environ: Mapping[str, str], nodes: int) -> tuple[int | None, ...]:
    found = _read(environ, "SLURM_JOB_CPUS_PER_NODE", counts)
    if found is None:
        return (None,) * nodes
    if len(found) != nodes or min(found) < 1:
        raise _trouble("SLURM_JOB_CPUS_PER_NODE", environ, f"{nodes} nodes are ours, and it tells of {len(found)}")
    return found


def _memory(environ: Mapping[str, str], cpus: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """MB of each node. SLURM means MiB; 0 means all, and of memory by GPU nobody but the node knows how much it is."""
    per_node = _read(environ, "SLURM_MEM_PER_NODE", _whole)
    per_cpu = _read(environ, "SLURM_MEM_PER_CPU", _whole)
    if per_node:
        return (int(per_node * MIB_IN_MB),) * len(cpus)
    if per_cpu and per_node is None:
        return tuple(None if count is None else int(per_cpu * count * MIB_IN_MB) for count in cpus)
    return (None,) * len(cpus)


def _head_gpus(environ: Mapping[str, str], head: str) -> tuple[int, ...] | None:
    """The GPUs of the batch process's node.

    CUDA_VISIBLE_DEVICES counts: where the site hides the GPUs of others, those that are left are called 0, 1, … again,
    and SLURM_JOB_GPUS has other numbers.
    """
    if environ.get("SLURMD_NODENAME", head) != head:
        return None
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if environ.get(name):
            try:
                return gpu_ids(environ[name])
            except ValueError:  # UUIDs: not for us to number
                return None
    return None


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError("not a whole number")
    return int(text)


def _moment(text: str) -> float:
    if not _MOMENT.fullmatch(text):
        raise ValueError("not seconds since 1970")
    return float(text)


def _read(environ: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise _trouble(name, environ, str(error)) from error


def _trouble(name: str, environ: Mapping[str, str], why: str = "") -> InputError:
    text = environ.get(name)
    what = f"{name} is not set" if text is None else f"{name} makes no sense: {text[:200]!r}"
    return InputError(
        f"SLURM_JOB_ID is set, and {what}{f' ({why})' if why and text is not None else ''}",
        where=f"{name} in the environment",
        next_step="let `exec pilot run` be the last line of the batch script, and leave SLURM's variables as they are;"
        " outside of a job: unset SLURM_JOB_ID SLURM_JOBID",
    )
