"""What counts as clean, as enough, as converged. Pure functions of recorded facts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pilot.stage_tables import StageTable


@dataclass(frozen=True, slots=True)
class Sweep:
    """The explorations of one generation over the (T, P) grid.

    Attributes:
        wanted: explorations that were to run.
        done: those that ended in order.
        broke: those of them that ended above γ_break.
        selected: configurations that were selected for labelling.
    """

    wanted: int
    done: int
    broke: int
    selected: int

    def is_clean(self) -> bool:
        """Every exploration went its full length under γ_break (Algorithm 1 of the Pb report, line 3)."""
        return self.done == self.wanted and self.broke == 0


#: So many labels may always fail: in a small generation one bad structure is a large part.
FEW_FAILED = 2


class Progress(StrEnum):
    """Whether the labels of a generation suffice to train."""

    WAIT = "wait"
    ENOUGH = "enough"
    TOO_MANY_FAILED = "too many failed"


def progress_of_labels(total: int, done: int, failed: int, *, quorum: float, max_failed: float) -> Progress:
    """Whether to wait for more labels.

    A label that failed for good is set aside: it does not count in the whole of which ``quorum`` is a part.
    """
    if failed > max(max_failed * total, FEW_FAILED):
        return Progress.TOO_MANY_FAILED
    return Progress.ENOUGH if done >= math.ceil(quorum * (total - failed)) else Progress.WAIT


class Turn(StrEnum):
    """How the campaign goes on after a generation."""

    SAME_STAGE = "same stage"
    NEXT_STAGE = "next stage"
    CONVERGED = "converged"
    NOT_CONVERGED = "not converged"
    NOTHING_RAN = "nothing ran"


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a generation, and why in words."""

    turn: Turn
    why: str


def decide(
    stages: Sequence[StageTable], stage: int, sweeps: Sequence[Sweep], clean_sweeps: int, if_not_converged: str
) -> Decision:
    """How the campaign goes on.

    Args:
        stages: of the campaign.
        stage: the present one.
        sweeps: of this stage, first to last.
        clean_sweeps: how many in a row make the stage converged.
        if_not_converged: "stop" or "continue" after the stage's last generation.
    """
    if sweeps[-1].done == 0:
        return Decision(Turn.NOTHING_RAN, "no exploration ended in order")
    last = stage == len(stages) - 1
    clean = _clean_at_the_end(sweeps)
    if clean >= clean_sweeps:
        what = f"stage {stage + 1} has converged: {clean} full sweep{'s' if clean > 1 else ''} under γ_break"
        return Decision(Turn.CONVERGED if last else Turn.NEXT_STAGE, what)
    if len(sweeps) >= stages[stage].max_generations:
        what = f"stage {stage + 1} has NOT converged after {len(sweeps)} generations"
        if if_not_converged == "continue" and not last:
            return Decision(Turn.NEXT_STAGE, what + "; going on with the next stage")
        return Decision(Turn.NOT_CONVERGED, what)
    broke = sweeps[-1].broke
    why = f"{broke} of {sweeps[-1].wanted} explorations broke" if broke else f"{clean} of {clean_sweeps} clean sweeps"
    return Decision(Turn.SAME_STAGE, why)


def _clean_at_the_end(sweeps: Sequence[Sweep]) -> int:
    count = 0
    for sweep in reversed(sweeps):
        if not sweep.is_clean():
            break
        count += 1
    return count
