"""Trying each way to start a world of ranks on the nodes, so that one knows what to write into run.world."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot import host
from pilot.mpi.scrub import scrubbed
from pilot.mpi.search import of_the_site
from pilot.ranks.world import World, start_world
from pilot.slurm.client import Slurm

START_S = 60.0
_LOOK_S = 0.1
_LAST_WORDS_S = 1.0
_WORDS = 200


@dataclass(slots=True)
class WorldReport:
    """What became of one way.

    Attributes:
        way: as in run.world.
        library: the MPI that mpi4py found there.
        nodes: of the ranks that were heard; empty: there was no world.
        round_trip_s: a message to all ranks and back, at the best.
        trouble: what was wrong.
    """

    way: str
    library: str = ""
    nodes: tuple[str, ...] = ()
    round_trip_s: float = 0.0
    trouble: str = ""


def ways_here() -> dict[str, str]:
    """The ways that can be tried → why one cannot ("": it can)."""
    mpirun = of_the_site("mpirun")
    ways = {"srun": "" if shutil.which("srun") else "no srun on the PATH"}
    ways["mpiexec"] = "" if Path(sys.executable).with_name("mpiexec").exists() else "the wheel mpich is not installed"
    if not Path(mpirun).is_absolute():
        ways["mpirun"] = "none on the PATH"
    else:
        ours = "Open MPI" in host.run([mpirun, "--version"], timeout_s=20.0, env=scrubbed(os.environ)).stdout
        ways["mpirun"] = "" if ours else f"{mpirun} is not Open MPI's"
    return ways


def try_world(way: str, nodes: Sequence[str], patience_s: float = START_S) -> WorldReport:
    """Start a rank on each node; nothing of it runs afterwards."""
    report = WorldReport(way)
    try:
        world = start_world(way, nodes, [sys.executable, "-P", "-m", "pilot.probes.probe", "world", str(len(nodes))])
    except OSError as error:
        report.trouble = f"{error.filename}: {error.strerror}"
        return report
    steps: set[str] = set()
    try:
        _hear(world, report, steps, patience_s)
    finally:
        if report.nodes:
            world.wait(_LAST_WORDS_S)
        for step in steps:
            Slurm(os.environ).end_step(step)
        world.close()
    return report


def _hear(world: World, report: WorldReport, steps: set[str], patience_s: float) -> None:
    deadline = host.monotonic() + patience_s
    over_at: float | None = None
    while not report.nodes and not report.trouble:
        for event in world.hear(_LOOK_S):
            if event.get("step"):
                steps.add(event["step"])
            if event["ev"] == "joining":
                report.library = tidy(event["library"])
            elif event["ev"] == "world":
                report.nodes, report.round_trip_s = tuple(event["nodes"]), event["round_trip_s"]
            elif event["ev"] == "failed":
                report.trouble = report.trouble or event["what"]
        now = host.monotonic()
        if now > deadline:
            report.trouble = f"no world within {patience_s:.0f} s"
        if over_at is None and world.is_over():
            over_at = now
        if over_at is not None and now > over_at + _LAST_WORDS_S and not report.nodes:
            report.trouble = report.trouble or last_paragraph(world.last_words)


def last_paragraph(lines: Iterable[str]) -> str:
    """What was said last, in one line: launchers put rules of dashes round what they have to say."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        words = line.strip(" -=*\t")
        if not words:
            paragraphs.append([])
        else:
            paragraphs[-1].append(words)
    said = [" ".join(paragraph) for paragraph in paragraphs if paragraph]
    return said[-1][:_WORDS] if said else "it ended without a word"


def tidy(library: str) -> str:
    """A short name: "MPICH 5.0.2", "Open MPI v4.1.4"."""
    return " ".join(library.partition(",")[0].replace("Version:", "").split())
