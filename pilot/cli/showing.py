"""One task as text, or for programs."""

import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from db.errors import PilotError
from db.records import Attempt, Edge, Resources
from db.states import TERMINAL, EdgeKind, TaskState, Verdict
from pilot import host
from pilot.cli.attempt_files import AttemptFiles, files_of
from pilot.cli.output import ERROR, FAINT, GOOD, WARNING, plural, show
from pilot.cli.records import Record, read_record
from pilot.cli.tables import grid
from pilot.contents import say_size
from pilot.durations import say_duration
from pilot.folder import Folder

_STATE_STYLES = {TaskState.DONE: GOOD, TaskState.FAILED: ERROR, TaskState.CANCELLED: WARNING}
#: Of longer lists the first ones are shown; --json has all.
_MANY = 12
_LONG = 400
#: Facts that are said in other words.
_UNSAID = frozenset({"seconds", "lost"})


def print_task(folder: Folder, task_id: int, *, as_json: bool) -> None:
    """Print one task.

    Raises:
        MissingError: there is no such task.
    """
    record = read_record(folder, task_id)
    if as_json:
        print(json.dumps(_as_data(folder, record)))
        return
    events = grid(at={}, event={}, detail={})
    events.show_header = False
    for at, event, detail in record.events:
        events.add_row(_moment(at), event, detail)
    show(
        *_head(record),
        *_edges("needs", record.needs),
        *_edges("needed by", record.needed_by),
        *(block for attempt in record.attempts for block in _attempt(folder, record, attempt)),
        Text("\nwhat happened", style="bold"),
        events,
    )


def _head(record: Record) -> list[RenderableType]:
    task, expected = record.task, record.expected
    state = Text(task.state, style=_STATE_STYLES.get(task.state, "bold"))
    facts = [
        ("kind", f"{task.kind}, engine {task.engine}"),
        ("holds", _resources(task.resources)),
        ("priority", str(task.priority)),
        ("expected", expected.why if expected.seconds is None else f"{say_duration(expected.seconds)}: {expected.why}"),
        ("time", f"request {say_duration(task.time_request_s)}, limit {say_duration(record.limit_s)}"),
        ("tries", ", ".join(f"{verdict}: {number}" for verdict, number in task.tries.items())),
        *_spec(task.spec),
    ]
    return [Text.assemble(f"task {task.id}: ", (task.name, "bold"), " is ", state), _facts(facts)]


def _facts(facts: Iterable[tuple[str, str]]) -> Table:
    table = grid(name={"style": FAINT, "min_width": 9, "no_wrap": True}, value={"overflow": "fold"})
    table.show_header = False
    for name, value in facts:
        if value:
            table.add_row(name, value)
    return table


def _resources(resources: Resources) -> str:
    parts = [f"{plural(resources.ranks, 'rank')} × {plural(resources.threads, 'core')}"]
    if resources.nodes > 1:
        parts.append(f"on {resources.nodes} nodes")
    if resources.gpus:
        parts.append(plural(resources.gpus, "GPU"))
    parts.append(f"{resources.memory_mb} MB" if resources.memory_mb else "its share of the memory")
    return ", ".join(parts)


