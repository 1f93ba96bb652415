"""The manager: the loop round the reactor, and the only writer of the database.

Each turn: hear what happened, decide, commit, act. Nothing is acted on before it is committed, so a crash at any
moment leaves a database from which the next pilot goes on.
"""

import contextlib
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from db import pilot_table
from db.engine import Writer
from db.errors import StorageError
from db.states import PilotState, Verdict
from pilot import host, mailbox
from pilot.agent.comm import Comm
from pilot.agent.journal import put_away
from pilot.agent.messages import Ended, Start, Stop, ToManager
from pilot.drain import TERM_S
from pilot.ending import Ending
from pilot.folder import Folder
from pilot.lease import Lease
from pilot.ledger import Ledger
from pilot.mailbox import Request
from pilot.memory import Actions, Running
from pilot.node_watch import NodeWatch
from pilot.orders import Orders
from pilot.orphans import judge_orphans
from pilot.packing.packer import Packer
from pilot.publisher import Publisher
from pilot.requests import Steering, apply
from pilot.terms import Terms
from pilot.turn import Turn
from tasks import scratch
from tasks.protocol import Cause

log = logging.getLogger("pilot")

#: The longest wait for messages; requests are looked for as often.
WAIT_S = 0.25
BEAT_S = 10.0
#: So long the manager waits for all agents before it begins with those that are there.
GREET_S = 60.0


@dataclass(slots=True)
class Shared:
    """What the manager works with; made and closed by the supervisor."""

    folder: Folder
    lease: Lease
    writer: Writer
    ledger: Ledger
    comm: Comm
    publisher: Publisher
    packer: Packer
    orders: Orders = field(default_factory=Orders)
    terms: Terms = field(default_factory=Terms)


