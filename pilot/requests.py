"""What users ask of a pilot while it runs, or of the folder while none does: one function a verb.

A request is applied in one transaction together with the record that it was: after a crash it is neither lost
nor applied twice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, InterfaceError, ProgrammingError

from db import pilot_table, task_table
from db.errors import InputError, PilotError
from db.records import NewTask, Resources, Structure
from db.states import EdgeKind, TaskKind, TaskState
from pilot.campaign.importing import import_labels
from pilot.campaign.protocol import PRIORITY
from pilot.drain import Urgency
from pilot.durations import say_duration
from pilot.ledger import Ledger
from pilot.mailbox import Request
from pilot.orders import DrainOrder
from pilot.turn import Turn

Answer = dict[str, Any]

_NO_PILOT = MappingProxyType(
    {"ok": False, "said": "no pilot is alive in this folder", "next": "`pilot run` starts one", "code": 5}
)

#: What a request can stumble over that was not made by our command line: it costs the request, not the pilot. Each
#: is raised before the reactor has changed anything.
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
#: What SQLite says of values that a task cannot have. Of the database itself an OperationalError tells: it stops us.
UNFIT = (IntegrityError, InterfaceError, ProgrammingError)


@dataclass(frozen=True, slots=True)
class Steering:
    """What the loop of the pilot itself is asked to do: None of it where no pilot runs."""

    drain: Callable[[Connection, DrainOrder], None]
    end_by: Callable[[float], None]
    resume: Callable[[Connection], bool]
    why_drained: Callable[[], str]


def apply(request: Request, ledger: Ledger, turn: Turn, steering: Steering | None) -> Answer:
    """Do what a request asks, and say what was done: ``{"ok": …, "said": …}`` and what the verb adds.

    A request that cannot be fulfilled changes nothing and is answered with the reason.
    """
    known = pilot_table.answer_of(turn.connection, request.id)
    if known is not None:
        return known
    # what went before must not be undone with a request that cannot be fulfilled
    turn.flush()
    try:
        with turn.connection.begin_nested():
            answer = _do(request, ledger, turn, steering)
            turn.flush()
    except PilotError as error:
        answer = {
            "ok": False,
            "said": error.what,
            "where": error.where,
            "next": error.next_step,
            "code": error.exit_code,
        }
    except UNREADABLE as error:
        answer = {
            "ok": False,
            "said": f"the request cannot be read: {error!r}",
            "where": request.id,
            "next": "",
            "code": 2,
        }
    pilot_table.record_request(turn.connection, request.id, request.verb, answer, turn.at)
    return answer


def _do(request: Request, ledger: Ledger, turn: Turn, steering: Steering | None) -> Answer:
    arguments = request.arguments
    match request.verb:
        case "add":
            return _add(arguments, turn)
        case "add label":
            return _add_labels(arguments, ledger, turn)
        case "import":
            protocol = None if ledger.driver is None else ledger.driver.protocol
            return import_labels(arguments, protocol, turn.connection, turn.at)
        case "cancel":
            ids = _ids(arguments["tasks"])
            turn.cancel(ids, "cancelled by the user")
            return {"ok": True, "said": f"cancelled: {_listed(ids)}"}
        case "retry":
            ids = _ids(arguments["tasks"]) or _failed(turn)
            turn.retry(ids)
            return {"ok": True, "said": f"to be tried again: {_listed(ids)}" if ids else "no task has failed"}
        case "drain" if arguments.get("by") is not None:
            return _end_by(_moment(arguments["by"], turn.at), turn, steering)
        case "drain":
            return _drain(turn, steering, now=bool(arguments.get("now")))
        case "resume":
            return _resume(turn, steering)
    raise InputError(f"a pilot does not know the request {request.verb!r}", next_step="use the same version of pilot")


def _drain(turn: Turn, steering: Steering | None, *, now: bool) -> Answer:
    if steering is None:
        return dict(_NO_PILOT)
    steering.drain(turn.connection, DrainOrder("pilot drain", Urgency.NOW if now else Urgency.WISH))
    said = "nothing new starts; what runs may finish" if not now else "what runs is ended, and runs again later"
    return {"ok": True, "said": f"draining: {said}"}


def _end_by(at: float, turn: Turn, steering: Steering | None) -> Answer:
    """It is an end like that of the allocation: until then all that fits still starts."""
    pilot_table.end_by(turn.connection, at)
    left = say_duration(at - turn.at)
    if steering is None:
        return {"ok": True, "said": f"no pilot is alive; whichever works here next will have ended in {left}"}
    steering.end_by(at)
    return {"ok": True, "said": f"the pilot will have ended in {left}; until then it starts what will be done in time"}


def _moment(given: Any, now: float) -> float:
    at = _seconds(given)
    if at <= now:
        raise InputError("that time has passed", next_step="`pilot drain` ends the pilot now; nothing was changed")
    return at


def _resume(turn: Turn, steering: Steering | None) -> Answer:
    had_end = pilot_table.wished_end(turn.connection) is not None
    pilot_table.end_by(turn.connection, None)
    if steering is not None and steering.resume(turn.connection):
        return {"ok": True, "said": "the pilot starts tasks again"}
    if steering is not None and (why := steering.why_drained()):
        said = f"too late: what runs was told to stop ({why}); the next pilot goes on with it"
        return {"ok": False, "said": said, "next": "`pilot status`", "code": 5}
    if had_end:
        return {"ok": True, "said": "the time of `pilot drain --by` is taken back"}
    if steering is None:
        return dict(_NO_PILOT)
    return {"ok": False, "said": "the pilot is not draining", "next": "`pilot status`", "code": 5}


def _add(arguments: Mapping[str, Any], turn: Turn) -> Answer:
    try:
        tasks = turn.add([_new_task(given) for given in arguments["tasks"]])
    except UNFIT as error:
        raise InputError(
            f"the database refuses these tasks: {error.orig}", next_step="mend what asks for them: nothing was added"
        ) from error
    return {"ok": True, "said": f"added: {_listed([task.id for task in tasks])}", "tasks": [task.id for task in tasks]}


def _new_task(given: Mapping[str, Any]) -> NewTask:
    task = NewTask(
        kind=TaskKind.COMMAND,
        engine="command",
        name=str(given["name"]),
        spec=given["spec"],
        key=given.get("key"),
        priority=PRIORITY[TaskKind.COMMAND],
        resources=Resources(**given.get("resources", {})),
    )
    return _as_wished(task, given)


def _as_wished(task: NewTask, given: Mapping[str, Any]) -> NewTask:
    """The task with the dependencies, priority and times that the user gave; without, as it is."""
    after = [(int(parent), EdgeKind.DONE) for parent in given.get("after", ())]
    after += [(int(parent), EdgeKind.ENDED) for parent in given.get("after_ended", ())]
    wishes: dict[str, Any] = {}
    if given.get("priority") is not None:
        wishes["priority"] = int(given["priority"])
    for key in ("time_request_s", "time_limit_s"):
        if given.get(key) is not None:
            wishes[key] = _seconds(given[key])
    return replace(task, after=(*task.after, *after), **wishes)


def _seconds(given: Any) -> float:
    seconds = float(given)
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"{given!r} is no time")
    return seconds


def _add_labels(arguments: Mapping[str, Any], ledger: Ledger, turn: Turn) -> Answer:
    if ledger.driver is None:
        raise InputError(
            "this folder has no campaign: there is nothing to label structures for",
            where="pilot.toml",
            next_step="write [campaign] into pilot.toml; `pilot init --example li-small-cell` shows how",
        )
    structures = [(Structure.from_json(given["structure"]), str(given["source"])) for given in arguments["structures"]]
    new, known = ledger.driver.add_labels(turn.connection, structures)
    tasks = turn.add([_as_wished(task, arguments) for task in new])
    said = f"{len(tasks)} structures to label" + (f": {_listed([task.id for task in tasks])}" if tasks else "")
    if known:
        said += f"; {known} were known already"
    return {"ok": True, "said": said, "tasks": [task.id for task in tasks]}


def _failed(turn: Turn) -> list[int]:
    return [task.id for task in task_table.list_tasks(turn.connection, state=TaskState.FAILED, limit=100_000)]


def _ids(given: list[Any]) -> list[int]:
    return list(dict.fromkeys(int(task_id) for task_id in given))


def _listed(ids: list[int]) -> str:
    """Task ids, runs of them folded: "tasks 3–7, 12"."""
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
    return f"task{'s' if len(ids) != 1 else ''} {shown}"
