"""The tables, and the rules that the database itself keeps.

The transition trigger is written from ``db.states.TRANSITIONS``: the table there and the rule here are one.
"""

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    text,
)

from db.states import TRANSITIONS, EdgeKind, Event, PilotState, Role, TaskKind, TaskState, Verdict

#: The version that this code reads and writes; a step up is a function in ``db.migrations``.
VERSION = 4

metadata = MetaData()


def _one_of(column: str, values: type[TaskState | TaskKind | EdgeKind | PilotState | Verdict | Event | Role]) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({listed})"


meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)

pilots = Table(
    "pilots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("state", String, CheckConstraint(_one_of("state", PilotState)), nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("job_id", String),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("reason", String, nullable=False, server_default=""),
    Column("seen_at", Float),
    Column("nodes", JSON, nullable=False, server_default="{}"),
    Column("reserved_core_s", Float, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

generations = Table(
    "generations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stage", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String, nullable=False, server_default=""),
    Column("facts", JSON, nullable=False),
    UniqueConstraint("stage", "number"),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, unique=True),
    Column("kind", String, CheckConstraint(_one_of("kind", TaskKind)), nullable=False),
    Column("engine", String, nullable=False),
    Column("name", String, nullable=False),
    Column("state", String, CheckConstraint(_one_of("state", TaskState)), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("ranks", Integer, CheckConstraint("ranks >= 1"), nullable=False),
    Column("threads", Integer, CheckConstraint("threads >= 1"), nullable=False),
    Column("gpus", Integer, CheckConstraint("gpus >= 0"), nullable=False),
    Column("memory_mb", Integer, CheckConstraint("memory_mb >= 0"), nullable=False),
    Column("size", Integer, nullable=False),
    Column("time_request_s", Float),
    Column("time_limit_s", Float),
    Column("generation", Integer, ForeignKey("generations.id")),
    Column("added_at", Float, nullable=False),
    Column("tries", JSON, nullable=False),
    Column("nodes", Integer, CheckConstraint("nodes >= 1"), nullable=False, server_default="1"),
    sqlite_autoincrement=True,
)
Index("tasks_by_state", tasks.c.state)
Index("tasks_by_generation", tasks.c.generation, tasks.c.kind)

edges = Table(
    "edges",
    metadata,
    Column("child", Integer, ForeignKey("tasks.id"), nullable=False),
    Column("parent", Integer, ForeignKey("tasks.id"), nullable=False),
    Column("kind", String, CheckConstraint(_one_of("kind", EdgeKind)), nullable=False),
    PrimaryKeyConstraint("child", "parent"),
    CheckConstraint("child <> parent"),
)
Index("edges_by_parent", edges.c.parent)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", Integer, ForeignKey("tasks.id"), nullable=False),
    Column("pilot_id", Integer, ForeignKey("pilots.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("node", String, nullable=False),
    Column("cores", JSON, nullable=False),
    Column("gpus", JSON, nullable=False),
    Column("directory", String, nullable=False, unique=True),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("verdict", String, CheckConstraint(_one_of("verdict", Verdict))),
    Column("reason", String, nullable=False, server_default=""),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("wall_s", Float),
    Column("cpu_s", Float),
    Column("peak_mb", Float),
    Column("facts", JSON, nullable=False),
    Column("others", JSON, nullable=False, server_default="[]"),
    Column("resumable", Integer, nullable=False, server_default="0"),
    Column("archive", String, nullable=False, server_default=""),
    Column("files", Integer, nullable=False, server_default="0"),
    Column("bytes", Integer, nullable=False, server_default="0"),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("(ended_at IS NULL) = (verdict IS NULL)"),
    sqlite_autoincrement=True,
)
#: A task has at most one attempt that runs: no slip of ours can start it twice.
Index("one_running_attempt", attempts.c.task_id, unique=True, sqlite_where=text("ended_at IS NULL"))

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("pilot_id", Integer),
    Column("task_id", Integer, ForeignKey("tasks.id")),
    Column("event", String, nullable=False),
    Column("detail", String, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
Index("events_by_task", events.c.task_id)

structures = Table(
    "structures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", String, nullable=False, unique=True),
    Column("atoms", Integer, nullable=False),
    Column("role", String, CheckConstraint(_one_of("role", Role)), nullable=False),
    Column("source", String, nullable=False),
    Column("generation", Integer, ForeignKey("generations.id")),
    Column("grade", Float),
    Column("data", JSON, nullable=False),
    sqlite_autoincrement=True,
)

labels = Table(
    "labels",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("structure_id", Integer, ForeignKey("structures.id"), nullable=False),
    Column("settings", String, nullable=False),
    Column("attempt_id", Integer, ForeignKey("attempts.id"), unique=True),
    Column("added_at", Float, nullable=False),
    Column("data", JSON, nullable=False),
    Column("provenance", JSON, nullable=False, server_default="{}"),
    # no label enters the training set twice
    UniqueConstraint("structure_id", "settings"),
    sqlite_autoincrement=True,
)

potentials = Table(
    "potentials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", Integer, ForeignKey("generations.id"), nullable=False, unique=True),
    Column("path", String, nullable=False),
    Column("attempt_id", Integer, ForeignKey("attempts.id"), nullable=False, unique=True),
    Column("facts", JSON, nullable=False),
    Column("added_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("verb", String, nullable=False),
    Column("answer", JSON, nullable=False),
)


def triggers() -> list[str]:
    """The rules as SQL: legal transitions of a task, and an events table that only grows."""
    pairs = sorted({(before, after) for way in TRANSITIONS.values() for before, after in way.items()})
    legal = " OR ".join(f"(OLD.state = '{before}' AND NEW.state = '{after}')" for before, after in pairs)
    return [
        _trigger("legal_transition", f"UPDATE OF state ON tasks WHEN NOT ({legal})", "illegal transition of a task"),
        _trigger("events_stay", "UPDATE ON events", "events are append-only"),
        _trigger("events_remain", "DELETE ON events", "events are append-only"),
    ]


def _trigger(name: str, moment: str, refusal: str) -> str:
    return f"CREATE TRIGGER {name} BEFORE {moment} BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
