"""What the steps that are done in Python have in common: one process of ``tasks.steps``, one result.json."""

import contextlib
import json
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from db.errors import InputError
from db.files import write_whole
from db.records import Json
from db.states import Verdict
from tasks import checkpoint, endings
from tasks.engines.command import last_line
from tasks.protocol import Cause, Command, Exit, Finding, Judgement, Work

STOP_FILE = "stop"
_TASK_FILE = "task.json"
_RESULT_FILE = "result.json"
_BAD_INPUT = 3
_STORAGE = 6

_ENDED_BY_US = {
    Cause.TIMEOUT: (Verdict.TIMEOUT, "it ran longer than its time limit"),
    Cause.MEMORY: (Verdict.OUT_OF_MEMORY, "it used more memory than it had asked for"),
    Cause.OUTPUT: endings.BY_US[Cause.OUTPUT],
    Cause.DRAIN: (Verdict.INTERRUPTED, "stopped by the drain"),
    Cause.LOST: (Verdict.INTERRUPTED, "nobody saw it end, and there is no result"),
}


@dataclass(frozen=True, slots=True)
class PythonStep:
    """An engine whose program is our own ``tasks.steps``.

    Attributes:
        name: of the engine.
        step: what ``tasks.steps`` is asked to do.
        needs: keys that the spec must have.
        writes: files that a finished step leaves in the attempt's folder.
        packages: what must be installed; the first gives the version that ``pilot doctor`` shows.
        stops: whether it heeds a file ``stop``, and writes checkpoints from which it can go on.
        writes_input: it does, for each of them.
    """

    name: str
    step: str
    needs: tuple[str, ...]
    writes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    stops: bool = False
    writes_input: bool = True

    def prepare(self, work: Work) -> Command:
        """Write task.json and say what to start.

        Raises:
            InputError: the spec has not all it needs.
            StorageError: the disk refuses.
        """
        missing = [key for key in self.needs if key not in work.spec]
        if missing:
            raise InputError(
                f"the spec of a task for {self.name} has no {', '.join(missing)}",
                where=f"attempt {work.attempt_id}",
                next_step="add what is missing, or let `pilot run` plan the task",
            )
        task = {
            "step": self.step,
            "attempt_id": work.attempt_id,
            "root": str(work.root),
            "threads": work.resources.threads,
            "spec": dict(work.spec),
            "note": self._take_over(work),
        }
        with contextlib.suppress(FileNotFoundError):
            (work.directory / STOP_FILE).unlink()
        write_whole(work.directory / _TASK_FILE, json.dumps(task, indent=1), durable=False)
        # sums depend on the number of threads: one thread gives the same potential every time
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
        return Command((sys.executable, "-P", "-m", "tasks.steps"), env=threads)

    def _take_over(self, work: Work) -> str:
        """Copy the checkpoint of the attempt before, if there is one of use; else why not, for the log."""
        if work.previous is None or not self.stops:
            return ""
        try:
            checkpoint.inherit(work.previous, work.directory, checkpoint.identity(self.step, work.spec))
        except checkpoint.UnusableError as error:
            return f"starting afresh: the checkpoint of {work.previous.name} cannot be used: {error}"
        return ""

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By result.json, which appears whole and last, and the way the process ended."""
        if end.cause is Cause.NOT_STARTED:
            return Judgement(Verdict.INFRASTRUCTURE, f"it could not be started: {end.message}")
        if end.cause is Cause.CANCEL:
            return Judgement(Verdict.CANCELLED, "cancelled")
        result = self._result(work)
        if "error" in result and (end.code == _BAD_INPUT or end.cause is not None):
            return Judgement(Verdict.BAD_INPUT, str(result["error"]).replace("\n", "; "))
        facts = result.get("facts")
        # that it was ended, by us or by itself, does not undo work that was finished before
        if isinstance(facts, dict):
            if end.cause is None and end.code != 0:
                facts["ended_with"] = endings.how(end)
            return self._judge_result(work, facts)
        if end.cause is not None:
            verdict, reason = _ENDED_BY_US[end.cause]
            return self._interrupted(work, reason, {}) if verdict is Verdict.INTERRUPTED else Judgement(verdict, reason)
        last = last_line(work.directory / "stderr")
        how = endings.how(end)
        if end.code == 0:
            how = "it left no result of this attempt"
        verdict = Verdict.INFRASTRUCTURE if end.code == _STORAGE else Verdict.CRASHED
        return Judgement(verdict, f"{how}: {last}" if last else how)

    def _judge_result(self, work: Work, facts: dict[str, Any]) -> Judgement:
        if facts.get("stopped"):
            return self._interrupted(work, "stopped on request", facts)
        lost = [name for name in self.writes if not (work.directory / name).is_file()]
        if lost:
            return Judgement(Verdict.CRASHED, f"the result is there, but not {', '.join(lost)}", facts)
        return Judgement(Verdict.DONE, "", facts)

    def _interrupted(self, work: Work, reason: str, facts: dict[str, Any]) -> Judgement:
        """Whether the next attempt can go on from here, and from where."""
        if not self.stops:
            return Judgement(Verdict.INTERRUPTED, reason, facts)
        try:
            found = checkpoint.look(work.directory, checkpoint.identity(self.step, work.spec))
        except checkpoint.UnusableError:
            return Judgement(Verdict.INTERRUPTED, reason, facts)
        return Judgement(Verdict.INTERRUPTED, reason, {**facts, "checkpoint_at": found.at}, resumable=True)

    def _result(self, work: Work) -> dict[str, Any]:
        """result.json of this very attempt, or nothing."""
        try:
            result = json.loads((work.directory / _RESULT_FILE).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return result if isinstance(result, dict) and result.get("attempt_id") == work.attempt_id else {}

    def stop_softly(self, work: Work) -> bool:
        """Put the file that it looks for into its folder."""
        if not self.stops:
            return False
        write_whole(work.directory / STOP_FILE, "", durable=False)
        return True

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """There is no gentler way to do these."""
        return None

    def find(self, settings: Json) -> Finding:  # noqa: ARG002
        """Whether the packages are installed; nothing is imported."""
        cure = f"pip install {' '.join(self.packages)}"
        versions = []
        for package in self.packages:
            try:
                versions.append(f"{package} {metadata.version(package)}")
            except metadata.PackageNotFoundError:
                return Finding(f"{self.step} ({self.name})", f"{package} is not installed", ok=False, cure=cure)
        return Finding(f"{self.step} ({self.name})", ", ".join(versions), ok=True)
