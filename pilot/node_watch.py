"""Which nodes are there, and what they may be used for: nodes join, are lost, and join again."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from db.states import PilotState, Verdict
from pilot.agent.comm import Comm
from pilot.agent.losses import marked_lost
from pilot.agent.messages import Ended, Gone, Hello, Stop, Sweep, ToManager, Trouble
from pilot.folder import Folder
from pilot.ledger import Ledger
from pilot.memory import Running
from pilot.orphans import judge_orphans
from pilot.quarantine import Quarantine
from pilot.scheduler.nodes import Node
from pilot.snapshot import last_snapshot
from pilot.terms import Terms
from tasks.protocol import Cause, Judgement

log = logging.getLogger("pilot")

#: a pilot that was last heard of so shortly before its end has met that end, in seconds
LAST_MOMENTS_S = 60.0


class NodeWatch:
    """Keeps the ledger's nodes as the agents report them."""

    def __init__(self, folder: Folder, ledger: Ledger, comm: Comm, terms: Terms) -> None:
        self._folder = folder
        self._ledger = ledger
        self._comm = comm
        self._terms = terms
        self._unpinned: set[str] = set()
        self._quarantine = Quarantine(ledger)
        #: attempts whose head was told to end, as another of their nodes is lost
        self._bereft: dict[int, str] = {}
        #: failed attempts over several nodes, each with the moment until which one of them may turn out to be lost
        self._doubted: dict[int, tuple[Ended, float]] = {}
        self.changed = False

    def hear(self, message: ToManager) -> list[Ended]:
        """A node has joined, is lost or in trouble; the attempts that ended with it. All else is not for us."""
        match message:
            case Hello():
                self._joined(message)
            case Gone():
                return self._gone(message)
            case Trouble():
                log.warning("node %s: %s", message.node, message.text)
        return []

    def believed(self, ended: Iterable[Ended], now: float) -> list[Ended]:
        """The ends that may be recorded now (monotonic time).

        An MPI program notices the loss of a node at once, and we only by the node's silence. So a program over
        several nodes that has failed waits here for as long, lest it be blamed for what its node has done.
        """
        self.changed |= self._quarantine.tried_again(now)
        told: list[Ended] = []
        for message in self._with_losses(ended):
            entry = self._ledger.running.get(message.attempt_id)
            if entry is not None and entry.attempt.others and message.judgement.verdict is Verdict.CRASHED:
                self._doubted[message.attempt_id] = (message, now + self._terms.doubt_s)
            else:
                told.append(message)
        over = [attempt_id for attempt_id, (_, until) in self._doubted.items() if now >= until]
        return told + [self._doubted.pop(attempt_id)[0] for attempt_id in over]

    def _with_losses(self, ended: Iterable[Ended]) -> list[Ended]:
        """The same ends, those noted as lost that were ended because of the loss of another of their nodes."""
        found: list[Ended] = []
        for message in ended:
            why = self._bereft.pop(message.attempt_id, None)
            found += [message] if why is None else marked_lost([message], why)
        return found

    def orphaned(self, judged: Sequence[Ended]) -> list[Ended]:
        """The ends of what a dead pilot has left, noted as lost unless it died at the end of its allocation.

        Of a pilot that was draining, too, nothing counts: it was ending anyway.
        """
        snapshot = last_snapshot(self._folder)
        pilot = None if snapshot is None else snapshot.pilot
        if snapshot is not None and pilot is not None:
            at_its_end = pilot.ends_at is not None and snapshot.at > pilot.ends_at - LAST_MOMENTS_S
            if at_its_end or pilot.state == PilotState.DRAINING:
                return list(judged)
        return marked_lost(judged, "its pilot was lost")

    def weigh(self, ended: Sequence[Ended], now: float) -> list[tuple[int, Verdict]]:
        """The failures that are not to be charged, as they are a node's fault; see :mod:`pilot.quarantine`."""
        pardoned = self._quarantine.weigh(ended, now)
        self.changed |= bool(pardoned)
        return pardoned

    def why_nothing_starts(self) -> str:
        """In words, where all nodes are quarantined that ready tasks could use; else empty."""
        return self._quarantine.why_nothing_starts()

    def pinned(self, running: Running) -> Running:
        """An attempt as its agent should start it: without cores where they are only counted."""
        attempt = running.attempt
        others = tuple(replace(share, cores=()) if share.node in self._unpinned else share for share in attempt.others)
        cores = () if attempt.node in self._unpinned else attempt.cores
        return replace(running, attempt=replace(attempt, cores=cores, others=others))

    def _joined(self, hello: Hello) -> None:
        cores, domains, pinned = hello.cores[: self._terms.cores], hello.domains, hello.pinned
        if self._terms.cores is not None and self._terms.cores > len(hello.cores):
            cores, pinned = tuple(range(self._terms.cores)), False
        if not pinned:
            domains = ()
            self._unpinned.add(hello.node)
        memory = min(hello.memory_mb, self._terms.memory_mb or hello.memory_mb)
        self._quarantine.joined(hello.node)
        self._ledger.node_joined(Node(hello.node, cores, memory, hello.gpus, domains))
        self.changed = True
        remark = "" if pinned else "; they are only counted, nothing is pinned to them"
        log.info("node %s: %d cores, %d MB%s", hello.node, len(cores), memory, remark)

    def _gone(self, gone: Gone) -> list[Ended]:
        """Write a node off: what it had finished is adopted, the rest of what ran there is run again."""
        self._quarantine.lost(gone.node)
        lost = f"node {gone.node} was lost"
        touched = [self._ledger.running[attempt_id] for attempt_id in self._ledger.node_lost(gone.node, gone.why)]
        here = [entry for entry in touched if entry.attempt.node == gone.node]
        for entry in here:
            for share in entry.attempt.others:
                self._comm.send(share.node, Sweep(entry.attempt.id))
        interrupted: list[Ended] = []
        for entry in touched:
            doubted = self._doubted.pop(entry.attempt.id, None)
            if doubted is not None:
                judgement = Judgement(Verdict.INTERRUPTED, lost)
                interrupted.append(replace(doubted[0], judgement=judgement))
            elif entry not in here:
                # its head lives, and will report the end
                self._bereft[entry.attempt.id] = lost
                self._comm.send(entry.attempt.node, Stop(entry.attempt.id, Cause.LOST, soft=False))
        log.warning("node %s is lost (%s); tasks that ran there: %d", gone.node, gone.why, len(touched))
        self.changed = True
        known = {message.attempt_id for message in interrupted}
        judged = judge_orphans(self._folder.root, (entry for entry in here if entry.attempt.id not in known))
        return marked_lost(interrupted + judged, lost)
