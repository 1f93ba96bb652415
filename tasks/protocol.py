"""What an engine is: the one protocol behind which Quantum ESPRESSO, LAMMPS, motep and the others stand.

An engine sees files and records, never the database, never another task. Each engine is one module in
``tasks/engines/`` that defines ``ENGINE``; ``tasks/registry.py`` is the only other file to touch when one
is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from db.records import Json, Label, Resources
from db.states import Verdict


class Cause(StrEnum):
    """Why *we* ended a process; None in :class:`Exit` when it ended by itself."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    """It wrote more to its standard output than run.max_output_mb allows."""
    DRAIN = "drain"
    CANCEL = "cancel"
    LOST = "lost"
    """Nobody saw it end: its launcher or its pilot died."""
    NOT_STARTED = "not started"
    """It could not be started at all (no such program, no permission, no room)."""


@dataclass(frozen=True, slots=True)
class Exit:
    """What the launcher saw of the end of an attempt.

    Attributes:
        code: exit code; None when a signal ended it or nobody saw it end.
        signal: the signal that ended it.
        cause: why we ended it, if we did.
        wall_s: from start to end.
        cpu_s: user and system time of all its processes.
        peak_mb: highest sum of the resident memory of its processes.
        message: what the operating system said when it could not be started.
    """

    code: int | None = None
    signal: int | None = None
    cause: Cause | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt as its engine sees it.

    Attributes:
        root: the campaign folder; paths in ``spec`` are relative to it.
        directory: the attempt's own folder, absolute; empty when ``prepare`` is called.
        attempt_id: identifies the attempt; results carry it so that an old file is never taken for a new one.
        resources: what the attempt holds.
        time_left_s: seconds until it is killed or the allocation ends; None when neither is near.
        previous: the folder of an earlier attempt of this task that was interrupted and judged ``resumable``; None:
            there is nothing to go on from. ``prepare`` takes what it needs from there (it may move it), and starts
            afresh if that cannot be used.
    """

    root: Path
    directory: Path
    attempt_id: int
    spec: Json
    resources: Resources = Resources()
    time_left_s: float | None = None
    previous: Path | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
        argv: the program and its arguments; never a shell line unless the user wrote one.
        mpi: start it as ``resources.ranks`` MPI ranks on the cores of the slot.
        env: added to the clean environment.
        cwd: where it runs; None: the attempt's folder.
        stdin: a file in the attempt's folder, or None for /dev/null.
        stdout: a file in the attempt's folder.
        stderr: a file in the attempt's folder; the same name as ``stdout`` joins the two.
    """

    argv: tuple[str, ...]
    mpi: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stdin: str | None = None
    stdout: str = "stdout"
    stderr: str = "stderr"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an engine says of a finished attempt.

    Attributes:
        verdict: never from the exit code alone, nor from a marker alone.
        reason: one line for people; why it is not DONE, or empty.
        facts: small numbers for the record.
        label: for the kind *label*, when DONE.
        resumable: for INTERRUPTED: the attempt's folder holds a state from which the next one can go on. What of it
            lies in :mod:`tasks.scratch` is removed when there will be no next one.
        remedy: for a failure: entries of the spec that the next attempt should have, as the files of this one suggest;
            None: ``soften`` is asked.
    """

    verdict: Verdict
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    label: Label | None = None
    resumable: bool = False
    remedy: Json | None = None


class Engine(Protocol):
    """How one program is used: prepare files, give the command, judge the result, stop softly, soften."""

    name: str
    #: whether ``prepare`` writes files: if not, the attempt's folder is made only when its process starts
    writes_input: bool

    def prepare(self, work: Work) -> Command:
        """Write the input files into ``work.directory`` and say what to start.

        Raises:
            PilotError: the input cannot be made (the attempt is judged BAD_INPUT with its text).
        """

    def judge(self, work: Work, end: Exit) -> Judgement:
        """Read the output files and say what became of the attempt; never raises for what a run wrote.

        ``end.cause`` LOST with no exit code means that nobody saw the end: DONE only if the files alone
        prove a complete result of *this* attempt, else INTERRUPTED.
        """

    def stop_softly(self, work: Work) -> bool:
        """Ask the running program to stop in its own way; False when it has none."""

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:
        """The spec for another attempt that may succeed after ``tries`` ended with ``verdict``, or None.

        ``reason`` is what the judgement of the last of them said. None means "no remedy": the attempt is repeated
        as it was if the budget allows.
        """

    def find(self, settings: Json) -> "Finding":
        """What of this engine is installed here, for ``pilot doctor``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``pilot doctor``.

    Attributes:
        what: the thing that was looked for.
        found: the version or path, or what is wrong.
        ok: whether it can be used.
        cure: the command that mends it.
    """

    what: str
    found: str
    ok: bool
    cure: str = ""
