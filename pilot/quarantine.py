"""Nodes that take nothing new because what runs there fails; :mod:`pilot.scheduler.health` decides, here it is done."""

import logging
from collections.abc import Iterable

from db.states import Verdict
from pilot.agent.losses import was_lost
from pilot.agent.messages import Ended
from pilot.ledger import Ledger
from pilot.scheduler.health import End, Finding, Health, Sign
from tasks.protocol import Cause

log = logging.getLogger("pilot")

#: what a shell ends with when a program is not there or cannot be executed
_NO_PROGRAM = (126, 127)


class Quarantine:
    """What the ends of attempts say of their nodes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._health = Health()

    def joined(self, node: str) -> None:
        """A node is there."""
        self._health.joined(node)

    def lost(self, node: str) -> None:
        """A node is gone."""
        self._health.lost(node)

    def weigh(self, ended: Iterable[Ended], now: float) -> list[tuple[int, Verdict]]:
        """Hear of ends that are about to be recorded; the failures among all so far that are not to be charged.

        Args:
            ended: what has ended.
            now: monotonic time, s.
        """
        pool, findings = self._ledger.reactor.pool, list[Finding]()
        for message in {message.attempt_id: message for message in ended}.values():
            entry, sign = self._ledger.running.get(message.attempt_id), sign_of(message)
            if entry is None or sign is None or entry.attempt.node not in pool.nodes:
                continue
            attempt = entry.attempt
            # which of several nodes is to blame nobody knows; but that all of them work is seen
            nodes = [attempt.node, *(share.node for share in attempt.others)]
            if len(nodes) > 1 and sign is not Sign.WELL:
                continue
            verdict, reason = message.judgement.verdict, message.judgement.reason
            said = f"{verdict}: {reason}" if reason else str(verdict)
            for node in nodes:
                findings += self._health.ended(End(node, entry.task.id, sign, verdict, said), now)
        return self._heed(findings)

    def tried_again(self, now: float) -> bool:
        """Open what has been closed for long; whether there was such a node."""
        findings = self._health.tried_again(now)
        self._heed(findings)
        return bool(findings)

    def why_nothing_starts(self) -> str:
        """In words, where ready tasks wait for nodes that are all closed; else empty."""
        reactor = self._ledger.reactor
        here = {name: why for name, why in reactor.pool.closed.items() if name in reactor.pool.nodes}
        if not here or not len(reactor.graph.ready):
            return ""
        named = "; ".join(f"node {name}: {why}" for name, why in here.items())
        return f"nothing can be started any more ({named}); mend that, and the next pilot goes on"

    def _heed(self, findings: Iterable[Finding]) -> list[tuple[int, Verdict]]:
        pool, pardoned = self._ledger.reactor.pool, list[tuple[int, Verdict]]()
        for finding in findings:
            pardoned += finding.pardoned
            if finding.closed:
                pool.close(finding.node, finding.why)
                log.warning(
                    "node %s is quarantined: %s; it gets nothing new, and %d failures there are not charged",
                    finding.node,
                    finding.why,
                    len(finding.pardoned),
                )
            elif finding.closed is False:
                pool.open(finding.node)
                log.warning("node %s is used again: %s", finding.node, finding.why)
        return pardoned


def sign_of(message: Ended) -> Sign | None:
    """What an end says of the node; None: nothing."""
    verdict, end = message.judgement.verdict, message.end
    if was_lost(message):
        return None
    match verdict:
        case Verdict.DONE | Verdict.NOT_CONVERGED:
            return Sign.WELL
        case Verdict.INFRASTRUCTURE:
            return Sign.MACHINE
        case Verdict.CRASHED | Verdict.TIMEOUT:
            return None if end.cause is Cause.OUTPUT else Sign.FAILED
        case Verdict.BAD_INPUT:
            # a program or a folder that only this node does not see
            not_there = end.cause is Cause.NOT_STARTED or end.code in _NO_PROGRAM
            return Sign.FAILED if not_there else None
        case Verdict.OUT_OF_MEMORY:
            # we did not end it: perhaps the memory of this node is taken by somebody else
            return Sign.FAILED if end.cause is None else None
    return None
