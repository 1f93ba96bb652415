"""Any calculator of ASE by its import path, in a process of its own: ``tasks.ase_label``.

Its result appears whole, last, and with the id of its attempt. So it counts also where the process died after it:
libraries with code of their own like to do so while Python ends.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase

from db.errors import InputError
from db.files import write_whole
from db.records import Json, Label
from db.states import Verdict
from tasks import endings
from tasks.ase_label import RESULT, TASK, calculator_class
from tasks.engines.command import last_line
from tasks.protocol import Cause, Command, Exit, Finding, Judgement, Work
from tasks.texts import in_one_line

_KEYS = ("calculator", "arguments")
#: what its process says of itself; see tasks.ase_label
_PROBLEMS = (Verdict.BAD_INPUT, Verdict.NOT_CONVERGED, Verdict.OUT_OF_MEMORY)
_LARGEST_RESULT_BYTES = 100_000_000
_MEMORY = re.compile(r"MemoryError|cannot allocate memory|bad_alloc|out of memory", re.IGNORECASE)
_MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|Stale file handle|Input/output error|Read-only file system"
    r"|StorageError"
)


def check_settings(settings: Json, species: Sequence[str], root: Path | None = None) -> list[str]:  # noqa: ARG001
    """What is wrong with the table [label.ase], one sentence each; empty when nothing is.

    Which elements a calculator knows it says only when it is asked for energies.

    Args:
        settings: ``{"calculator": import path, "arguments": {…}}``.
        species: symbols of the campaign.
        root: the campaign folder; all engines are asked alike.
    """
    strange = [key for key in settings if key not in _KEYS]
    problems = [f"label.ase.{key} is not a setting (there are {', '.join(_KEYS)})" for key in strange]
    if not isinstance(settings.get("arguments") or {}, dict):
        problems.append("label.ase.arguments must be a table")
    try:
        calculator_class(_path(settings))
    except InputError as error:
        problems.append(f"{error.what}; {error.next_step}")
    return problems


@dataclass(frozen=True, slots=True)
class AseCalculator:
    """``{"structure", "species", "settings": {"calculator", "arguments"}}`` to a label; one thread."""

    name: str = "ase"
    writes_input: bool = True

    def prepare(self, work: Work) -> Command:
        """Write task.json.

        Raises:
            InputError: no calculator is named. Whether it can be imported is seen in its own process.
        """
        settings = work.spec["settings"]
        task = {
            "attempt_id": work.attempt_id,
            "structure": work.spec["structure"],
            "calculator": _path(settings),
            "arguments": settings.get("arguments") or {},
        }
        write_whole(work.directory / TASK, json.dumps(task), durable=False)
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return Command(argv=(sys.executable, "-P", "-m", "tasks.ase_label"), env=one)

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By the exit code, the result, the numbers in it and the attempt that it belongs to."""
        facts: dict[str, Any] = {"seconds": end.wall_s}
        if end.cause is Cause.CANCEL:
            return Judgement(*endings.BY_US[end.cause], facts)
        if end.cause is Cause.NOT_STARTED:
            return Judgement(Verdict.INFRASTRUCTURE, f"{sys.executable}: {end.message}", facts)
        result = _result(work)
        label, wrong = _label(result, len(work.spec["structure"]["numbers"]))
        if label is not None:
            squares = [sum(x * x for x in row) for row in label.forces]
            facts |= {"energy": label.energy, "max_force": max(squares, default=0.0) ** 0.5}
            if end.cause is None and end.code != 0:
                facts["ended_with"] = endings.how(end)
            return Judgement(Verdict.DONE, "", facts, label)
        if end.cause is not None:
            return Judgement(*endings.BY_US[end.cause], facts)
        problem = result.get("problem")
        if isinstance(problem, dict) and problem.get("verdict") in _PROBLEMS:
            return Judgement(Verdict(problem["verdict"]), in_one_line(str(problem.get("text", ""))), facts)
        return Judgement(*_by_itself(end, wrong, last_line(work.directory / "stderr")), facts)

    def stop_softly(self, work: Work) -> bool:  # noqa: ARG002
        """A single point has no middle to stop in."""
        return False

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """What would help depends on the calculator: no remedy."""
        return None

    def find(self, settings: Json) -> Finding:
        """Whether the calculator can be imported."""
        what = "ASE calculator"
        try:
            found = calculator_class(_path(settings))
        except InputError as error:
            return Finding(what, error.what, False, error.next_step)
        return Finding(what, f"{found.__module__}.{found.__qualname__}, ASE {ase.__version__}", True)


def _path(settings: Json) -> str:
    path = settings.get("calculator")
    if not isinstance(path, str) or not path:
        raise InputError(
            "no calculator is named",
            where="label.ase.calculator",
            next_step='set it to an import path, for instance "ase.calculators.emt.EMT"',
        )
    return path


def _result(work: Work) -> dict[str, Any]:
    """result.json if it is of this attempt, else empty."""
    path = work.directory / RESULT
    try:
        if path.stat().st_size > _LARGEST_RESULT_BYTES:
            return {}
        result = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(result, dict) or result.get("attempt_id") != work.attempt_id:
        return {}
    return result


def _label(result: Json, atoms: int) -> tuple[Label | None, str]:
    if not result.get("label"):
        return None, "no result"
    try:
        label = Label.from_json(result["label"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None, "a result that cannot be read"
    if len(label.forces) != atoms:
        return None, f"forces of {len(label.forces)} atoms instead of {atoms}"
    numbers = [x for row in (*label.forces, (label.energy,), label.stress or ()) for x in row]
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        return None, "a number that is not finite"
    return label, ""


def _by_itself(end: Exit, wrong: str, last: str) -> tuple[Verdict, str]:
    sent = endings.by_signal(end.signal)
    if sent is not None:
        return sent
    how = endings.how(end)
    if end.code == 0:
        return Verdict.CRASHED, f"{how}, but {wrong}"
    verdict = Verdict.CRASHED
    if _MACHINE.search(last):
        verdict = Verdict.INFRASTRUCTURE
    elif _MEMORY.search(last):
        verdict = Verdict.OUT_OF_MEMORY
    return verdict, f"{how}: {last}" if last else f"{how}; {wrong}"


ENGINE = AseCalculator()
