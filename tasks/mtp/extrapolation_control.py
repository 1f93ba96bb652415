"""Extrapolation control of one run: predict and grade at every step, keep what matters, and end it when it must end."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.model import Grader, Prediction
from tasks.mtp.attention import Attention
from tasks.mtp.evaluator import volume_of
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.keeping import Keeper, Moment
from tasks.mtp.lammps_library import Ints, Push
from tasks.mtp.neighbours import NonsenseCellError
from tasks.mtp.sampling import Sampler

Floats = npt.NDArray[np.float64]

#: volume of the cell over that at the start beyond which matter has come apart, or collapsed
_MOST_SWELLING = 8.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When to keep a configuration and when to end.

    Attributes:
        save: γ above which a configuration is kept.
        stop: γ above which the run ends, the configuration being kept first.
        most: how many are kept at most, spread over the run.
    """

    save: float
    stop: float
    most: int


def nonsense(seen: Prediction, volume: float, before: float) -> str:
    """Why a prediction is none of matter, for a cell of ``volume`` that once had ``before`` (Å³); "" if it is one."""
    if not (math.isfinite(seen.energy) and np.isfinite(seen.forces).all()):
        return "energy or forces are not finite"
    if not 1.0 / _MOST_SWELLING < volume / before < _MOST_SWELLING:
        return f"the cell went from {before:.1f} to {volume:.1f} Å³"
    return ""


class Explorer:
    """The force field of one exploration: predicts, grades, keeps, and ends the run when it must.

    Args:
        grader: the potential.
        types: of the atoms, from 0.
        limits: when to keep and when to end.
        steps: that are wanted, over all phases.
        sampler: takes a sample uniform in γ; None: none is wanted.
    """

    def __init__(self, grader: Grader, types: Ints, limits: Limits, steps: int, sampler: Sampler | None = None) -> None:
        self.grader = grader
        self.types = types
        self.limits = limits
        self.keeper = Keeper(limits.most)
        self.sampler = sampler
        self.record = GammaRecord(steps)
        self.attention = Attention()
        self.above_save = 0
        self.above_break = 0
        self.broke = ""
        self.steps = steps
        self.last_step = 0
        self._volume = 0.0
        self._counted = -1

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked it to stop."""
        return self.attention.stopped

    def ended(self) -> bool:
        """Whether the run shall go no further."""
        return bool(self.broke) or self.stopped

    def state(self) -> dict[str, Any]:
        """All it remembers of a run that has not ended, to the last digit."""
        return {
            "keeper": self.keeper.state(),
            "sampler": None if self.sampler is None else self.sampler.state(),
            "record": self.record.state(),
            "above_save": self.above_save,
            "step": self.last_step,
            "volume": self._volume,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self.keeper.restore(state["keeper"])
        if self.sampler is not None:
            self.sampler.restore(state["sampler"])
        self.record.restore(state["record"])
        self.above_save = int(state["above_save"])
        self.last_step = self._counted = int(state["step"])
        self._volume = float(state["volume"])

    def forget_neighbours(self) -> None:
        """Let what comes depend on where the atoms are, and not on when the list of neighbours was made."""
        self.grader.forget()

    def push(self, step: int, tags: Ints, positions: Floats, cell: Floats) -> Push:
        """What LAMMPS asks for at every step; after the end was decided, nothing acts on the atoms."""
        nothing = Push(0.0, np.zeros_like(positions), np.zeros(6))
        if self.ended():
            return nothing
        self.last_step = step
        if len(tags) != len(self.types):
            self.broke = f"LAMMPS lost {len(self.types) - len(tags)} atoms"
            return nothing
        volume = volume_of(cell)
        self._volume = self._volume or volume
        try:
            seen = self.grader.predict(self.types[tags - 1], positions, cell)
            if step > self._counted:  # each part of the run begins with the step that ended the one before
                self._counted = step
                self._grade(step, tags, positions, cell)
        except NonsenseCellError as error:
            self.broke = str(error)
            return nothing
        self._look_up(step)
        self.broke = self.broke or nonsense(seen, volume, self._volume)
        if self.ended():
            return nothing
        xx, yy, zz, yz, xz, xy = (-volume * seen.stress).tolist()
        return Push(seen.energy, seen.forces, np.array([xx, yy, zz, xy, xz, yz]))

    def _grade(self, step: int, tags: Ints, positions: Floats, cell: Floats) -> None:
        """How far it extrapolates, and what follows from that."""
        gamma = self.grader.grade()
        self.record.add(step, gamma)

        def moment() -> Moment:
            order = np.argsort(tags)
            grades = self.grader.grades_of_atoms()
            return Moment(
                step, gamma, positions[order], cell.copy(), None if grades is None else np.asarray(grades)[order]
            )

        if gamma > self.limits.stop or not math.isfinite(gamma):
            self.above_save += 1
            self.above_break += 1
            self.broke = f"γ = {gamma:.4g} is above {self.limits.stop:g}"
            if math.isfinite(gamma):
                self.keeper.insist(moment())
        elif gamma > self.limits.save:
            self.above_save += 1
            self.keeper.offer(moment)
        if self.sampler is not None:
            self.sampler.offer(gamma, moment)

    def _look_up(self, step: int) -> None:
        if self.attention.look_up():
            print(
                f"step {step} of {self.steps}: γ up to {self.record.highest:.3g}, mean {self.record.mean:.3g}; "
                f"{self.above_save} above {self.limits.save:g}",
                flush=True,
            )
