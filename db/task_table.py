"""Tasks, their edges and the record of their transitions: inserting, changing and reading.

Functions that write take a :class:`sqlalchemy.Connection` inside a :meth:`db.engine.Writer.transaction`; the
caller decides what belongs together.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from db.errors import InputError, MissingError
from db.records import Edge, NewTask, Task, Transition
from db.rows import pieces, row_of_task, task_of_new, task_of_row
from db.schema import edges, events, tasks
from db.states import TERMINAL, EdgeKind, Event, TaskKind, TaskState, releases

# statements of every turn are made once: SQLAlchemy spends more time on making one than SQLite on running it
_SET_STATE = update(tasks).where(tasks.c.id == bindparam("b_id")).values(state=bindparam("b_state"))
_ADD_EVENT = insert(events)
_TASKS_BY_ID = select(tasks).where(tasks.c.id.in_(bindparam("ids", expanding=True)))
_STATES_BY_ID = select(tasks.c.id, tasks.c.state).where(tasks.c.id.in_(bindparam("ids", expanding=True)))


def insert_tasks(connection: Connection, new: Sequence[NewTask], at: float) -> tuple[list[Task], list[Edge]]:
    """Insert tasks with their edges; those whose key is there already are left alone.

    A task that needs nothing, or whose needs are met already, begins as ready, else as waiting.

    Args:
        connection: inside a transaction of the writer.
        new: the tasks; a task may need earlier or later ones of the batch by their keys.
        at: seconds since 1970.

    Returns:
        The inserted tasks with their ids, and the edges that still hold a task back.

    Raises:
        MissingError: a task needs one that does not exist.
        InputError: the edges of the batch form a circle.
    """
    ids = _ids_of_keys(connection, {key for task in new for key in _keys_of(task)})
    fresh = [task for task in new if task.key is None or task.key not in ids]
    next_id = int(connection.execute(select(func.coalesce(func.max(tasks.c.id), 0))).scalar_one()) + 1
    numbered = list(zip(range(next_id, next_id + len(fresh)), fresh, strict=True))
    ids |= {task.key: number for number, task in numbered if task.key is not None}
    new_edges = [_edge(number, parent, kind, ids) for number, task in numbered for parent, kind in task.after]
    refuse_circle(new_edges)
    batch = {number for number, _ in numbered}
    states = states_of(connection, {edge.parent for edge in new_edges} - batch)
    for edge in new_edges:
        if edge.parent not in batch and edge.parent not in states:
            raise MissingError(f"there is no task {edge.parent}", next_step="`pilot status --tasks` lists the tasks")
    holding_back = [e for e in new_edges if e.parent not in states or not releases(e.kind, states[e.parent])]
    held = {edge.child for edge in holding_back}
    inserted = [task_of_new(number, task, number in held, at) for number, task in numbered]
    if inserted:
        connection.execute(insert(tasks), [row_of_task(task) for task in inserted])
        connection.execute(
            insert(events), [{"at": at, "task_id": task.id, "event": Event.ADDED, "detail": ""} for task in inserted]
        )
    if new_edges:
        rows = [{"child": e.child, "parent": e.parent, "kind": e.kind} for e in new_edges]
        connection.execute(insert(edges).prefix_with("OR IGNORE"), rows)
    return inserted, holding_back


def refuse_circle(new_edges: Sequence[Edge]) -> None:
    """Check the edges of one batch; older tasks never need newer ones, so a circle can only lie within.

    Raises:
        InputError: the edges form a circle.
    """
    parents: dict[int, set[int]] = {}
    for edge in new_edges:
        parents.setdefault(edge.child, set()).add(edge.parent)
    # take away tasks whose parents all lie outside; what is left at the end lies on or behind a circle
    children: dict[int, list[int]] = {}
    for child, needed in parents.items():
        for parent in needed & parents.keys():
            children.setdefault(parent, []).append(child)
    held = {child: len(needed & parents.keys()) for child, needed in parents.items()}
    free = [child for child, number in held.items() if not number]
    while free:
        current = free.pop()
        del parents[current]
        for child in children.get(current, ()):
            held[child] -= 1
            if not held[child]:
                free.append(child)
    if parents:
        circle = ", ".join(str(number) for number in sorted(parents)[:10])
        raise InputError(
            "these tasks would wait for each other in a circle",
            where=f"tasks {circle}",
            next_step="take one of the dependencies away and add them again: nothing was added",
        )


def record_transitions(
    connection: Connection, transitions: Sequence[Transition], at: float, pilot_id: int | None
) -> None:
    """Write state changes and their events."""
    if not transitions:
        return
    connection.execute(_SET_STATE, [{"b_id": t.task_id, "b_state": t.after} for t in transitions])
    connection.execute(
        _ADD_EVENT,
        [
            {"at": at, "pilot_id": pilot_id, "task_id": t.task_id, "event": t.event, "detail": t.detail}
            for t in transitions
        ],
    )


def drop_edges_into(connection: Connection, child: int) -> None:
    """A task waits no longer for the tasks it needed."""
    connection.execute(delete(edges).where(edges.c.child == child))


def record_change(connection: Connection, task_id: int, **columns: Any) -> None:
    """Change what a task is to do (its spec, resources or tries), never its state."""
    assert "state" not in columns
    connection.execute(update(tasks).where(tasks.c.id == task_id).values(**columns))


def read_task(connection: Connection, task_id: int) -> Task:
    """One task.

    Raises:
        MissingError: there is none with this id.
    """
    row = connection.execute(select(tasks).where(tasks.c.id == task_id)).one_or_none()
    if row is None:
        raise MissingError(f"there is no task {task_id}", next_step="`pilot status --tasks` lists the tasks")
    return task_of_row(row)


def read_tasks(connection: Connection, ids: Iterable[int]) -> dict[int, Task]:
    """Several tasks by id."""
    found: dict[int, Task] = {}
    for piece in pieces(ids):
        found |= {row.id: task_of_row(row) for row in connection.execute(_TASKS_BY_ID, {"ids": piece})}
    return found


def read_open_tasks(connection: Connection) -> Iterator[Task]:
    """All tasks that have not ended, in the order of their ids, without their specs (they may be large)."""
    columns = [column for column in tasks.c if column.name != "spec"]
    question = select(*columns).where(tasks.c.state.not_in(TERMINAL)).order_by(tasks.c.id)
    for row in connection.execute(question):
        yield task_of_row(row, with_spec=False)


def list_tasks(
    connection: Connection, *, state: TaskState | None = None, kind: TaskKind | None = None, limit: int = 50
) -> list[Task]:
    """The newest tasks of a state or kind, without their specs."""
    columns = [column for column in tasks.c if column.name != "spec"]
    question = select(*columns).order_by(tasks.c.id.desc()).limit(limit)
    if state is not None:
        question = question.where(tasks.c.state == state)
    if kind is not None:
        question = question.where(tasks.c.kind == kind)
    return [task_of_row(row, with_spec=False) for row in connection.execute(question)]


def read_edges_of_open_tasks(connection: Connection) -> list[tuple[Edge, TaskState]]:
    """The edges of tasks that have not ended, each with the state of its parent."""
    child = tasks.alias("child")
    parent = tasks.alias("parent")
    question = (
        select(edges, parent.c.state)
        .join(child, child.c.id == edges.c.child)
        .join(parent, parent.c.id == edges.c.parent)
        .where(child.c.state.in_([TaskState.WAITING, TaskState.READY]))
    )
    return [
        (Edge(row.child, row.parent, EdgeKind(row.kind)), TaskState(row.state)) for row in connection.execute(question)
    ]


def holding(known: Iterable[tuple[Edge, TaskState]]) -> list[Edge]:
    """Those of the edges that still hold their child back."""
    return [edge for edge, parent in known if not releases(edge.kind, parent)]


def read_edges_around(connection: Connection, task_id: int) -> list[Edge]:
    """The edges to the parents and to the children of one task."""
    question = select(edges).where(or_(edges.c.child == task_id, edges.c.parent == task_id))
    return [Edge(row.child, row.parent, EdgeKind(row.kind)) for row in connection.execute(question)]


def read_edges_from(connection: Connection, parents: Iterable[int]) -> list[Edge]:
    """The edges that lead to the children of ``parents``."""
    found: list[Edge] = []
    for piece in pieces(parents):
        question = select(edges).where(edges.c.parent.in_(piece))
        found += [Edge(row.child, row.parent, EdgeKind(row.kind)) for row in connection.execute(question)]
    return found


def read_edges_into(connection: Connection, children: Iterable[int]) -> list[Edge]:
    """The edges that lead to ``children`` from their parents."""
    found: list[Edge] = []
    for piece in pieces(children):
        question = select(edges).where(edges.c.child.in_(piece))
        found += [Edge(row.child, row.parent, EdgeKind(row.kind)) for row in connection.execute(question)]
    return found


def states_of(connection: Connection, ids: Iterable[int]) -> dict[int, TaskState]:
    """The states of tasks; ids that do not exist are left out."""
    found: dict[int, TaskState] = {}
    for piece in pieces(ids):
        found |= {row.id: TaskState(row.state) for row in connection.execute(_STATES_BY_ID, {"ids": piece})}
    return found


def count_by_kind_and_state(connection: Connection) -> Counter[tuple[TaskKind, TaskState]]:
    """How many tasks there are of each kind in each state."""
    question = select(tasks.c.kind, tasks.c.state, func.count()).group_by(tasks.c.kind, tasks.c.state)
    return Counter({(TaskKind(kind), TaskState(state)): n for kind, state, n in connection.execute(question)})


def _keys_of(task: NewTask) -> Iterator[str]:
    if task.key is not None:
        yield task.key
    for parent, _ in task.after:
        if isinstance(parent, str):
            yield parent


def _ids_of_keys(connection: Connection, keys: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for piece in pieces(keys):
        question = select(tasks.c.key, tasks.c.id).where(tasks.c.key.in_(piece))
        found |= {row.key: row.id for row in connection.execute(question)}
    return found


def _edge(child: int, parent: str | int, kind: EdgeKind, ids: Mapping[str, int]) -> Edge:
    if isinstance(parent, str):
        if parent not in ids:
            raise MissingError(f"there is no task with the key {parent!r}", where=f"needed by task {child}")
        parent = ids[parent]
    return Edge(child, parent, kind)
