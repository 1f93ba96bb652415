"""The states of tasks and pilots, and the only table of their transitions.

Pure. The schema repeats :data:`TRANSITIONS` as a trigger, so that not even a slip in our own code can take
a task along a way that is not here.
"""

from enum import StrEnum

from db.errors import StateError


class TaskState(StrEnum):
    """Where a task is in its life."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


class Event(StrEnum):
    """What happens to a task; the name of an event is what the events table records."""

    ADDED = "added"
    RELEASED = "released"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVIVED = "revived"
    HELD = "held"


#: event -> {state before: state after}. ``ADDED`` has no state before.
TRANSITIONS: dict[Event, dict[TaskState, TaskState]] = {
    Event.RELEASED: {TaskState.WAITING: TaskState.READY},
    Event.STARTED: {TaskState.READY: TaskState.RUNNING},
    Event.SUCCEEDED: {TaskState.RUNNING: TaskState.DONE},
    # by itself it failed, and its budget for that kind of failure allows another attempt
    Event.RETRIED: {TaskState.RUNNING: TaskState.READY},
    # we or the machine took it away: costs no retry
    Event.INTERRUPTED: {TaskState.RUNNING: TaskState.READY},
    Event.FAILED: {TaskState.RUNNING: TaskState.FAILED},
    Event.CANCELLED: {
        TaskState.WAITING: TaskState.CANCELLED,
        TaskState.READY: TaskState.CANCELLED,
        TaskState.RUNNING: TaskState.CANCELLED,
    },
    # the user asked for it again
    Event.REVIVED: {TaskState.FAILED: TaskState.WAITING, TaskState.CANCELLED: TaskState.WAITING},
    # its parent was revived
    Event.HELD: {TaskState.READY: TaskState.WAITING},
}


class EdgeKind(StrEnum):
    """What an edge "B needs A" waits for."""

    DONE = "done"
    """A succeeded."""
    ENDED = "ended"
    """A ended in any way."""


class PilotState(StrEnum):
    """Where a pilot is in its life."""

    ACTIVE = "active"
    DRAINING = "draining"
    ENDED = "ended"
    LOST = "lost"


class Verdict(StrEnum):
    """What became of one attempt."""

    DONE = "done"
    NOT_CONVERGED = "not converged"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "timeout"
    BAD_INPUT = "bad input"
    INFRASTRUCTURE = "infrastructure"
    CANCELLED = "cancelled"


class TaskKind(StrEnum):
    """The five steps of a generation, and the user's own commands."""

    EXPLORE = "explore"
    SELECT = "select"
    LABEL = "label"
    TRAIN = "train"
    EVALUATE = "evaluate"
    COMMAND = "command"


def after(event: Event, state: TaskState) -> TaskState:
    """The state that ``event`` leads to from ``state``.

    Raises:
        StateError: the table has no such transition.
    """
    try:
        return TRANSITIONS[event][state]
    except KeyError:
        raise StateError(f"a task that is {state} cannot be {event}") from None


def releases(kind: EdgeKind, parent: TaskState) -> bool:
    """Whether an edge of ``kind`` no longer holds its child back, now that its parent is ``parent``."""
    return parent is TaskState.DONE or (kind is EdgeKind.ENDED and parent in TERMINAL)


def dooms(kind: EdgeKind, parent: TaskState) -> bool:
    """Whether the child of an edge of ``kind`` can never start while its parent stays ``parent``."""
    return kind is EdgeKind.DONE and parent in TERMINAL and parent is not TaskState.DONE


class Role(StrEnum):
    """What a labelled structure is for. Only those of the first kind are ever trained on."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    """Set aside at the beginning: errors are measured on it."""
    EOS = "eos"
    """A point of the reference energy-volume curve."""
    ELASTIC = "elastic"
    """A strained cell from which the reference's elastic constants follow."""
    SAMPLE = "sample"
    """A configuration of an exploration, drawn to compare γ and error."""
    TEST = "test"
    """Brought by the user to measure errors on."""
