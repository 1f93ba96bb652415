"""What SLURM's programs print, as records. Pure; an answer that makes no sense is a ValueError.

Moments are seconds since 1970. The client asks SLURM for them as such (``commands.MOMENTS``); a SLURM that prints
wall-clock time all the same is understood with the help of the caller, who knows the zone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pilot.slurm.hostlist import hosts

#: turns "2026-11-21T14:00:00", in the zone of this machine, into seconds since 1970
LocalTime = Callable[[str], float]

#: stands between the columns that we ask for: cannot be part of a job's name or of a folder that anybody uses
COLUMN = "\x1f"

#: states in which a job is done with its nodes, whatever became of it
OVER = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)

_WALL_CLOCK = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_NO_MOMENT = frozenset({"", "Unknown", "NONE", "None", "N/A", "(null)", "NotSet", "0", "now"})
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9_/:]*)=")
_DURATION = re.compile(r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9})(?::([0-9]{1,9}))?")
_ENDLESS = frozenset({"infinite", "UNLIMITED", "unlimited", "INFINITE"})
_ENDED = re.compile(r"srun: error: \S+: tasks? [\d,-]+: ")
_UNREACHED = re.compile(r"error: (?:Task launch for .*failed on node|Node failure on) ([^\s:]+)")
_JOB_ID = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,15}")
_WHOLE = re.compile(r"[0-9]{1,15}")
#: what we ask of a job; said twice and differently, by a job that is called so, it is not believed
_OF_A_JOB = frozenset({"JobState", "Restarts", "EndTime", "BatchFlag", "BatchHost", "NodeList"})


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job in the queue or running, as ``squeue`` shows it.

    Attributes:
        starts_at: of a running job when it started; of a waiting one SLURM's estimate, None when there is none.
        ends_at: when its time limit will be reached.
        reason: why it waits ("Priority", "Dependency", "ReqNodeNotAvail, ...").
        folder: its working directory.
    """

    job_id: str
    state: str
    starts_at: float | None
    ends_at: float | None
    nodes: tuple[str, ...]
    reason: str
    name: str
    folder: str
    comment: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as ``scontrol show job`` shows it.

    Attributes:
        restarts: how often it was put back into the queue.
        headless: it goes on without the node of its batch process, which was lost.
    """

    job_id: str
    state: str
    restarts: int
    ends_at: float | None
    headless: bool = False


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A window in which an administrator wants nodes for himself. ``nodes`` is None when it is the whole system."""

    name: str
    start: float
    end: float
    nodes: tuple[str, ...] | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, or the part of one whose nodes are alike. ``limit_s`` is None when there is no limit."""

    name: str
    up: bool
    limit_s: int | None
    nodes: int
    cpus: int
    memory_mib: int
    gres: str


def moment(text: str, local: LocalTime) -> float | None:
    """Seconds since 1970; None when SLURM does not know ("Unknown", "N/A").

    Raises:
        ValueError: it is not a time.
    """
    text = text.strip()
    if text in _NO_MOMENT:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    if _WALL_CLOCK.fullmatch(text):
        return local(text)
    raise ValueError(f"not a time: {text[:200]!r}")


def duration(text: str) -> int | None:
    """Seconds of ``1-00:00:00``, ``30:00``, ``10`` (minutes); None when there is no limit.

    Raises:
        ValueError: it is not a duration.
    """
    text = text.strip()
    if text in _ENDLESS:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text[:200]!r}")
    days, parts = int(match[1] or 0), [int(part) for part in match.groups()[1:] if part is not None]
    if match[1] is not None:  # days-hours, days-hours:minutes
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def job_id(text: str) -> str:
    """The id in what ``sbatch --parsable`` prints ("123", "123;cluster"); a site's greeting may stand before it.

    Raises:
        ValueError: there is none.
    """
    lines = text.strip().splitlines()
    found = lines[-1].strip().partition(";")[0] if lines else ""
    if not _JOB_ID.fullmatch(found):
        raise ValueError(f"no job id: {text[:200]!r}")
    return found


def fields(line: str) -> Mapping[str, str]:
    """The ``Key=value`` of one line of ``scontrol -o``; a value may hold spaces. Of equal keys the first counts."""
    marks = list(_FIELD.finditer(line))
    ends = [mark.start() for mark in marks[1:]] + [len(line)]
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        found.setdefault(mark[1], line[mark.end() : end].strip())
    return found


def jobs(text: str, local: LocalTime) -> tuple[QueuedJob, ...]:
    """The lines of ``squeue`` with the columns of ``commands.JOB_COLUMNS``.

    Raises:
        ValueError: a line has other columns.
    """
    found = []
    for line in _lines(text):
        columns = line.split(COLUMN)
        if len(columns) != 9 or not _JOB_ID.fullmatch(columns[0]):
            raise ValueError(f"not a line of squeue: {line[:200]!r}")
        number, state, start, end, nodes, reason, name, folder, comment = columns
        found.append(
            QueuedJob(
                job_id=number,
                state=state,
                starts_at=moment(start, local),
                ends_at=moment(end, local),
                nodes=hosts(nodes),
                reason="" if reason == "None" else reason,
                name=name,
                folder=folder,
                comment="" if comment == "(null)" else comment,
            )
        )
    return tuple(found)


def states(text: str) -> Mapping[str, str]:
    """The state of each job, from ``squeue`` with the columns of ``commands.STATE_COLUMNS``.

    Raises:
        ValueError: a line has other columns.
    """
    found: dict[str, str] = {}
    for line in _lines(text):
        number, mark, state = line.partition(COLUMN)
        if not mark or not _JOB_ID.fullmatch(number) or not state.strip():
            raise ValueError(f"not a line of squeue: {line[:200]!r}")
        found[number] = state.strip()
    return found


def job_status(text: str, wanted: str, local: LocalTime) -> JobStatus:
    """What ``scontrol show job -o`` says of the job ``wanted`` (of an array of jobs it may print several).

    Raises:
        ValueError: the job is not in it, or two things are said of it.
    """
    for line in _lines(text):
        found = fields(line)
        if found.get("JobId") != wanted or "JobState" not in found:
            continue
        _demand_plain(line)
        return JobStatus(
            job_id=wanted,
            state=found["JobState"],
            restarts=_whole(found.get("Restarts", "0")),
            ends_at=moment(found.get("EndTime", ""), local),
            headless=_headless(found),
        )
    raise ValueError(f"nothing about job {wanted}: {text[:200]!r}")


def _demand_plain(line: str) -> None:
    """See that nothing is said twice: names, comments and folders of jobs may hold words that look like SLURM's."""
    said: dict[str, str] = {}
    for match in re.finditer(r"(?:^|\s)([A-Za-z]+)=(\S*)", line):
        if match[1] in _OF_A_JOB and said.setdefault(match[1], match[2]) != match[2]:
            raise ValueError(f"{match[1]} is said twice, and differently: {line[:200]!r}")


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"not a whole number: {text[:200]!r}")
    return int(text)


