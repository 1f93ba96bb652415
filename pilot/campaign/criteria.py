"""What counts as clean, as enough, as converged. Pure functions of recorded facts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pilot.campaign.checks import NOTHING_MORE, NOTHING_SHOWN, Shown, checks_of
from pilot.stage_tables import StageTable
from pilot.train_tables import ConvergeTable

#: the name, in ``Decision.failed``, of the sweeps themselves
CLEAN_SWEEPS = "clean_sweeps"


@dataclass(frozen=True, slots=True)
class Sweep:
    """The explorations of one generation over the (T, P) grid.

    Attributes:
        wanted: explorations that were to run.
        done: those that ended in order.
        broke: those of them that ended above γ_break.
        selected: configurations that were selected for labelling.
        shown: what the potential with which they explored had shown when it was evaluated.
    """

    wanted: int
    done: int
    broke: int
    selected: int
    shown: Shown = NOTHING_SHOWN

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
    STUDIED = "studied"


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a generation.

    Attributes:
        turn: how the campaign goes on.
        why: in words, with numbers: what is fulfilled and what is not.
        failed: the names of what is asked for and not fulfilled: ``clean_sweeps`` and the keys of [converge].
    """

    turn: Turn
    why: str
    failed: tuple[str, ...] = ()


def decide(
    stages: Sequence[StageTable],
    stage: int,
    sweeps: Sequence[Sweep],
    clean_sweeps: int,
    if_not_converged: str,
    converge: ConvergeTable = NOTHING_MORE,
    force_errors: Sequence[float | None] | None = None,
) -> Decision:
    """How the campaign goes on.

    A stage has converged when the last ``clean_sweeps`` sweeps are clean, *and* the holdout's force error is flat,
    *and* each tolerance of ``converge`` holds. What is asked for and not known does not hold.

    Args:
        stages: of the campaign.
        stage: the present one.
        sweeps: of this stage, first to last.
        clean_sweeps: how many in a row make the stage converged.
        if_not_converged: "stop" or "continue" after the stage's last generation.
        converge: what else is asked.
        force_errors: ε_F on the holdout, eV/Å, of the potential of each sweep of the campaign, oldest first, None where
            it is not known; those of earlier stages are among them. None instead of the list: there is no holdout.
    """
    if sweeps[-1].done == 0:
        return Decision(Turn.NOTHING_RAN, "no exploration ended in order", (CLEAN_SWEEPS,))
    last = stage == len(stages) - 1
    clean = _clean_at_the_end(sweeps)
    checks = checks_of(sweeps[-1].shown, force_errors, converge)
    failed = (() if clean >= clean_sweeps else (CLEAN_SWEEPS,)) + tuple(c.name for c in checks if not c.passed)
    found = "; ".join([_sweeps_in_words(sweeps[-1], clean, clean_sweeps), *(check.words for check in checks)])
    if set(failed) - {CLEAN_SWEEPS} and sweeps[-1].shown == NOTHING_SHOWN:
        found += _NOT_EVALUATED
    elif _is_stuck(sweeps[-1], failed):
        found += _STUCK
    if not failed:
        turn = Turn.CONVERGED if last else Turn.NEXT_STAGE
        return Decision(turn, f"stage {stage + 1} has converged: {found}")
    if len(sweeps) >= stages[stage].max_generations:
        names = ", ".join(name.replace("_", " ") for name in failed)
        what = f"stage {stage + 1} has NOT converged after {len(sweeps)} generations, not fulfilled: {names} ({found})"
        if if_not_converged == "continue" and not last:
            return Decision(Turn.NEXT_STAGE, what + "; going on with the next stage", failed)
        return Decision(Turn.NOT_CONVERGED, what, failed)
    return Decision(Turn.SAME_STAGE, found, failed)


#: what is left to be done where sweeps alone change nothing
_STUCK = (
    "; nothing was selected, so the potential stays as it is, and sweeps alone will not mend this: begin a folder "
    "with a higher train.level or more train.first_iterations and `pilot import` these labels, or loosen [converge]"
)


#: the same where nothing is known of the potential
_NOT_EVALUATED = "; the potential of this sweep was never evaluated: if its evaluation failed, `pilot retry --failed`"


def _is_stuck(last: Sweep, failed: Sequence[str]) -> bool:
    """The sweeps find nothing to learn from, and what is asked for does not hold of the potential that there is.

    That ε_F is not flat is mended by the next sweep: the same potential has the same error.
    """
    return last.selected == 0 and bool(failed) and not {CLEAN_SWEEPS, "flat"} & set(failed)


def _sweeps_in_words(last: Sweep, clean: int, wanted: int) -> str:
    if clean >= wanted:
        return f"{clean} full sweep{'s' if clean > 1 else ''} under γ_break"
    if last.broke:
        return f"{last.broke} of {last.wanted} explorations broke"
    return f"{clean} of {wanted} clean sweeps"


def _clean_at_the_end(sweeps: Sequence[Sweep]) -> int:
    count = 0
    for sweep in reversed(sweeps):
        if not sweep.is_clean():
            break
        count += 1
    return count
