"""The transition table, and that the database keeps it too."""

import pytest
from folders import task_row
from sqlalchemy import insert, text, update

from db.engine import Writer
from db.errors import StateError, StorageError
from db.schema import tasks
from db.states import TERMINAL, TRANSITIONS, EdgeKind, Event, TaskState, after, dooms, releases

LEGAL = {(before, after) for way in TRANSITIONS.values() for before, after in way.items()}


def test_an_event_leads_where_the_table_says() -> None:
    assert after(Event.STARTED, TaskState.READY) is TaskState.RUNNING


def test_an_event_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(StateError, match="waiting cannot be started"):
        after(Event.STARTED, TaskState.WAITING)


def test_only_a_retry_leaves_a_terminal_state() -> None:
    leaving = {event for event, way in TRANSITIONS.items() if TERMINAL & way.keys()}
    assert leaving == {Event.REVIVED}
    assert TaskState.DONE not in TRANSITIONS[Event.REVIVED]


@pytest.mark.parametrize(
    ("kind", "parent", "released", "doomed"),
    [
        (EdgeKind.DONE, TaskState.DONE, True, False),
        (EdgeKind.DONE, TaskState.FAILED, False, True),
        (EdgeKind.DONE, TaskState.CANCELLED, False, True),
        (EdgeKind.DONE, TaskState.RUNNING, False, False),
        (EdgeKind.ENDED, TaskState.FAILED, True, False),
        (EdgeKind.ENDED, TaskState.CANCELLED, True, False),
        (EdgeKind.ENDED, TaskState.READY, False, False),
    ],
)
def test_what_an_edge_waits_for(kind: EdgeKind, parent: TaskState, released: bool, doomed: bool) -> None:
    assert releases(kind, parent) is released
    assert dooms(kind, parent) is doomed


@pytest.mark.parametrize("before", TaskState)
@pytest.mark.parametrize("then", TaskState)
def test_the_database_refuses_what_the_table_does_not_have(writer: Writer, before: TaskState, then: TaskState) -> None:
    with writer.transaction() as connection:
        connection.execute(insert(tasks).values(task_row(1, before)))
    change = update(tasks).where(tasks.c.id == 1).values(state=then)
    if (before, then) in LEGAL:
        with writer.transaction() as connection:
            connection.execute(change)
        return
    with pytest.raises(StorageError, match="illegal transition"), writer.transaction() as connection:
        connection.execute(change)


def test_events_are_never_changed_nor_removed(writer: Writer) -> None:
    with writer.transaction() as connection:
        connection.execute(text("INSERT INTO events (at, event) VALUES (1.0, 'added')"))
    for statement in ("UPDATE events SET at = 2.0", "DELETE FROM events"):
        with pytest.raises(StorageError, match="append-only"), writer.transaction() as connection:
            connection.execute(text(statement))
