"""What a pilot keeps in memory of one folder, and what a turn wants to be done once it is committed."""

from dataclasses import dataclass, field

from db.records import Attempt, Task
from pilot.campaign.driver import Driver
from pilot.folder import Folder
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.suspects import Suspects


@dataclass(slots=True)
class Running:
    """An attempt that is under way, with the task as it was started (its spec complete).

    ``stopping`` and ``killed`` say what it was told by a drain; ``previous`` is the folder of the attempt that it
    goes on from, if any.
    """

    attempt: Attempt
    task: Task
    previous: str = ""
    stopping: bool = False
    killed: bool = False


@dataclass(slots=True)
class Actions:
    """What may be done once the transaction is committed.

    Attributes:
        start: attempts to be started.
        stop: ids of attempts whose tasks were cancelled.
        discard: folders of attempts that no other will go on from.
        said: remarks for the log.
    """

    start: list[Running] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    discard: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Memory:
    """What a pilot keeps in memory of one folder; after each turn it agrees with the database.

    Attributes:
        folder: the campaign folder.
        reactor: decides.
        driver: plans the campaign; None where there is none.
        running: the attempts under way, by id.
        attempts_of: how many attempts an open task has had, where it has had any.
        resume_from: the folder of an interrupted attempt from which the next one of a task can go on.
        suspects: open tasks that were lost with their nodes or pilots, again and again.
        last_attempt: attempt ids only grow.
    """

    folder: Folder
    reactor: Reactor
    driver: Driver | None
    running: dict[int, Running] = field(default_factory=dict)
    attempts_of: dict[int, int] = field(default_factory=dict)
    resume_from: dict[int, str] = field(default_factory=dict)
    suspects: Suspects = field(default_factory=Suspects)
    last_attempt: int = 0

    def next_attempt_id(self) -> int:
        """The id of a new attempt."""
        self.last_attempt += 1
        return self.last_attempt

    def running_tasks(self) -> dict[int, Running]:
        """The attempts under way by the ids of their tasks."""
        return {entry.task.id: entry for entry in self.running.values()}
