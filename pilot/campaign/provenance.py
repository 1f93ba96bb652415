"""Where a label comes from: what is kept beside it, so that others can judge it years later. Pure."""

from typing import Any

from db.records import Attempt, Task
from tasks.protocol import Judgement

#: of what an engine notes of a run; the rest is told by the attempt, as long as that is kept
_OF_THE_RUN = ("scf_steps", "kpoints", "seconds", "restarted")


def provenance_of(task: Task, attempt: Attempt, judgement: Judgement) -> dict[str, Any]:
    """Of a label that a task has made: task, attempt, engine and its version, what it was computed with.

    The name of its settings, the structure's generation and γ are columns of their own.
    """
    facts = judgement.facts
    found: dict[str, Any] = {
        "task": task.id,
        "attempt": attempt.id,
        "number": attempt.number,
        "engine": task.engine,
        "version": facts.get("version") or facts.get(f"{task.engine}_version") or "",
    }
    found |= {name: facts[name] for name in _OF_THE_RUN if facts.get(name) is not None}
    if task.spec.get("fidelity") is not None:
        found["fidelity"] = task.spec["fidelity"]
    # a remedy may have changed how the result was reached; it stands in the attempt's input files
    return found


def settings_record(task: Task) -> dict[str, Any]:
    """What the name of a label's settings stands for; kept once for each name."""
    return {"engine": task.engine, "table": dict(task.spec.get("settings", {}))}
