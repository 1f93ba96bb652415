"""The machine under us: the only clock, the only subprocess.run, and what /proc and the file systems say.

Sizes are MB (10⁶ bytes). The launcher imports this module, and should start fast and stay small: so nothing
heavy is imported at the top.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from db.errors import MissingError

MB = 1_000_000
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / MB


class Ran(NamedTuple):
    """What became of a short helper program; ``code`` is None when it took too long and was killed."""

    code: int | None
    stdout: str
    stderr: str


class Process(NamedTuple):
    """One process; ``start`` (clock ticks since boot) together with ``pid`` names it for ever."""

    pid: int
    ppid: int
    session: int
    start: int
    rss_mb: float
    zombie: bool


class Space(NamedTuple):
    """What a user may still write on a file system; ``files`` is None where the number has no limit."""

    mb: float
    files: int | None


def now() -> float:
    """Seconds since 1970 UTC."""
    return time.time()


def monotonic() -> float:
    """Seconds since some fixed moment; never goes back."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait; Ctrl-C is heard at once."""
    time.sleep(seconds)


def run(argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
    """Run a short helper program (``squeue``, ``mpirun --version``) to its end, without a shell.

    Args:
        argv: the program and its arguments.
        timeout_s: after that many seconds it is killed.
        env: its whole environment; None: ours.

    Raises:
        MissingError: the program is not there or may not be executed.
    """
    import subprocess  # the launcher never comes here, and starts faster without it

    try:
        done = subprocess.run(
            list(argv),
            timeout=timeout_s,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Ran(None, _text(error.stdout), _text(error.stderr))
    except OSError as error:
        raise MissingError(
            f"cannot run {argv[0]}: {error.strerror}",
            where=" ".join(argv),
            next_step=f"see that `{argv[0]}` is on the PATH (module load?) and executable",
        ) from error
    return Ran(done.returncode, done.stdout, done.stderr)


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def hostname() -> str:
    """The node's name without its domain, as SLURM calls it."""
    return os.uname().nodename.partition(".")[0]


def boot_id() -> str:
    """Another one after each boot of the machine."""
    return read("/proc/sys/kernel/random/boot_id").decode().strip()


def process(pid: int) -> Process | None:
    """What the kernel knows of ``pid`` now; None when there is no such process (any more)."""
    try:
        stat = read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # the name in parentheses may itself hold parentheses and spaces
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 22:
        return None
    return Process(
        pid=pid,
        ppid=int(fields[1]),
        session=int(fields[3]),
        start=int(fields[19]),
        rss_mb=int(fields[21]) * _PAGE_MB,
        zombie=fields[0] in {b"Z", b"X"},
    )


def process_start(pid: int) -> int | None:
    """When ``pid`` was started, in clock ticks since boot: a reused pid has another one."""
    found = process(pid)
    return None if found is None else found.start


def began_at() -> float:
    """When this process was started, seconds since 1970 UTC: a batch process starts with its allocation."""
    uptime_s = float(read("/proc/uptime").split()[0])
    started_s = (process_start(os.getpid()) or 0) / os.sysconf("SC_CLK_TCK")
    return now() - max(0.0, uptime_s - started_s)


def usable_cores() -> tuple[int, ...]:
    """The cores that we may use, as the kernel numbers them."""
    return tuple(sorted(os.sched_getaffinity(0)))


def visible_gpus() -> tuple[int, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES lists; None where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    return tuple(int(item) for item in visible.split(",") if item.strip().isdigit())


def gpus() -> tuple[int, ...]:
    """The GPUs that we may use: what CUDA_VISIBLE_DEVICES says, else all NVIDIA devices of the machine."""
    visible = visible_gpus()
    if visible is not None:
        return visible
    names = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def memory_mb() -> int:
    """What we may use: the machine's memory or the tightest limit of the cgroups that we are in."""
    total = 0
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(b"MemTotal:"):
            total = int(line.split()[1]) * 1024
    limits = cgroup_limits(read("/proc/self/cgroup").decode(), Path("/sys/fs/cgroup"))
    return min([total, *limits]) // MB


def cgroup_limits(membership: str, mount: Path) -> list[int]:
    """The memory limits, in bytes, of our cgroups and of all above them.

    Args:
        membership: the content of /proc/self/cgroup.
        mount: where the cgroups are mounted.
    """
    limits: list[int] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        while group == base or base in group.parents:
            value = _first_line(group / name)
            if value.isdigit():
                limits.append(int(value))
            group = group.parent
    return limits


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def free_space(path: Path) -> Space:
    """What is left for us at ``path`` (quotas are seen only where the file system shows them here).

    Raises:
        OSError: there is no such path.
    """
    found = os.statvfs(path)
    files = found.f_favail if found.f_files else None
    return Space(found.f_bavail * found.f_frsize / MB, files)


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``: "ext4", "lustre", "nfs4", "gpfs", …; "" if unknown."""
    target = path.resolve()
    best, kind = -1, ""
    for line in read("/proc/self/mountinfo").decode(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        # a later mount hides an earlier one at the same place
        if (point == target or point in target.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def read(path: str) -> bytes:
    """The whole of a small file of /proc; quicker than a file object, as this is done thousands of times.

    Raises:
        OSError: it is not there, or not for us to read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