def _spec(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it is to do, without what is long."""
    shown: list[tuple[str, str]] = []
    for name, value in spec.items():
        if name == "structure":
            shown.append((name, plural(len(value["numbers"]), "atom")))
        elif value not in (None, {}, [], False):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            shown.append((name, text if len(text) <= _LONG else text[:_LONG] + " …"))
    return shown


def _edges(heading: str, edges: list[tuple[Edge, str, TaskState]]) -> list[RenderableType]:
    if not edges:
        return []
    table = grid(task={"justify": "right"}, state={}, name={}, kind={"style": FAINT})
    table.show_header = False
    for edge, name, state in edges[:_MANY]:
        other = edge.parent if heading == "needs" else edge.child
        kind = "to be done" if edge.kind is EdgeKind.DONE else "to have ended"
        table.add_row(str(other), Text(state, style=_STATE_STYLES.get(state, "")), name, kind)
    more = [Text(f"and {len(edges) - _MANY} more", style=FAINT)] if len(edges) > _MANY else []
    return [Text(f"\n{heading}", style="bold"), table, *more]


def _before(record: Record, attempt: Attempt) -> int | None:
    """The number of the attempt from which this one was to go on; None: it began afresh."""
    for earlier in reversed([each for each in record.attempts if each.number < attempt.number]):
        if earlier.verdict is not Verdict.INTERRUPTED:
            return None
        if earlier.resumable:
            return earlier.number
    return None


def _attempt(folder: Folder, record: Record, attempt: Attempt) -> list[RenderableType]:
    before = _before(record, attempt)
    # what the last attempt of a task that has ended has left is of no use
    kept = attempt.resumable and (attempt is not record.attempts[-1] or record.task.state not in TERMINAL)
    verdict = "running" if attempt.verdict is None else str(attempt.verdict)
    style = GOOD if attempt.verdict is Verdict.DONE else ERROR if attempt.verdict is not None else "bold"
    until = host.now() if attempt.ended_at is None else attempt.ended_at
    wall = attempt.wall_s if attempt.wall_s is not None else until - attempt.started_at
    ended = "" if attempt.ended_at is None else f" to {_moment(attempt.ended_at)}"
    used = f"wall {say_duration(wall)}"
    if attempt.cpu_s is not None and attempt.peak_mb is not None:
        used += f", CPU {say_duration(attempt.cpu_s)}, memory at most {attempt.peak_mb:.0f} MB"
    exited = "" if attempt.exit_code is None else f"code {attempt.exit_code}"
    gpus = f", GPUs {_listed(attempt.gpus)}" if attempt.gpus else ""
    facts = [
        ("reason", attempt.reason + ("; the next attempt goes on from here" if kept else "")),
        ("goes on", "" if before is None else f"from attempt {before}"),
        ("node", f"{attempt.node}, cores {_listed(attempt.cores)}{gpus}, pilot {attempt.pilot_id}"),
        ("time", f"{_moment(attempt.started_at)}{ended}"),
        ("used", used),
        ("exit", _signal(attempt.signal) if attempt.signal is not None else exited),
        *((name.replace("_", " "), _fact(value)) for name, value in attempt.facts.items() if name not in _UNSAID),
        ("files", "\n".join(_files(files_of(folder, attempt)))),
    ]
    return [Text.assemble(f"\nattempt {attempt.number}: ", (verdict, style), style="bold"), _facts(facts)]


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in numbers)


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        return ", ".join(_fact(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(entry)}" for name, entry in value.items())
    text = str(value)
    return text if len(text) <= _LONG else text[:_LONG] + " …"


def _files(files: AttemptFiles) -> list[str]:
    """Where the files of an attempt lie, then the files, each with its size."""
    if files.archive is None and not files.directory.is_dir():
        return [f"{files.directory} (removed)"]
    try:
        found = files.listed()
    except PilotError as error:
        return str(error).splitlines()
    lines = [f"{files.directory}/"] if files.archive is None else [f"packed into {files.archive}:"]
    lines += [f"  {name} ({say_size(size)})" for name, size in found[:_MANY]]
    lines += [f"  and {len(found) - _MANY} more"] if len(found) > _MANY else []
    return lines if files.archive is None else [*lines, f"to get them out: {files.unpacking}"]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _contents(folder: Folder, attempt: Attempt) -> dict[str, Any]:
    """The files by name with their bytes, and the archive in which they lie, "" if in no archive."""
    files = files_of(folder, attempt)
    try:
        found = files.listed()
    except PilotError:
        found = []
    return {"archive": "" if files.archive is None else str(files.archive), "contents": dict(found)}


def _as_data(folder: Folder, record: Record) -> dict[str, Any]:
    return {
        "task": asdict(record.task),
        "expected": asdict(record.expected),
        "needs": [{"task": edge.parent, "kind": edge.kind, "state": state} for edge, _, state in record.needs],
        "needed_by": [{"task": edge.child, "kind": edge.kind, "state": state} for edge, _, state in record.needed_by],
        "attempts": [
            asdict(attempt) | {"directory": str(folder.root / attempt.directory)} | _contents(folder, attempt)
            for attempt in record.attempts
        ],
        "events": [{"at": at, "event": event, "detail": detail} for at, event, detail in record.events],
    }
