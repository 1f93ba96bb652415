"""Extrapolation control of one run: predict and grade at every step, keep what matters, and end it when it must end."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilot import host
from tasks.mtp.active_set import ActiveSet
from tasks.mtp.evaluator import Evaluator, volume_of
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.lammps_library import Ints, Push
from tasks.mtp.neighbours import NonsenseCellError

Floats = npt.NDArray[np.float64]

STOP_FILE = "stop"

_CHECK_EVERY_S = 0.25
_SPEAK_EVERY_S = 10.0
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


class Keeper:
    """The configurations to keep: when there are too many, every second one goes, and so on."""

    def __init__(self, most: int) -> None:
        self._most = max(most, 1)
        self._stride = 1
        self._seen = 0
        self.kept: list[tuple[int, float, Floats, Floats]] = []

    def offer(self, step: int, gamma: float, positions: Floats, cell: Floats) -> None:
        """One more that is worth keeping."""
        if self._seen % self._stride == 0:
            if len(self.kept) == self._most:
                self.kept = self.kept[::2]
                self._stride *= 2
            if self._seen % self._stride == 0 and len(self.kept) < self._most:
                self.insist(step, gamma, positions, cell)
        self._seen += 1

    def insist(self, step: int, gamma: float, positions: Floats, cell: Floats) -> None:
        """One that is kept in any case, in place of the last if there is no room."""
        if len(self.kept) == self._most:
            self.kept.pop()
        self.kept.append((step, gamma, positions.copy(), cell.copy()))

    def state(self) -> dict[str, Any]:
        """All it remembers, to the last digit."""
        kept = [(step, gamma, positions.tolist(), cell.tolist()) for step, gamma, positions, cell in self.kept]
        return {"stride": self._stride, "seen": self._seen, "kept": kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self._stride, self._seen = int(state["stride"]), int(state["seen"])
        self.kept = [
            (int(step), float(gamma), np.array(positions), np.array(cell))
            for step, gamma, positions, cell in state["kept"]
        ]


class Explorer:
    """The force field of one exploration: predicts, grades, keeps, and ends the run when it must."""

    def __init__(self, evaluator: Evaluator, active: ActiveSet, types: Ints, limits: Limits, steps: int) -> None:
        self.evaluator = evaluator
        self.active = active
        self.types = types
        self.limits = limits
        self.keeper = Keeper(limits.most)
        self.record = GammaRecord(steps)
        self.above_save = 0
        self.above_break = 0
        self.broke = ""
        self.stopped = False
        self.steps = steps
        self.last_step = 0
        self._volume = 0.0
        self._counted = -1
        self._next_check = 0.0
        self._next_word = 0.0

    def ended(self) -> bool:
        """Whether the run shall go no further."""
        return bool(self.broke) or self.stopped

    def state(self) -> dict[str, Any]:
        """All it remembers of a run that has not ended, to the last digit."""
        return {
            "keeper": self.keeper.state(),
            "record": self.record.state(),
            "above_save": self.above_save,
            "step": self.last_step,
            "volume": self._volume,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self.keeper.restore(state["keeper"])
        self.record.restore(state["record"])
        self.above_save = int(state["above_save"])
        self.last_step = self._counted = int(state["step"])
        self._volume = float(state["volume"])

    def forget_neighbours(self) -> None:
        """Let what comes depend on where the atoms are, and not on when the list of neighbours was made."""
        self.evaluator.keeper.forget()

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
            seen = self.evaluator.predict(self.types[tags - 1], positions, cell)
            gamma = self.active.grade(self.evaluator.row())
        except NonsenseCellError as error:
            self.broke = str(error)
            return nothing
        if step > self._counted:  # each part of the run begins with the step that ended the one before
            self._counted = step
            self.record.add(step, gamma)
            self._decide(step, gamma, positions[np.argsort(tags)], cell)
        self._look_up(step)
        if not (math.isfinite(seen.energy) and np.isfinite(seen.forces).all()):
            self.broke = self.broke or "energy or forces are not finite"
        elif not 1.0 / _MOST_SWELLING < volume / self._volume < _MOST_SWELLING:
            self.broke = self.broke or f"the cell went from {self._volume:.1f} to {volume:.1f} Å³"
        if self.ended():
            return nothing
        xx, yy, zz, yz, xz, xy = (-volume * seen.stress).tolist()
        return Push(seen.energy, seen.forces, np.array([xx, yy, zz, xy, xz, yz]))

    def _decide(self, step: int, gamma: float, positions: Floats, cell: Floats) -> None:
        if gamma > self.limits.stop or not math.isfinite(gamma):
            self.above_save += 1
            self.above_break += 1
            self.broke = f"γ = {gamma:.4g} is above {self.limits.stop:g}"
            if math.isfinite(gamma):
                self.keeper.insist(step, gamma, positions, cell)
        elif gamma > self.limits.save:
            self.above_save += 1
            self.keeper.offer(step, gamma, positions, cell)

    def _look_up(self, step: int) -> None:
        """Now and then: has somebody asked to stop, and is it time to say something?"""
        now = host.monotonic()
        if now >= self._next_check:
            self._next_check = now + _CHECK_EVERY_S
            self.stopped = Path(STOP_FILE).exists()
        if now >= self._next_word:
            self._next_word = now + _SPEAK_EVERY_S
            print(
                f"step {step} of {self.steps}: γ up to {self.record.highest:.3g}, mean {self.record.mean:.3g}; "
                f"{self.above_save} above {self.limits.save:g}",
                flush=True,
            )
