"""The ledger: the reactor's decisions and the database, kept as one.

All changes go through a :class:`pilot.turn.Turn`, one transaction: what happened, what follows from it, what
starts now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db import attempt_table, task_table
from db.engine import Writer
from pilot.campaign.driver import Driver
from pilot.folder import ATTEMPTS_A_FOLDER, Folder
from pilot.memory import Memory, Running
from pilot.scheduler.nodes import Node
from pilot.scheduler.reactor import Reactor
from pilot.scheduler.suspects import Suspects
from pilot.turn import Turn
from tasks import scratch

#: From so many finished attempts the times that tasks need are learned at the start.
LEARN_FROM = 5000


class Ledger:
    """Tasks, attempts and campaign of one folder."""

    def __init__(self, folder: Folder, writer: Writer, reactor: Reactor, driver: Driver | None) -> None:
        self._writer = writer
        self._memory = Memory(folder, reactor, driver)
        #: nodes that were written off, with the reason
        self.lost: dict[str, str] = {}

    @property
    def reactor(self) -> Reactor:
        """What decides."""
        return self._memory.reactor

    @property
    def driver(self) -> Driver | None:
        """What plans the campaign."""
        return self._memory.driver

    @property
    def running(self) -> dict[int, Running]:
        """The attempts under way, by id."""
        return self._memory.running

    def load(self) -> None:
        """Read all that has not ended."""
        memory, reactor = self._memory, self._memory.reactor
        with self._writer.reading() as connection:
            edges = task_table.read_edges_of_open_tasks(connection)
            reactor.graph.add(task_table.read_open_tasks(connection), task_table.holding(edges))
            reactor.graph.doom(edges)
            reactor.graph.counts = task_table.count_by_kind_and_state(connection)
            reactor.times.learn_all(reversed(attempt_table.read_durations(connection, LEARN_FROM)))
            under_way = attempt_table.read_running_attempts(connection)
            tasks = task_table.read_tasks(connection, [attempt.task_id for attempt in under_way])
            memory.running = {attempt.id: Running(attempt, tasks[attempt.task_id]) for attempt in under_way}
            for task_id, wall_s, resumable in attempt_table.read_interruptions(connection):
                reactor.interrupted(task_id, wall_s, resumable=resumable)
            memory.attempts_of = attempt_table.count_attempts_of_open_tasks(connection)
            memory.suspects = Suspects(attempt_table.read_losses(connection))
            memory.resume_from = attempt_table.read_where_to_go_on(connection)
            for directory in attempt_table.read_kept_in_vain(connection):
                scratch.drop(memory.folder.root / directory)
            # an older copy of the database may have been put in place: no attempt gets the folder of another
            memory.last_attempt = max(attempt_table.latest_attempt_id(connection), _latest_folder(memory.folder))

    @contextmanager
    def turn(self, at: float) -> Iterator[Turn]:
        """One transaction. After an error nothing of it counts, and this ledger must not be used any more."""
        with self._writer.transaction() as connection:
            turn = Turn(self._memory, connection, self._writer.epoch, at)
            yield turn
            turn.flush()

    def node_joined(self, node: Node) -> None:
        """A node may be used from now on."""
        self.lost.pop(node.name, None)
        self.reactor.node_joined(node)

    def node_lost(self, name: str, why: str) -> list[int]:
        """A node is gone: the attempts under way that hold something there, for the caller to end."""
        self.lost[name] = why
        self.reactor.node_lost(name)
        return [
            attempt_id
            for attempt_id, entry in self.running.items()
            if name in (entry.attempt.node, *(share.node for share in entry.attempt.others))
        ]


def _latest_folder(folder: Folder) -> int:
    """The highest attempt that has a folder, or may have had one before it was packed; 0 if none has."""
    for group in _numbered(folder.runs):
        for attempt in _numbered(group):
            return int(attempt.name)
        # packing leaves the highest one of these, even if nothing is left in it
        return (int(group.name) + 1) * ATTEMPTS_A_FOLDER - 1
    return 0


def _numbered(place: Path) -> list[Path]:
    """The entries of a folder whose names are numbers, the highest first."""
    try:
        found = [path for path in place.iterdir() if path.name.isascii() and path.name.isdecimal()]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name), reverse=True)
