"""What `pilot doctor --allocation` looks at, inside of an allocation: nodes, disk, launchers, worlds, tasks."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from db.errors import MissingError, PilotError
from db.files import storage_error
from db.states import TaskKind
from pilot import host
from pilot.cli.allocation_judge import FAIL, WARN, fold, judge_disk, judge_launchers, judge_nodes
from pilot.cli.allocation_nodes import Asked, ask_nodes
from pilot.cli.allocation_print import Check, Section
from pilot.cli.allocation_worlds import WorldReport, try_world, ways_here
from pilot.cli.output import plural
from pilot.config import Config, read_config
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.probes.probe import ProbePlan
from pilot.slurm.allocation import Allocation, from_environment
from pilot.slurm.client import Slurm

#: each probe of srun as a launcher is a step of the job; sites do not like many
_STEPS_ON = 2
_MPI_CURE = "load the module of the MPI that your programs were built with"


def check_allocation(folder: Folder | None) -> Iterator[Section]:
    """Look at everything; each section is ready as soon as it is asked for.

    Args:
        folder: of the campaign; None: the present directory is used to try the disk.

    Raises:
        MissingError: this is no allocation.
        InputError: SLURM's variables make no sense.
        StorageError: nothing can be written here.
    """
    allocation = from_environment(os.environ)
    if allocation is None:
        raise _no_allocation()
    config, mistakes = _config(folder)
    yield Section("allocation", [_job(allocation), *mistakes])
    nodes = allocation.node_names
    yield Section(waiting=f"asking {plural(len(nodes), 'node')}: cores, disk, MPI launchers …")
    with _place(folder) as place:
        asked = ask_nodes(nodes, _plan(allocation, config), place)
        kind = host.file_system(place)
    yield Section("nodes", judge_nodes(asked))
    title = f"disk: {place.parent} ({kind or 'of unknown kind'})"
    yield Section(title, judge_disk(asked, host.boot_id()))
    yield Section("MPI launchers of tasks, two probes at once on each node", list(_launchers(asked, config)))
    yield from _worlds(asked, config)
    if config is not None:
        yield Section("tasks", list(_fits(asked, config)))


def _no_allocation() -> MissingError:
    if shutil.which("sbatch") is None:
        step = "`pilot doctor` looks at this machine; for an allocation go to a login node of your cluster"
    else:
        step = (
            "`salloc -N2 --exclusive -t 10 pilot doctor --allocation` (add your site's account and partition); or put "
            "`pilot doctor --allocation` into pilot.sh, before `exec pilot run`, and type `pilot submit`"
        )
    return MissingError("this is no allocation of SLURM", where="SLURM_JOB_ID is not set", next_step=step)


def _config(folder: Folder | None) -> tuple[Config | None, list[Check]]:
    if folder is None:
        return None, []
    try:
        return read_config(folder.config), []
    except PilotError as error:
        return None, [Check("pilot.toml", error.what, FAIL, error.next_step)]


def _job(allocation: Allocation) -> Check:
    partition = f" on {allocation.partition}" if allocation.partition else ""
    said = f"{allocation.job_id}{partition}: {plural(len(allocation.nodes), 'node')}, {fold(allocation.node_names)}"
    ends_at = Slurm(os.environ).end_time(allocation.job_id) or allocation.ends_at
    if ends_at is None:
        cure = "set run.walltime in pilot.toml, so that the pilot drains in time"
        return Check("job", f"{said}; SLURM does not say when it ends", WARN, cure)
    return Check("job", f"{said}; it ends in {say_duration(max(0.0, ends_at - host.now()))}")


@contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM (from scancel, or at the end of the job) ends us as Ctrl-C does: what was started ends too."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _place(folder: Folder | None) -> Iterator[Path]:
    root = Path.cwd() if folder is None else folder.root
    try:
        made = tempfile.TemporaryDirectory(prefix=".pilot-doctor-", dir=root, ignore_cleanup_errors=True)
    except OSError as error:
        raise storage_error(error, root) from error
    with made as place:
        yield Path(place)


def _plan(allocation: Allocation, config: Config | None) -> ProbePlan:
    run = (config or Config()).run
    return ProbePlan(
        mark=f"doctor-{secrets.token_hex(4)}",
        grants={node.name: node for node in allocation.nodes},
        env=run.env,
        mpi_extra=tuple(run.mpi_arguments),
        hyperthreads=run.hyperthreads,
        steps_on=allocation.node_names[:_STEPS_ON],
    )


def _launchers(asked: Asked, config: Config | None) -> Iterator[Check]:
    found: Mapping[str, str] = {name: said for report in asked.reports for name, said in report.found.items()}
    named = set() if config is None else {config.run.mpi, *config.resources.launchers().values()} - {"auto"}
    auto = config is None or config.run.mpi == "auto"
    libraries = found.keys() - {"srun", "none"}
    needed = named | {"none"} | ((libraries or {"srun"}) if auto else set())
    yield from judge_launchers(asked, needed)
    for name in sorted(named - found.keys() if found else ()):
        yield Check(name, "pilot.toml names it, and it was not found on any node", FAIL, _MPI_CURE)
    for name in sorted(libraries):
        without = [report.node for report in asked.reports if report.found and name not in report.found]
        if without:
            yield Check(name, f"not found on {fold(without)}", FAIL if name in needed else WARN, _MPI_CURE)
    if found and not libraries:
        yield Check("MPI", "no mpirun or mpiexec was found", WARN, f"{_MPI_CURE}, in pilot.sh")


def _worlds(asked: Asked, config: Config | None) -> Iterator[Section]:
    """The ways in which the pilot can start its own ranks, on the nodes that have answered."""
    title = "the pilot's own ranks (run.world)"
    nodes = [report.node for report in asked.reports if report.here is not None]
    wish = "auto" if config is None else config.run.world
    if len(asked.reports) == 1 or not nodes:
        yield Section(title, [Check("one node", "the pilot needs none here")] if nodes else [])
        return
    used = "srun" if wish == "auto" else wish
    reports: list[WorldReport] = []
    for way, why_not in ways_here().items():
        yield Section(waiting=f"starting a world of {plural(len(nodes), 'rank')} by {way} …")
        reports.append(WorldReport(way, trouble=f"not tried: {why_not}") if why_not else try_world(way, nodes))
    yield Section(title, list(judge_worlds(reports, nodes, used)))


def judge_worlds(reports: list[WorldReport], nodes: list[str], used: str) -> Iterator[Check]:
    """Whether each way gives the world that was asked for; only what is used must. Pure."""
    good = [report.way for report in reports if _wrong(report, nodes) == ""]
    for report in reports:
        here = " — the pilot uses this" if report.way == used else ""
        wrong = _wrong(report, nodes)
        if wrong:
            grade = FAIL if report.way == used else WARN
            yield Check(report.way, f"{wrong}{here}", grade, _world_cure(report, good) if grade is FAIL else "")
            continue
        trip = f"a message to all and back takes {1000 * report.round_trip_s:.1f} ms"
        yield Check(report.way, f"{plural(len(report.nodes), 'rank')}, {report.library}; {trip}{here}")
    if used == "local":
        yield Check("local", f"pilot.toml uses only the first of {plural(len(nodes), 'node')}", WARN, _use(good))


def _wrong(report: WorldReport, nodes: list[str]) -> str:
    if report.trouble and _stranger(report):
        return f"mpi4py uses {report.library}, which {report.way} does not start"
    if report.trouble:
        return f"{report.trouble} ({report.library})" if report.library else report.trouble
    if set(report.nodes) != set(nodes):
        return f"its ranks are on {fold(sorted(set(report.nodes)))}, not one on each of {fold(nodes)}"
    return ""


def _stranger(report: WorldReport) -> bool:
    """mpi4py has loaded the library of another MPI."""
    return bool(report.library) and (report.way == "mpirun") is not ("Open MPI" in report.library)


def _world_cure(report: WorldReport, good: list[str]) -> str:
    cures = ["unset MPI4PY_LIBMPI"] if _stranger(report) else []
    cures += [_use(good)] if good else ['run.world = "local" in pilot.toml uses the first node only']
    return "; or ".join(cures)


def _use(good: list[str]) -> str:
    return f'run.world = "{good[0]}" in pilot.toml works here' if good else ""


def _fits(asked: Asked, config: Config) -> Iterator[Check]:
    """Whether each kind of task finds as many nodes as it wants that are large enough."""
    here = [report.here for report in asked.reports if report.here is not None]
    fitting = []
    for kind in TaskKind:
        if kind is TaskKind.COMMAND or not here:
            continue
        wants = config.resources.of(kind).resources()
        large = [
            node
            for node in here
            if len(node["cores"]) >= wants.cores_per_node
            and node["memory_mb"] >= wants.memory_mb
            and len(node["gpus"]) >= wants.gpus
        ]
        said = plural(wants.cores_per_node, "core")
        said += f", {wants.memory_mb} MB" if wants.memory_mb else ""
        said += f", {plural(wants.gpus, 'GPU')}" if wants.gpus else ""
        said += f" on each of {wants.nodes} nodes" if wants.nodes > 1 else ""
        if len(large) >= wants.nodes:
            fitting.append(f"{kind} {said}")
        else:
            cure = f"less in [resources.{kind}], or larger nodes"
            found = f"needs {said}; {len(large) or 'none'} of {plural(len(here), 'node')} so large"
            yield Check(kind, found, FAIL, cure)
    if fitting:
        yield Check("fit", "; ".join(fitting))
