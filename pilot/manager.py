"""The manager: the loop round the reactor, and the only writer of the database.

Each turn: hear what happened, decide, commit, act. Nothing is acted on before it is committed, so a crash at any
moment leaves a database from which the next pilot goes on.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from db import pilot_table
from db.engine import Writer
from db.states import PilotState, Verdict
from pilot import drain, host, mailbox
from pilot.agent.comm import Comm
from pilot.agent.journal import ends_file, forget_before, read_ends
from pilot.agent.judging import judge
from pilot.agent.messages import Ended, Hello, Start, Stop, ToManager, Trouble
from pilot.drain import Drain, Phase
from pilot.folder import Folder
from pilot.lease import Lease
from pilot.ledger import Ledger
from pilot.mailbox import Request
from pilot.publisher import Publisher
from pilot.requests import Steering, apply
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.turn import Actions, Running, Turn
from tasks.protocol import Cause, Exit, Work
from tasks.registry import engine

log = logging.getLogger("pilot")

#: The longest wait for messages; requests are looked for as often.
WAIT_S = 0.25
BEAT_S = 10.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pilot may use and how it stops.

    Attributes:
        cores: so many of a node's cores; None for all. More than it has: its tasks share cores and are not pinned.
        memory_mb: so much of a node's memory at most; None for all.
        ends_at: when everything must be over, seconds since 1970; None if nothing ends it.
        drain_wait_s: how long running tasks may go on when draining without a known end.
        soft_stop_s: how long a task gets to stop in its own way.
    """

    cores: int | None = None
    memory_mb: int | None = None
    ends_at: float | None = None
    drain_wait_s: float = 600.0
    soft_stop_s: float = 20.0


@dataclass(slots=True)
class Shared:
    """What the manager works with; made and closed by the supervisor."""

    folder: Folder
    lease: Lease
    writer: Writer
    ledger: Ledger
    comm: Comm
    publisher: Publisher
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
        self._asked: list[tuple[str, bool]] = []
        self._unpinned: set[str] = set()
        self._strangers: set[str] = set()
        self._beat_at = float("-inf")
        self._steering = Steering(self._begin_drain, self._resume)

    def ask_drain(self, why: str, *, at_once: bool = False) -> None:
        """Drain from the next turn on. Safe in a signal handler."""
        self._asked.append((why, at_once))

    def run(self) -> str:
        """Work until there is nothing left to do or the drain is over; says in words why it ended.

        Raises:
            PilotError: the database or the lease was lost; what was committed is safe.
        """
        self._greet()
        self._recover()
        while True:
            messages = self._comm.receive(WAIT_S)
            self._hear_signals()
            self._hear(messages)
            self._on_time()
            ended = self._why_over()
            if ended:
                return ended

    def _greet(self) -> None:
        """Wait for the agents; one speaks when its node is swept clean of what dead pilots left running."""
        awaited = set(self._comm.nodes())
        while awaited:
            for name, message in self._comm.receive(WAIT_S):
                if isinstance(message, Hello):
                    self._node_joined(message)
                    awaited.discard(name)
            if self._asked:
                return

    def _node_joined(self, hello: Hello) -> None:
        cores = hello.cores[: self._terms.cores]
        if self._terms.cores and self._terms.cores > len(hello.cores):
            log.warning("node %s has %d cores: nothing is pinned", hello.node, len(hello.cores))
            self._unpinned.add(hello.node)
            cores = tuple(range(self._terms.cores))
        memory = min(hello.memory_mb, self._terms.memory_mb or hello.memory_mb)
        self._ledger.node_joined(Node(hello.node, cores, memory, hello.gpus))
        log.info("node %s: %d cores, %d MB", hello.node, len(cores), memory)

    def _recover(self) -> None:
        """Starting is recovering: judge what a dead pilot left running, let the campaign begin or go on."""
        orphans = list(self._ledger.running.values())
        ends = {
            place: read_ends(ends_file(self._folder.root, *place))
            for place in {(entry.attempt.pilot_id, entry.attempt.node) for entry in orphans}
        }
        judged = [self._judge_orphan(entry, ends[entry.attempt.pilot_id, entry.attempt.node]) for entry in orphans]
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

    def _judge_orphan(self, entry: Running, ends: Mapping[int, Exit]) -> Ended:
        attempt, task = entry.attempt, entry.task
        end = ends.get(attempt.id, Exit(cause=Cause.LOST))
        directory = self._folder.root / attempt.directory
        work = Work(self._folder.root, directory, attempt.id, task.spec, task.resources)
        return Ended(attempt.id, end, judge(engine(task.engine), work, end))

    def _hear(self, messages: list[tuple[str, ToManager]]) -> None:
        ended = [message for _, message in messages if isinstance(message, Ended)]
        for _, message in messages:
            if isinstance(message, Trouble):
                log.warning("node %s: %s", message.node, message.text)
            elif isinstance(message, Hello):
                self._node_joined(message)
        requests, strangers = mailbox.waiting_requests(self._folder)
        for path in strangers:
            put_aside = mailbox.refuse(path)
            if put_aside or path.name not in self._strangers:
                done = "was put aside" if put_aside else "cannot be put aside"
                log.warning("a file in the inbox is no request of ours and %s: %s", done, path.name)
            self._strangers.add(path.name)
        if ended or requests or self._may_start():
            self._decide(ended, requests)

    def _may_start(self) -> bool:
        reactor = self._ledger.reactor
        return self._drain is None and len(reactor.graph.ready) > 0 and not reactor.pool.is_full()

    def _decide(self, ended: list[Ended], requests: list[Request]) -> None:
        """One turn: all that happened, and what starts now, in one transaction; then act."""
        for message in ended:
            if message.attempt_id in self._ledger.running:
                self._publisher.count(message, len(self._ledger.running[message.attempt_id].attempt.cores))
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
        attempt, task = entry.attempt, entry.task
        return Start(
            attempt_id=attempt.id,
            task_id=task.id,
            engine=task.engine,
            spec=task.spec,
            directory=attempt.directory,
            resources=task.resources,
            cores=() if attempt.node in self._unpinned else attempt.cores,
            gpus=attempt.gpus,
            memory_mb=task.resources.memory_mb,
            time_limit_s=task.time_limit_s,
            time_left_s=self._clock().left_s,
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

    def _hear_signals(self) -> None:
        asked, self._asked = self._asked, []
        for why, at_once in asked:
            self._begin_drain(why, at_once)

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
        with self._writer.transaction() as connection:
            pilot_table.change_pilot(connection, self._writer.epoch, PilotState.ENDED, at=host.now(), reason=why)
        self._publisher.set_state(PilotState.ENDED, why)
        self._publisher.publish(self._ledger)
        log.info("pilot %d has ended: %s", self._writer.epoch, why)

    def _turn(self) -> AbstractContextManager[Turn]:
        return self._ledger.turn(host.now())
