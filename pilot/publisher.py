"""Publishing: the snapshot for `pilot status`, the copy of the database for `pilot show`, each by rename."""

import logging
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from db import attempt_table, pilot_table
from db import room as room_table
from db.engine import Writer
from db.errors import StorageError
from db.files import write_whole
from db.room import Room
from db.states import PilotState, Verdict
from pilot import host
from pilot.agent.messages import Ended
from pilot.backups import back_up_if_due
from pilot.campaign.protocol import Protocol
from pilot.campaign.summary import summarise
from pilot.folder import Folder
from pilot.ledger import Ledger
from pilot.scheduler.policy import Clock
from pilot.snapshot import CampaignStatus, FailureStatus, NodeStatus, PilotStatus, RoomStatus, RunningStatus, Snapshot

log = logging.getLogger("pilot")

#: The snapshot is at most so old while things change, and so old when nothing does.
FRESH_S = 1.0
STALE_S = 5.0
#: The copy takes longer, the more there is: at most this part of the time is spent on it.
COPY_SHARE = 0.02
COPY_LEAST_S = 5.0
SHOWN = 40


class CoreTime:
    """Core-seconds that a changing number of cores adds up to, from a moment on (monotonic)."""

    def __init__(self, since: float) -> None:
        self._last = since
        self._core_s = 0.0

    def until(self, now: float, cores: int) -> float:
        """So many core-seconds until now; ``cores`` are held since the last call (the first ones since the start)."""
        if cores:
            self._core_s += cores * (now - self._last)
            self._last = now
        return self._core_s


