"""What follows from an event in the campaign, as it is gathered in the transaction in which the event is recorded."""

from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from db import dataset
from db.records import NewTask
from pilot.campaign.criteria import Decision
from pilot.campaign.protocol import Generation


@dataclass(slots=True)
class FollowUps:
    """What follows from an event in the campaign.

    Attributes:
        tasks: to be inserted.
        release: tasks that need not wait any longer for what they still wait for.
        cancel: tasks that must not start, with the reason.
        said: for the log.
    """

    tasks: list[NewTask] = field(default_factory=list)
    release: list[int] = field(default_factory=list)
    cancel: list[tuple[int, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moment:
    """The transaction in which something has become known, its time, and what follows."""

    connection: Connection
    at: float
    follow_ups: FollowUps = field(default_factory=FollowUps)


def note_decision(moment: Moment, generation: dataset.Generation, decision: Decision) -> None:
    """Record how the campaign goes on after a generation, which has ended with that."""
    facts = {"why": decision.why, "failed": list(decision.failed)}
    dataset.note_generation(moment.connection, generation.id, facts, outcome=decision.turn, at=moment.at)


def insert(moment: Moment, new: Generation) -> None:
    """Begin a generation, or add to it: its structures now, its tasks with all else that follows."""
    generation_id = dataset.add_generation(moment.connection, new.stage, new.number, moment.at)
    dataset.add_structures(moment.connection, new.candidates, generation_id)
    moment.follow_ups.tasks += [replace(task, generation=generation_id) for task in new.tasks] + new.loose
