"""Attempts that were interrupted because their node, its launcher or their pilot was lost.

That is noted among the facts of the attempt, so that it is known in later allocations, too; what follows from it,
:mod:`pilot.scheduler.suspects` says.
"""

from collections.abc import Iterable
from dataclasses import replace

from db.records import LOST
from db.states import Verdict
from pilot.agent.messages import Ended


def marked_lost(messages: Iterable[Ended], why: str) -> list[Ended]:
    """The same ends, those that were interrupted noted as lost, with the reason."""
    return [_marked(each, why) if each.judgement.verdict is Verdict.INTERRUPTED else each for each in messages]


def _marked(message: Ended, why: str) -> Ended:
    facts = {**message.judgement.facts, LOST: 1}
    return replace(message, judgement=replace(message.judgement, facts=facts, reason=why))


def was_lost(message: Ended) -> bool:
    """Whether an attempt was lost with its node, its launcher or its pilot."""
    return LOST in message.judgement.facts


def as_its_fault(message: Ended, losses: int) -> Ended:
    """The end of an attempt whose task is to blame for the loss, after so many in a row."""
    reason = f"its node or its pilot was lost {losses} times in a row while it ran ({message.judgement.reason})"
    judgement = replace(message.judgement, verdict=Verdict.INFRASTRUCTURE, reason=reason, resumable=False)
    return replace(message, judgement=judgement)
