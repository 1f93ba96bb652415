"""Asking the nodes of an allocation: a process on each (:mod:`pilot.probes.probe`), and what they answered in time."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from db.files import write_whole
from pilot import host
from pilot.probes.disk import GO, from_node, held_locks
from pilot.probes.probe import ProbePlan, node_name
from pilot.ranks.world import World, start_world
from pilot.slurm.client import Slurm

#: a node that says nothing for so long does not answer
SILENCE_S = 60.0
#: so long nodes that are ready wait for the others; less than their patience (:data:`pilot.probes.probe.GO_S`)
TOGETHER_S = 30.0
_LOOK_S = 0.05
_MODULE = ("-P", "-m", "pilot.probes.probe")


@dataclass(slots=True)
class NodeReport:
    """What one node has said so far.

    Attributes:
        here: its first words; None: it has said nothing.
        trouble: what it could not go on with.
        cure: what helps, as far as the node knows.
        blind: it does not see the folder.
        locks: kind → "refused", "granted" or what went wrong.
        seen_there_s: after so many seconds it saw a file that was renamed here; None: never.
        seen_here_s: after so many seconds a file of it was seen here; None: never.
        link: "won", "lost" or what went wrong.
        ahead_s: so far its clock is ahead of ours, at least.
        found: launcher → version.
        pairs: what became of the probes of each launcher (:class:`pilot.probes.launch.Pair`).
        done: it has said all.
    """

    node: str
    here: Mapping[str, Any] | None = None
    trouble: str = ""
    cure: str = ""
    blind: bool = False
    locks: Mapping[str, str] = field(default_factory=dict)
    seen_there_s: float | None = None
    seen_here_s: float | None = None
    link: str = ""
    ahead_s: float | None = None
    found: Mapping[str, str] = field(default_factory=dict)
    pairs: list[Mapping[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def over(self) -> bool:
        """Nothing more is to be expected of it."""
        return self.done or bool(self.trouble)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking all nodes.

    Attributes:
        lock_troubles: locks that could not even be had here → why.
        last_words: lines that were not meant for us, such as errors of srun; the last ones.
        ended: what was started ended before all had said all; else a silent node was waited for ``silence_s``.
    """

    reports: tuple[NodeReport, ...]
    lock_troubles: Mapping[str, str] = field(default_factory=dict)
    last_words: tuple[str, ...] = ()
    ended: bool = False
    silence_s: float = SILENCE_S


def ask_nodes(nodes: Sequence[str], plan: ProbePlan, folder: Path, silence_s: float = SILENCE_S) -> Asked:
    """Start a probe on each node and hear what they say; nothing of it runs afterwards.

    Where a node is lost SLURM may end the probes of all: then those that were heard are asked once more.

    Args:
        nodes: of the allocation.
        plan: for the probes.
        folder: of this diagnosis, empty.
        silence_s: a node that says nothing for so long is given up.

    Raises:
        StorageError: the folder cannot be written.
    """
    first = _ask(nodes, plan, folder / "1", silence_s)
    cut = [report.node for report in first.reports if report.here is not None and not report.over]
    if not first.ended or not cut or len(cut) == len(nodes):
        return first
    second = _ask(cut, plan, folder / "2", silence_s)
    kept = tuple(report for report in first.reports if report.node not in cut)
    return replace(first, reports=tuple(sorted((*kept, *second.reports), key=lambda one: nodes.index(one.node))))


def _ask(nodes: Sequence[str], plan: ProbePlan, folder: Path, silence_s: float) -> Asked:
    folder.mkdir()
    plan.write(folder)
    argv = [sys.executable, *_MODULE, "nodes", str(folder)]
    # as a pilot does: on one node it needs no srun
    alone = list(plan.grants) == [node_name()]
    with held_locks(folder) as troubles:
        try:
            world = World(argv, os.environ) if alone else start_world("srun", nodes, argv)
        except OSError as error:
            reports = tuple(NodeReport(node, trouble=f"{error.filename}: {error.strerror}") for node in nodes)
            return Asked(reports, troubles)
        questions = _Questions(nodes, folder, silence_s)
        try:
            questions.hear_all(world)
        finally:
            if questions.step:
                Slurm(os.environ).end_step(questions.step)
            world.close()
    said = tuple(line.strip() for line in world.last_words if "lacks support for cpu binding" not in line)
    reports = tuple(questions.reports.values())
    return Asked(reports, troubles, said, questions.ended, silence_s)


class _Questions:
    """The talk with the nodes: each is heard, and once all are there a file is put before them."""

    def __init__(self, nodes: Sequence[str], folder: Path, silence_s: float) -> None:
        self.reports = {node: NodeReport(node) for node in nodes}
        self.step = ""
        self.ended = False
        self._folder = folder
        self._silence_s = silence_s
        self._heard = dict.fromkeys(nodes, host.monotonic())
        self._wrote: dict[str, float] = {}
        self._went_at: float | None = None

    def hear_all(self, world: World) -> None:
        """Until all have said all, or are silent, or have gone."""
        over = False
        while True:
            events = world.hear(_LOOK_S)
            for event in events:
                report = self.reports.get(event.get("node", ""))
                if report is not None:
                    self._heard[report.node] = host.monotonic()
                    self._note(event, report)
            self._look_for_files()
            waiting = [report for report in self.reports.values() if not report.over]
            limit = host.monotonic() - self._silence_s
            if not waiting or all(self._heard[report.node] < limit for report in waiting):
                return
            if over and not events:
                self.ended = True
                return
            over = world.is_over()
            self._go_when_all_are_there(limit)

    def _go_when_all_are_there(self, limit: float) -> None:
        here = [node for node, report in self.reports.items() if not report.over]
        missing = [node for node in here if node not in self._wrote and self._heard[node] > limit]
        late = bool(self._wrote) and host.monotonic() > min(self._wrote.values()) + TOGETHER_S
        if self._went_at is None and (late or not missing):
            write_whole(self._folder / GO, "")
            self._went_at = host.monotonic()

    def _look_for_files(self) -> None:
        for node, since in self._wrote.items():
            report = self.reports[node]
            if report.seen_here_s is None and (self._folder / from_node(node)).exists():
                report.seen_here_s = host.monotonic() - since

    def _note(self, event: Mapping[str, Any], report: NodeReport) -> None:
        if "now" in event:
            ahead_s = event["now"] - host.now()
            # what has come late makes it seem less
            report.ahead_s = ahead_s if report.ahead_s is None else max(report.ahead_s, ahead_s)
        self.step = event.get("step") or self.step
        match event["ev"]:
            case "here":
                report.here = event
            case "blind":
                report.blind, report.trouble = True, event["what"]
            case "failed":
                report.trouble, report.cure = event["what"], event["next"]
            case "locks":
                report.locks = event["locks"]
            case "wrote":
                self._wrote[report.node] = host.monotonic()
            case "sees":
                # who comes late cannot have seen it before
                since = max(self._went_at or 0.0, self._wrote[report.node])
                report.seen_there_s = host.monotonic() - since
            case "linked":
                report.link = event["link"]
            case "launchers":
                report.found = event["found"]
            case "probed":
                report.pairs.append(event)
            case "done":
                report.done = True
