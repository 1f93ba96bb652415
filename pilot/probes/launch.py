"""Two probes at once with each MPI launcher of a node, on cores of their own: where do their ranks really sit?

They are started as tasks are: by a launcher process, in the clean environment, on the cores of a slot.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.errors import PilotError
from pilot import host
from pilot.agent import monitor
from pilot.agent.launcher_link import LauncherLink, LinkSettings
from pilot.agent.messages import Hello
from pilot.mpi.choose import Chooser
from pilot.mpi.protocol import MpiLauncher, Slot
from pilot.mpi.scrub import of_the_job, scrubbed
from pilot.topology import parse_list

#: ranks of one probe, at most
MOST_RANKS = 8
_LIMIT_S = 40.0
_KILL_S = 12.0
#: a rank writes down on which cores it is, then waits until all ranks of both probes have, or some 20 s.
#: $1 is the folder, $2 the probe, $3 the number of ranks of both
_RANK = """
mine=$1/$2.$$
while read -r name value; do
    [ "$name" = Cpus_allowed_list: ] && echo "$value" > "$mine.new"
done < /proc/self/status
mv "$mine.new" "$mine.here"
tries=0
while set -- "$1" "$2" "$3" "$1"/*.here && [ $(($# - 3)) -lt "$3" ]; do
    tries=$((tries + 1))
    [ $tries -gt 200 ] && exit 7
    sleep 0.1
done
echo > "$mine.met"
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How probes are started.

    Attributes:
        environ: ours.
        site_env, mpi_extra: what pilot.toml adds for every task and every launcher.
        mark: carried by all that is started.
        skip: launchers that are not tried here.
    """

    environ: Mapping[str, str]
    site_env: Mapping[str, str]
    mpi_extra: tuple[str, ...]
    mark: str
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """One of the two.

    Attributes:
        wanted: the cores of each rank; empty where nothing is pinned.
        found: the cores of each rank that was seen.
        met: so many ranks saw all others alive.
        trouble: why it did not end well; "" if it did.
    """

    wanted: tuple[tuple[int, ...], ...]
    found: tuple[tuple[int, ...], ...] = ()
    met: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of the probes of one launcher.

    Attributes:
        launcher: its name.
        ranks, threads: of each probe.
        pinned: whether each rank was to have cores of its own.
        probes: two; one only where the node has one core.
        trouble: why they could not be started.
    """

    launcher: str
    ranks: int
    threads: int
    pinned: bool
    probes: tuple[Probe, ...] = field(default=())
    trouble: str = ""


@contextmanager
def probe_launchers(settings: Settings, hello: Hello) -> Iterator[tuple[dict[str, str], Iterator[Pair]]]:
    """The launchers of this node with their versions, and what each does; at the end nothing of it runs any more."""
    environ = scrubbed(settings.environ) | dict(settings.site_env)
    chooser = Chooser("auto", environ, of_the_job(settings.environ), settings.mpi_extra)
    found = {name: version for name, version in chooser.findings().items() if version is not None}
    with tempfile.TemporaryDirectory(prefix="pilot-probe-", ignore_cleanup_errors=True) as folder:
        link = LauncherLink(LinkSettings(environ, settings.mark, 1, hello.node, Path(folder, "ends")))
        try:
            tried = [chooser.named(name).choose(1) for name in found if name not in settings.skip]
            rounds = (_pair(link, launcher, hello, settings, Path(folder)) for launcher in tried)
            yield found, rounds
        finally:
            link.close()
            # ranks of srun are no children of the launcher
            ours = {monitor.CAMPAIGN: settings.mark, monitor.NODE: hello.node}.items()
            monitor.end_marked(lambda env: ours <= env.items() and monitor.ATTEMPT in env)


def halves(launcher: str, hello: Hello) -> tuple[int, int, list[tuple[int, ...]]]:
    """Ranks and threads of each probe, and the cores of each: half of the node, as far as they divide evenly. Pure."""
    size = max(1, len(hello.cores) // 2)
    ranks = 1 if launcher == "none" else min(size, MOST_RANKS)
    threads = size // ranks
    starts = (0, size)[: min(2, len(hello.cores))]
    return ranks, threads, [hello.cores[start : start + ranks * threads] for start in starts]


def _pair(link: LauncherLink, launcher: MpiLauncher, hello: Hello, settings: Settings, folder: Path) -> Pair:
    ranks, threads, parts = halves(launcher.name, hello)
    place = Path(tempfile.mkdtemp(prefix=f"{launcher.name}-", dir=folder))
    messages = []
    for number, part in enumerate(parts, 1):
        slot = Slot(ranks, threads, part if hello.pinned else (), hello.node)
        command = ["/bin/sh", "-c", _RANK, "pilot-probe", str(place), str(number), str(ranks * len(parts))]
        try:
            argv, added = launcher.wrap(command, slot)
        except PilotError as error:
            return Pair(launcher.name, ranks, threads, hello.pinned, trouble=error.what)
        env = {"OMP_NUM_THREADS": str(threads)} | added | dict(settings.site_env)
        messages.append(_start(number, argv, env, slot.cores, place))
    ends = _run(link, messages)
    probes = tuple(
        _seen(place, number, part, threads if hello.pinned else 0, ends.get(number))
        for number, part in enumerate(parts, 1)
    )
    return Pair(launcher.name, ranks, threads, hello.pinned, probes)


def _start(number: int, argv: list[str], env: dict[str, str], cores: tuple[int, ...], place: Path) -> dict[str, Any]:
    return {
        "op": "start",
        "id": number,
        "argv": argv,
        "cwd": None,
        "dir": str(place),
        "env": env,
        "cores": cores,
        "stdin": None,
        "stdout": f"{number}.out",
        "stderr": f"{number}.err",
        "memory_mb": 0,
        "limit_s": _LIMIT_S,
    }


def _run(link: LauncherLink, messages: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Start them all at once; the ends of those that ended in time."""
    for message in messages:
        link.send(message)
    link.flush()
    ends: dict[int, dict[str, Any]] = {}
    deadline = host.monotonic() + _LIMIT_S + _KILL_S
    while len(ends) < len(messages) and link.alive and host.monotonic() < deadline:
        for event in link.read(0.2):
            if event["ev"] == "ended":
                ends[event["id"]] = event
    return ends


def _seen(place: Path, number: int, part: tuple[int, ...], threads: int, end: Mapping[str, Any] | None) -> Probe:
    """``threads`` 0: nothing was to be pinned."""
    wanted = [part[start : start + threads] for start in range(0, len(part), threads)] if threads else []
    found = [_cores(path) for path in sorted(place.glob(f"{number}.*.here"))]
    met = len(list(place.glob(f"{number}.*.met")))
    return Probe(tuple(wanted), tuple(sorted(found)), met, _trouble(place / f"{number}.err", end))


def _cores(path: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError, ValueError):
        return tuple(parse_list(path.read_text()))
    return ()


def _trouble(stderr: Path, end: Mapping[str, Any] | None) -> str:
    if end is not None and end["code"] == 0:
        return ""
    if end is not None and end["message"]:
        return str(end["message"])
    try:
        said = [line.strip() for line in stderr.read_text(errors="replace").splitlines() if line.strip(" -=*\t|")]
    except OSError:
        said = []
    how = "its launcher died" if end is None else _how(end)
    return f"{how}: {said[-1][:200]}" if said else how


def _how(end: Mapping[str, Any]) -> str:
    if end["cause"] == "timeout":
        return f"it hung for {_LIMIT_S:.0f} s"
    return f"signal {end['signal']}" if end["code"] is None else f"exit code {end['code']}"
