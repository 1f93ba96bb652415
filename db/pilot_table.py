"""Pilots, the identity of the folder, and the requests that were applied."""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, select, update

from db.schema import attempts, meta, pilots, requests
from db.states import PilotState, Verdict


def campaign_id(connection: Connection) -> str:
    """The random name of this folder, made when it is first asked for.

    Every process that a pilot starts carries it, so that what is left of a dead pilot can be told from the
    processes of others.
    """
    found = connection.execute(select(meta.c.value).where(meta.c.key == "campaign_id")).scalar_one_or_none()
    if found is not None:
        return str(found)
    made = secrets.token_hex(8)
    connection.execute(insert(meta).values(key="campaign_id", value=made))
    return made


def begin_pilot(connection: Connection, *, host: str, pid: int, job_id: str | None, at: float) -> int:
    """Record a new pilot; whoever was active before is lost, when it was last seen. Returns its id, the epoch."""
    connection.execute(
        update(pilots)
        .where(pilots.c.state.in_([PilotState.ACTIVE, PilotState.DRAINING]))
        .values(
            state=PilotState.LOST,
            ended_at=func.coalesce(pilots.c.seen_at, pilots.c.started_at),
            reason="it ended without a word",
        )
    )
    row = {"state": PilotState.ACTIVE, "host": host, "pid": pid, "job_id": job_id, "started_at": at}
    made = connection.execute(insert(pilots).values(row))
    (epoch,) = made.inserted_primary_key or (0,)
    return int(epoch)


def latest_pilot(connection: Connection) -> int:
    """The epoch: the id of the latest pilot; 0 before the first."""
    return int(connection.execute(select(func.coalesce(func.max(pilots.c.id), 0))).scalar_one())


def change_pilot(connection: Connection, epoch: int, state: PilotState, *, at: float, reason: str = "") -> None:
    """Record that the pilot drains, is active again, or has ended."""
    ended = at if state in {PilotState.ENDED, PilotState.LOST} else None
    connection.execute(update(pilots).where(pilots.c.id == epoch).values(state=state, ended_at=ended, reason=reason))


def read_pilots(connection: Connection, limit: int = 20) -> list[dict[str, Any]]:
    """The latest pilots, newest first."""
    question = select(pilots).order_by(pilots.c.id.desc()).limit(limit)
    return [dict(row._mapping) for row in connection.execute(question)]


def end_by(connection: Connection, at: float | None) -> None:
    """Record when pilots of this folder are to end, whoever they are; None: no such time any more."""
    connection.execute(delete(meta).where(meta.c.key == "end_by"))
    if at is not None:
        connection.execute(insert(meta).values(key="end_by", value=repr(at)))


def wished_end(connection: Connection) -> float | None:
    """What :func:`end_by` has recorded."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == "end_by")).scalar_one_or_none()
    return None if found is None else float(found)


def drain_of(connection: Connection, epoch: int) -> str:
    """Why a pilot drains, or drained when it died; "" if it did not."""
    question = select(pilots.c.reason).where(pilots.c.id == epoch, pilots.c.state == PilotState.DRAINING)
    return connection.execute(question).scalar_one_or_none() or ""


def record_request(connection: Connection, request_id: str, verb: str, answer: dict[str, Any], at: float) -> None:
    """Record that a request was applied, in the transaction that applies it: it never is applied twice."""
    connection.execute(insert(requests).values(id=request_id, at=at, verb=verb, answer=answer))


def answer_of(connection: Connection, request_id: str) -> dict[str, Any] | None:
    """The answer to a request that was applied before, or None."""
    found = connection.execute(select(requests.c.answer).where(requests.c.id == request_id)).scalar_one_or_none()
    return None if found is None else dict(found)


def record_seen(
    connection: Connection, epoch: int, *, at: float, nodes: Mapping[str, int], reserved_core_s: float
) -> None:
    """Record that a pilot lives, its nodes with their cores, and how much core-time it has held so far."""
    values = {"seen_at": at, "nodes": dict(nodes), "reserved_core_s": reserved_core_s}
    connection.execute(update(pilots).where(pilots.c.id == epoch).values(values))


def core_time_by_verdict(connection: Connection) -> dict[int, dict[str, float]]:
    """For each pilot, by verdict, the core-seconds that attempts have held; "" stands for attempts under way.

    A multi-node attempt counts all its cores. The time is that of the clock on the wall, from start to end. What was
    interrupted and is gone on from counts as done: none of it is lost.
    """
    elsewhere = func.json_each(attempts.c.others).table_valued("value", joins_implicitly=True)
    others = select(func.sum(func.json_array_length(elsewhere.c.value, "$.cores"))).scalar_subquery()
    cores = func.json_array_length(attempts.c.cores) + func.coalesce(others, 0)
    spent = func.sum(cores * func.coalesce(attempts.c.wall_s, 0.0))
    verdict = case((attempts.c.resumable == 1, Verdict.DONE.value), else_=attempts.c.verdict)
    question = select(attempts.c.pilot_id, verdict, spent).group_by(attempts.c.pilot_id, verdict)
    found: dict[int, dict[str, float]] = {}
    for pilot_id, verdict, core_s in connection.execute(question):
        found.setdefault(pilot_id, {})[verdict or ""] = float(core_s or 0.0)
    return found