class Publisher:
    """Publishes what the ledger holds.

    Args:
        on_snapshot: called with each snapshot: the live view.
        held_s: the allocation was ours for so many seconds before this.
    """

    def __init__(
        self,
        folder: Folder,
        writer: Writer,
        protocol: Protocol | None,
        pilot: PilotStatus | None,
        on_snapshot: Callable[[Snapshot], None] | None = None,
        *,
        held_s: float = 0.0,
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._protocol = protocol
        self._pilot = pilot
        self._on_snapshot = on_snapshot
        self._changed = True
        self._copy_stale = True
        self._published_at = float("-inf")
        self._copied_at = float("-inf")
        self._last_trouble = ""
        self._copy_every_s = COPY_LEAST_S
        self._campaign: CampaignStatus | None = None
        self._failures: list[FailureStatus] = []
        self._room: Room | None = None
        self._useful_core_s = 0.0
        self._reserved = CoreTime(host.monotonic() - held_s)

    def changed(self) -> None:
        """Something is different from what was published."""
        self._changed = True
        self._copy_stale = True

    def room_changed(self) -> None:
        """Attempts were packed, or what lies beside them was counted."""
        self._room = None
        self.changed()

    def set_state(self, state: PilotState, remark: str, stop_at: float | None = None) -> None:
        """The pilot drains, goes on, or has ended."""
        if self._pilot is not None:
            self._pilot.state = state
            self._pilot.remark = remark
            self._pilot.stop_at = stop_at
        self.changed()

    def set_end(self, at: float | None) -> None:
        """The end has become known, has moved, or is gone (None)."""
        if self._pilot is not None:
            self._pilot.ends_at = at
        self.changed()

    def record_seen(self, ledger: Ledger) -> None:
        """Write into the database that the pilot lives, and what of the allocation it has held so far.

        Without nodes there is no pilot that lives: a command has borrowed the folder.
        """
        pool = ledger.reactor.pool
        if not pool.nodes:
            return
        nodes = {node.name: len(node.cores) for node in pool.nodes.values()}
        reserved = self._reserved.until(host.monotonic(), pool.total_cores())
        with self._writer.transaction() as connection:
            pilot_table.record_seen(
                connection, self._writer.epoch, at=host.now(), nodes=nodes, reserved_core_s=reserved
            )

    def count(self, message: Ended, cores: int) -> None:
        """An attempt has ended: its files count, and its core-time is useful if it is done or is gone on from."""
        if self._room is not None:
            files, size = self._room.files + message.files, self._room.bytes + message.bytes
            self._room = replace(self._room, files=files, bytes=size)
        if message.judgement.verdict is Verdict.DONE or message.judgement.resumable:
            self._useful_core_s += message.end.wall_s * cores

    def publish_if_due(self, ledger: Ledger, clock: Clock) -> None:
        """Publish when there is something new, or to show that we live."""
        # not by the clock on the wall: it may be set back, and nothing would be published until it has caught up
        age = host.monotonic() - self._published_at
        if age >= STALE_S or (self._changed and age >= FRESH_S):
            self._publish_snapshot(ledger, clock)
        if self._copy_stale and host.monotonic() - self._copied_at >= self._copy_every_s:
            self._publish_copy(ledger)

    def publish(self, ledger: Ledger, clock: Clock) -> None:
        """Publish all, now."""
        self.changed()
        self._publish_snapshot(ledger, clock)
        self._publish_copy(ledger)

    def _publish_copy(self, ledger: Ledger) -> None:
        began = host.monotonic()
        try:
            # so that the copy's ends of attempts and its core-time are of the same moment
            self.record_seen(ledger)
            self._writer.publish_copy(self._folder.copy)
            back_up_if_due(self._folder)
        except StorageError as error:
            # the copy is for readers: the pilot can do without, and says so
            self._warn(error)
        self._copy_stale = False
        self._copied_at = host.monotonic()
        self._copy_every_s = max(COPY_LEAST_S, (host.monotonic() - began) / COPY_SHARE)

    def _publish_snapshot(self, ledger: Ledger, clock: Clock) -> None:
        # nobody must show what is not true any more
        self._writer.demand()
        if self._changed:
            with self._writer.reading() as connection:
                self._read(connection)
            self._changed = False
        snapshot = self._snapshot(ledger, clock)
        self._published_at = host.monotonic()
        try:
            write_whole(self._folder.status, snapshot.to_json(), durable=False)
        except StorageError as error:
            self._warn(error)
        if self._on_snapshot is not None:
            self._on_snapshot(snapshot)

    def _warn(self, error: StorageError) -> None:
        """Say it once, not every second as long as it lasts."""
        said = "; ".join(str(error).splitlines())
        if said != self._last_trouble:
            log.warning("%s", said)
        self._last_trouble = said

    def _read(self, connection: Connection) -> None:
        if self._protocol is not None:
            self._campaign = summarise(connection, self._protocol)
        failures = attempt_table.read_latest_failures(connection, 5)
        if self._room is None:
            # of all attempts: asked for only when they were packed
            self._room = room_table.read_room(connection)
        self._failures = [FailureStatus(task.id, task.name, why) for task, why in failures]

    def _snapshot(self, ledger: Ledger, clock: Clock) -> Snapshot:
        reactor, now = ledger.reactor, host.now()
        tasks: dict[str, dict[str, int]] = {}
        for (kind, state), number in reactor.graph.counts.items():
            if number:
                tasks.setdefault(kind.value, {})[state.value] = number
        nodes = [
            NodeStatus(
                node.name,
                len(node.cores),
                len(node.cores) - node.free.count,
                node.memory_mb,
                quarantined=reactor.pool.closed.get(node.name, ""),
            )
            for node in reactor.pool.nodes.values()
        ]
        nodes += [NodeStatus(name, 0, 0, 0, lost=why) for name, why in ledger.lost.items()]
        running = [
            RunningStatus(
                task=entry.task.id,
                kind=entry.task.kind,
                name=entry.task.name,
                node=entry.attempt.node,
                cores=entry.attempt.all_cores,
                started_at=entry.attempt.started_at,
                expected_s=reactor.times.expected(entry.task.kind, entry.task.size, entry.task.time_request_s),
            )
            for entry in list(ledger.running.values())[:SHOWN]
        ]
        return Snapshot(
            at=now,
            folder=str(self._folder.root),
            pilot=self._pilot,
            nodes=nodes,
            tasks=tasks,
            why_waiting={kind.value: reasons for kind, reasons in reactor.why_waiting(clock).items()},
            running=running,
            failures=self._failures,
            campaign=self._campaign,
            useful_core_s=self._useful_core_s,
            reserved_core_s=self._reserved.until(host.monotonic(), reactor.pool.total_cores()),
            room=None if self._room is None else _status_of(self._room),
        )


def _status_of(room: Room) -> RoomStatus:
    files, size = room.beside or (None, None)
    archives = room.archives or {}
    return RoomStatus(
        room.files, room.bytes, room.packed, len(archives), sum(archives.values()), other_files=files, other_bytes=size
    )
