"""The manager: the loop round the reactor, and the only writer of the database.

Each turn: hear what happened, decide, commit, act. Nothing is acted on before it is committed, so a crash at any
moment leaves a database from which the next pilot goes on.
"""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from db import pilot_table
from db.engine import Writer
from db.states import PilotState, Verdict
from pilot import drain, host, mailbox
from pilot.agent.comm import Comm
from pilot.agent.journal import forget_before
from pilot.agent.messages import Ended, Start, Stop, ToManager
from pilot.drain import Drain, Phase
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.lease import Lease
from pilot.ledger import Ledger
from pilot.mailbox import Request
from pilot.node_watch import NodeWatch
from pilot.orders import DrainOrder, EndOrder, Orders
from pilot.orphans import judge_orphans
from pilot.publisher import Publisher
from pilot.requests import Steering, apply
from pilot.scheduler.policy import Clock
from pilot.terms import Terms
from pilot.turn import Actions, Running, Turn
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
        self._terms = shared.terms
        self._drain: Drain | None = None
        self._orders = shared.orders
        self._nodes = NodeWatch(shared.folder.root, shared.ledger, shared.comm, shared.terms)
        self._strangers: set[str] = set()
        self._inbox_at = self._beat_at = float("-inf")
        self._steering = Steering(self._begin_drain, self._resume)

    def run(self) -> str:
        """Work until there is nothing left to do or the drain is over; says in words why it ended.

        Raises:
            PilotError: the database or the lease was lost; what was committed is safe.
        """
        self._greet()
        self._recover()
        while True:
            messages = self._comm.receive(WAIT_S)
            self._obey()
            self._hear(messages)
            self._on_time()
            ended = self._why_over()
            if ended:
                return ended

    def _greet(self) -> None:
        """Wait for the agents; one speaks when its node is swept clean of what dead pilots left running."""
        awaited = set(self._comm.nodes())
        deadline = host.monotonic() + GREET_S
        while awaited and self._drain is None and (host.monotonic() < deadline or not self._ledger.reactor.pool.nodes):
            for name, message in self._comm.receive(WAIT_S):
                awaited.discard(name)
                self._nodes.hear(message)
            self._obey()
        if awaited and self._drain is None:
            log.warning("nothing has been heard yet of %s: beginning without", ", ".join(sorted(awaited)))

    def _recover(self) -> None:
        """Starting is recovering: judge what a dead pilot left running, let the campaign begin or go on."""
        orphans = list(self._ledger.running.values())
        judged = judge_orphans(self._folder.root, orphans)
        adopted = sum(message.judgement.verdict is Verdict.DONE for message in judged)
        with self._turn() as turn:
            turn.end_attempts(judged)
            turn.begin_campaign()
        self._act(turn.actions)
        forget_before(self._folder.root, self._writer.epoch)
        if orphans:
            log.info(
                "%d attempts of a dead pilot: %d adopted, %d run again", len(orphans), adopted, len(orphans) - adopted
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
        return self._drain is None and len(reactor.graph.ready) > 0 and not reactor.pool.is_full()

    def _decide(self, ended: list[Ended], requests: list[Request]) -> None:
        """One turn: all that happened, and what starts now, in one transaction; then act."""
        for message in ended:
            if message.attempt_id in self._ledger.running:
                self._publisher.count(message, self._ledger.running[message.attempt_id].attempt.all_cores)
        with self._turn() as turn:
            turn.end_attempts(ended)
            answers = [(request, apply(request, self._ledger, turn, self._steering)) for request in requests]
            if self._drain is None:
                turn.start(self._clock())
        self._act(turn.actions)
        for request, answer in answers:
            mailbox.answer(self._folder, request, answer)
            log.info("%s: %s", request.verb, answer["said"])
        if ended or answers or turn.actions.start:
            self._publisher.changed()

    def _act(self, actions: Actions) -> None:
        for entry in actions.start:
            self._comm.send(entry.attempt.node, self._start_message(entry))
        for attempt_id in actions.stop:
            self._stop(attempt_id, Cause.CANCEL, soft=False)
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
            time_limit_s=task.time_limit_s,
            time_left_s=self._clock().left_s,
            others=attempt.others,
            mpi=self._terms.launchers.get(task.kind, self._terms.launcher),
            previous=entry.previous,
        )

    def _stop(self, attempt_id: int, cause: Cause, *, soft: bool) -> None:
        entry = self._ledger.running.get(attempt_id)
        if entry is not None:
            stop = Stop(attempt_id, cause, soft, self._terms.soft_stop_s, drain.TERM_S)
            self._comm.send(entry.attempt.node, stop)

    def _clock(self) -> Clock:
        now = host.now()
        if self._terms.ends_at is None:
            return Clock(now)
        return Clock(now, drain.last_moment(self._terms.ends_at, self._terms.soft_stop_s) - now)

    def _obey(self) -> None:
        for order in self._orders.take():
            match order:
                case DrainOrder():
                    self._begin_drain(order.why, order.at_once)
                case EndOrder():
                    self._end_moved(order.at)

    def _end_moved(self, at: float) -> None:
        """SLURM was asked again: administrators change the end, and backfill shortens it."""
        end = min(at, self._terms.wished_end or at)
        moved = self._terms.ends_at is None or abs(end - self._terms.ends_at) > 1.0
        self._terms = replace(self._terms, ends_at=end)
        if moved:
            log.info("everything must be over in %s", say_duration(max(0.0, end - host.now())))
            self._publisher.set_end(end)

    def _begin_drain(self, why: str, at_once: bool) -> None:
        terms, now = self._terms, host.now()
        begun = drain.begin(why, now, ends_at=terms.ends_at, wait_s=terms.drain_wait_s, soft_s=terms.soft_stop_s)
        self._drain = Drain(why, now, at_once=True) if at_once else self._drain or begun
        log.info("draining (%s)%s", why, ": at once" if at_once else "")
        self._publisher.set_state(PilotState.DRAINING, why)

    def _resume(self) -> bool:
        if self._drain is None or any(entry.stopping for entry in self._ledger.running.values()):
            return False
        self._drain = None
        log.info("resumed: tasks start again")
        self._publisher.set_state(PilotState.ACTIVE, "")
        return True

    def _on_time(self) -> None:
        now = host.now()
        ends_at = self._terms.ends_at
        if self._drain is None and ends_at is not None and now >= drain.last_moment(ends_at, self._terms.soft_stop_s):
            self._begin_drain("the end of the allocation is near", at_once=False)
        if self._drain is not None:
            self._push_drain(self._drain.phase(now))
        if host.monotonic() - self._beat_at >= BEAT_S:
            self._lease.beat(self._writer.epoch)
            self._publisher.record_seen(self._ledger)
            mailbox.forget_old_answers(self._folder)
            self._beat_at = host.monotonic()
        self._publisher.publish_if_due(self._ledger)

    def _push_drain(self, phase: Phase) -> None:
        """Ask what still runs to stop; each attempt is asked once, and once more when it is to end at once."""
        if phase is Phase.FINISH:
            return
        at_once = phase is Phase.KILL
        for attempt_id, entry in self._ledger.running.items():
            if not entry.stopping or (at_once and not entry.killed):
                entry.stopping, entry.killed = True, at_once
                self._stop(attempt_id, Cause.DRAIN, soft=not at_once)

    def _why_over(self) -> str:
        if self._drain is not None:
            return "" if self._ledger.running else f"drained ({self._drain.why})"
        if self._ledger.running or mailbox.waiting_requests(self._folder)[0]:
            return ""
        if self._ledger.reactor.idle():
            return "nothing is left that could run"
        if not self._anything_fits():
            return "nothing that is left fits into the time that is left"
        return ""

    def _anything_fits(self) -> bool:
        reactor, clock = self._ledger.reactor, self._clock()
        return any(
            clock.allows(reactor.times.expected(shape.kind, shape.size, shape.time_request_s))
            for shape in reactor.graph.ready.shapes()
            if not reactor.pool.why_never(shape.resources)
        )

    def finish(self, why: str) -> None:
        """The last commit and the last snapshot."""
        self._publisher.record_seen(self._ledger)
        with self._writer.transaction() as connection:
            pilot_table.change_pilot(connection, self._writer.epoch, PilotState.ENDED, at=host.now(), reason=why)
        self._publisher.set_state(PilotState.ENDED, why)
        self._publisher.publish(self._ledger)
        log.info("pilot %d has ended: %s", self._writer.epoch, why)

    def _turn(self) -> AbstractContextManager[Turn]:
        return self._ledger.turn(host.now())