def _headless(job: Mapping[str, str]) -> bool:
    nodes = hosts(job.get("NodeList", ""))
    running = job["JobState"] == "RUNNING" and job.get("BatchFlag") == "1"
    return running and bool(nodes) and job.get("BatchHost", nodes[0]) not in nodes


def maintenance(text: str, local: LocalTime) -> tuple[Maintenance, ...]:
    """The windows for maintenance in ``scontrol show reservation -o``, the earliest first.

    Reservations of other kinds are left out (they are for other users' work), and so are those of licences only.

    Raises:
        ValueError: a window without a name or a time.
    """
    found = []
    for line in _lines(text):
        if "ReservationName=" not in line:  # "No reservations in the system"
            if "=" in line:
                raise ValueError(f"not a reservation: {line[:200]!r}")
            continue
        said = fields(line)
        if "ReservationName" not in said:
            raise ValueError(f"not a reservation: {line[:200]!r}")
        flags = tuple(flag for flag in said.get("Flags", "").split(",") if flag)
        if "MAINT" not in flags:
            continue
        nodes = None if "ALL_NODES" in flags or said.get("Nodes") == "ALL" else hosts(said.get("Nodes", ""))
        if nodes == ():
            continue
        start, end = moment(said.get("StartTime", ""), local), moment(said.get("EndTime", ""), local)
        if start is None or end is None:
            raise ValueError(f"a reservation without its times: {line[:200]!r}")
        found.append(Maintenance(said["ReservationName"], start, end, nodes, flags))
    return tuple(sorted(found, key=lambda window: window.start))


def partitions(text: str) -> tuple[Partition, ...]:
    """The lines of ``sinfo`` with the columns of ``commands.PARTITION_COLUMNS``.

    Raises:
        ValueError: a line has other columns.
    """
    found = []
    for line in _lines(text):
        columns = line.split(COLUMN)
        if len(columns) != 7:
            raise ValueError(f"not a line of sinfo: {line[:200]!r}")
        name, state, limit, nodes, cpus, memory, gres = columns
        # "72+": at least that many
        count, cores, mib = (_whole(number.strip().removesuffix("+")) for number in (nodes, cpus, memory))
        found.append(
            Partition(name, state == "up", duration(limit), count, cores, mib, "" if gres == "(null)" else gres)
        )
    return tuple(found)


def cluster_name(text: str) -> str:
    """The name of the cluster in ``scontrol show config``.

    Raises:
        ValueError: it is not there.
    """
    match = re.search(r"^ClusterName\s*=\s*(\S+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no ClusterName: {text[:200]!r}")
    return match[1]


def mpi_types(text: str) -> tuple[str, ...]:
    """What ``srun --mpi=list`` offers: ("none", "pmi2", "pmix", …); older versions put "srun:" before each."""
    words = (line.strip().removeprefix("srun:").strip() for line in _lines(text))
    return tuple(sorted({word for word in words if re.fullmatch(r"[a-z][a-z0-9_]*", word)}))


def unreached_nodes(line: str) -> tuple[str, ...]:
    """The nodes of which srun says in this line that it cannot start anything there, or that they have failed.

    It knows minutes before the controller takes a node for dead.
    """
    match = _UNREACHED.search(line)
    try:
        return () if match is None else hosts(match[1])
    except ValueError:
        return ()


def is_end_of_rank(line: str) -> bool:
    """Whether srun says in this line that tasks of its step have ended badly ("srun: error: n2: task 1: Killed")."""
    return _ENDED.search(line) is not None


def _lines(text: str) -> list[str]:
    # not splitlines(): that would also cut at COLUMN's neighbours
    return [line for line in text.replace("\r", "").split("\n") if line.strip()]