class Manager:
    """One pilot from its first turn to its last."""

    def __init__(self, shared: Shared) -> None:
        self._folder = shared.folder
        self._lease = shared.lease
        self._writer = shared.writer
        self._ledger = shared.ledger
        self._comm = shared.comm
        self._publisher = shared.publisher
        self._packer = shared.packer
        self._terms = shared.terms
        self._orders = shared.orders
        self._nodes = NodeWatch(shared.folder, shared.ledger, shared.comm, shared.terms)
        self._strangers: set[str] = set()
        self._stuck = ""
        self._inbox_at = self._beat_at = float("-inf")
        self._ending = Ending(shared.terms, shared.writer, shared.publisher)
        self._steering = Steering(
            drain=self._ending.begin,
            end_by=self._ending.end_by,
            resume=lambda connection: self._ending.resume(connection, self._ledger.running),
            why_drained=lambda: self._ending.why,
        )

    def run(self) -> str:
        """Work until there is nothing left to do or the drain is over; says in words why it ended.

        Raises:
            PilotError: the database or the lease was lost; what was committed is safe.
        """
        self._ending.recall()
        self._greet()
        self._recover()
        while True:
            messages = self._comm.receive(WAIT_S)
            self._obey()
            self._hear(messages)
            self._on_time()
            self._packer.turn()
            ended = self._why_over()
            if ended and (self._ending.draining or self._packer.has_finished()):
                return ended

    def _greet(self) -> None:
        """Wait for the agents; one speaks when its node is swept clean of what dead pilots left running."""
        awaited = set(self._comm.nodes())
        deadline = host.monotonic() + GREET_S
        while (
            awaited
            and not self._ending.draining
            and (host.monotonic() < deadline or not self._ledger.reactor.pool.nodes)
        ):
            for name, message in self._comm.receive(WAIT_S):
                awaited.discard(name)
                self._nodes.hear(message)
            self._obey()
        if awaited and not self._ending.draining:
            log.warning("nothing has been heard yet of %s: beginning without", ", ".join(sorted(awaited)))

    def _recover(self) -> None:
        """Starting is recovering: judge what a dead pilot left running, let the campaign begin or go on."""
        orphans = list(self._ledger.running.values())
        judged = self._nodes.orphaned(judge_orphans(self._folder.root, orphans))
        adopted = sum(message.judgement.verdict is Verdict.DONE for message in judged)
        with self._turn() as turn:
            turn.end_attempts(judged)
            turn.begin_campaign()
        self._act(turn.actions)
        with contextlib.suppress(StorageError):
            # if there is no room, they stay until there is
            put_away(self._folder.root, self._writer.epoch)
        if orphans:
            log.info(
                "attempts of a dead pilot: %d adopted as finished, %d interrupted", adopted, len(orphans) - adopted
            )

    def _hear(self, messages: list[tuple[str, ToManager]]) -> None:
        ended = [message for _, message in messages if isinstance(message, Ended)]
        for _, message in messages:
            ended += self._nodes.hear(message)
        ended = self._nodes.believed(ended, host.monotonic())
        self._publish_nodes()
        requests = self._requests()
        if ended or requests or self._may_start():
            self._decide(ended, requests)

    def _requests(self) -> list[Request]:
        """What lies in the inbox; looked for now and then, as a shared disk takes its time to answer."""
        now = host.monotonic()
        if now < self._inbox_at:
            return []
        self._inbox_at = now + WAIT_S
        requests, strangers = mailbox.waiting_requests(self._folder)
        for path in strangers:
            put_aside = mailbox.refuse(path)
            if put_aside or path.name not in self._strangers:
                done = "was put aside" if put_aside else "cannot be put aside"
                log.warning("a file in the inbox is no request of ours and %s: %s", done, path.name)
            self._strangers.add(path.name)
        return requests

    def _publish_nodes(self) -> None:
        if self._nodes.changed:
            self._nodes.changed = False
            self._publisher.changed()

    def _may_start(self) -> bool:
        reactor = self._ledger.reactor
        return self._ending.starts and len(reactor.graph.ready) > 0 and not reactor.pool.is_full()

    def _decide(self, ended: list[Ended], requests: list[Request]) -> None:
        """One turn: all that happened, and what starts now, in one transaction; then act."""
        for message in ended:
            if message.attempt_id in self._ledger.running:
                self._publisher.count(message, self._ledger.running[message.attempt_id].attempt.all_cores)
        pardoned = self._nodes.weigh(ended, host.monotonic())
        with self._turn() as turn:
            turn.end_attempts(ended)
            turn.pardon(pardoned)
            answers = [(request, apply(request, self._ledger, turn, self._steering)) for request in requests]
            if self._ending.starts:
                turn.start(self._ending.clock())
        self._act(turn.actions)
        for request, answer in answers:
            mailbox.answer(self._folder, request, answer)
            # of a drain the log has heard already
            if request.verb != "drain" or not answer["ok"]:
                log.info("%s: %s", request.verb, answer["said"])
        if ended or answers or turn.actions.start:
            self._publisher.changed()

    def _act(self, actions: Actions) -> None:
        for entry in actions.start:
            self._comm.send(entry.attempt.node, self._start_message(entry))
        for attempt_id in actions.stop:
            self._stop(attempt_id, Cause.CANCEL, soft=False)
        for directory in actions.discard:
            scratch.drop(self._folder.root / directory)
        for remark in actions.said:
            log.info("%s", remark)

    def _start_message(self, entry: Running) -> Start:
        attempt, task = self._nodes.pinned(entry).attempt, entry.task
        return Start(
            attempt_id=attempt.id,
            task_id=task.id,
            engine=task.engine,
            spec=task.spec,
            directory=attempt.directory,
            resources=task.resources,
            cores=attempt.cores,
            gpus=attempt.gpus,
            memory_mb=task.resources.memory_mb,
            time_limit_s=task.time_limit_s if task.time_limit_s is not None else self._terms.limits.get(task.kind),
            time_left_s=self._ending.clock().left_s,
            others=attempt.others,
            mpi=self._terms.launchers.get(task.kind, self._terms.launcher),
            previous=entry.previous,
        )

    def _stop(self, attempt_id: int, cause: Cause, *, soft: bool) -> None:
        entry = self._ledger.running.get(attempt_id)
        if entry is not None:
            stop = Stop(attempt_id, cause, soft, self._ending.soft_s, TERM_S)
            self._comm.send(entry.attempt.node, stop)

    def _obey(self) -> None:
        for order in self._orders.take():
            self._ending.obey(order)

    def _on_time(self) -> None:
        for attempt_id, soft in self._ending.to_be_stopped(self._ledger.running):
            self._stop(attempt_id, Cause.DRAIN, soft=soft)
            self._packer.give_up()
        if host.monotonic() - self._beat_at >= BEAT_S:
            self._lease.beat(self._writer.epoch)
            self._publisher.record_seen(self._ledger)
            mailbox.forget_old_answers(self._folder)
            self._beat_at = host.monotonic()
        self._publisher.publish_if_due(self._ledger, self._ending.clock())

    def _why_over(self) -> str:
        if self._ending.draining and not (self._ending.starts and self._anything_fits()):
            return "" if self._ledger.running else f"drained ({self._ending.why})"
        if self._ledger.running or mailbox.waiting_requests(self._folder)[0]:
            return ""
        if self._ledger.reactor.idle():
            self._stuck = self._nodes.why_nothing_starts()
            return self._stuck or "nothing is left that could run"
        if not self._anything_fits():
            return f"nothing that is left fits into the time that is left before {self._ending.first}"
        return ""

    def _anything_fits(self) -> bool:
        reactor, clock = self._ledger.reactor, self._ending.clock()
        return any(
            not reactor.why_not_in_time(shape, clock)
            for shape in reactor.graph.ready.shapes()
            if not reactor.pool.why_not(shape.resources)
        )

    def finish(self, why: str) -> None:
        """The last commit and the last snapshot.

        Raises:
            StorageError: nothing could be started any more, and that is because the disk refuses.
        """
        self._publisher.record_seen(self._ledger)
        with self._writer.transaction() as connection:
            pilot_table.change_pilot(connection, self._writer.epoch, PilotState.ENDED, at=host.now(), reason=why)
        self._publisher.set_state(PilotState.ENDED, why)
        self._publisher.publish(self._ledger, self._ending.clock())
        log.info("pilot %d has ended: %s", self._writer.epoch, why)
        if self._stuck:
            self._folder.demand_room()

    def _turn(self) -> AbstractContextManager[Turn]:
        return self._ledger.turn(host.now())
