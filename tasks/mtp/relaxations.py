"""Relaxations with a potential that is watched: γ is looked at in every step, and what is unknown ends one of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.parallel import DummyMPI

from tasks.model import Grader, Prediction
from tasks.mtp.attention import Attention
from tasks.mtp.extrapolation_control import Limits, nonsense
from tasks.mtp.gamma_record import GammaRecord
from tasks.mtp.keeping import Keeper, Moment
from tasks.mtp.neighbours import NonsenseCellError


class StoppedError(Exception):
    """Somebody has asked to stop."""


class _BrokenError(Exception):
    """The potential does not know what it has met; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """When a structure is relaxed.

    Attributes:
        force: eV/Å; no force on an atom is larger, nor that on the cell, its virial over the number of atoms (eV).
        steps: at most so many.
        cell: whether the cell is relaxed, too.
    """

    force: float
    steps: int
    cell: bool


class Relaxations:
    """All relaxations of one exploration: what they have met, and what came of them."""

    def __init__(self, grader: Grader, limits: Limits, wanted: Wanted, structures: int) -> None:
        self.grader = grader
        self.limits = limits
        self.wanted = wanted
        self.structures = structures
        self.attention = Attention()
        self.keeper = Keeper(limits.most)
        self.record = GammaRecord(structures * wanted.steps)
        self.broken: list[Moment] = []
        self.reasons: list[tuple[int, str]] = []
        self.relaxed: list[dict[str, Any]] = []
        self.done = 0
        self.steps = 0
        self.above_save = 0
        self.above_break = 0

    def state(self) -> dict[str, Any]:
        """All it remembers between two structures, to the last digit."""
        return {
            "keeper": self.keeper.state(),
            "record": self.record.state(),
            "broken": [moment.state() for moment in self.broken],
            "reasons": list(self.reasons),
            "relaxed": list(self.relaxed),
            "counts": [self.done, self.steps, self.above_save, self.above_break],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self.keeper.restore(state["keeper"])
        self.record.restore(state["record"])
        self.broken = [Moment.restored(moment) for moment in state["broken"]]
        self.reasons = [(int(number), str(reason)) for number, reason in state["reasons"]]
        self.relaxed = list(state["relaxed"])
        self.done, self.steps, self.above_save, self.above_break = (int(count) for count in state["counts"])

    def relax(self, number: int, atoms: Atoms, types: npt.NDArray[np.int32]) -> None:
        """Bring one structure to its end.

        Raises:
            StoppedError: on request, in the middle of it.
        """
        self.grader.forget()
        potential = _Watched(self, number, types)
        atoms.calc = potential
        moving = FrechetCellFilter(atoms) if self.wanted.cell else atoms
        try:
            converged = LBFGS(moving, logfile=None, comm=DummyMPI()).run(
                fmax=self.wanted.force, steps=self.wanted.steps
            )
            seen = potential.look(atoms)
        except _BrokenError as reason:
            self.reasons.append((number, str(reason)))
        else:
            self.relaxed.append(_end(number, atoms, seen, potential.step, converged=bool(converged)))
        self.done += 1

    def grade(self, number: int, step: int, atoms: Atoms) -> None:
        """γ of one step, and what follows from it.

        Raises:
            _BrokenError: it is above the limit.
        """
        gamma = self.grader.grade()
        self.record.add(self.steps, gamma)
        self.steps += 1

        def moment() -> Moment:
            grades = self.grader.grades_of_atoms()
            return Moment(step, gamma, atoms.positions.copy(), atoms.cell.array.copy(), grades, number)

        if not gamma <= self.limits.stop:  # nan, too
            self.above_save += 1
            self.above_break += 1
            if np.isfinite(gamma):
                self.broken.append(moment())
            raise _BrokenError(f"γ = {gamma:.4g} is above {self.limits.stop:g}")
        if gamma > self.limits.save:
            self.above_save += 1
            self.keeper.offer(moment)

    def look_up(self) -> None:
        """Now and then.

        Raises:
            StoppedError: on request.
        """
        if self.attention.look_up():
            print(
                f"{self.done} of {self.structures} structures: {len(self.reasons)} broken; γ up to "
                f"{self.record.highest:.3g}",
                flush=True,
            )
        if self.attention.stopped:
            raise StoppedError


class _Watched(Calculator):  # type: ignore[misc]
    """The potential as ASE asks for it, every answer being graded."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, sweep: Relaxations, number: int, types: npt.NDArray[np.int32]) -> None:
        super().__init__()
        self.step = -1
        self._sweep = sweep
        self._number = number
        self._types = types
        self._volume = 0.0
        self._seen: Prediction | None = None

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """As ASE wants it.

        Raises:
            _BrokenError, StoppedError: the relaxation goes no further.
        """
        super().calculate(atoms, properties, system_changes)
        self._sweep.look_up()
        now = self.atoms
        volume = float(now.get_volume())
        self._volume = self._volume or volume
        self.step += 1
        try:
            seen = self._sweep.grader.predict(self._types, now.positions, now.cell.array)
            self._sweep.grade(self._number, self.step, now)
        except NonsenseCellError as error:
            raise _BrokenError(str(error)) from None
        reason = nonsense(seen, volume, self._volume)
        if reason:
            raise _BrokenError(reason)
        self._seen = seen
        self.results = {"energy": seen.energy, "forces": seen.forces.copy(), "stress": np.array(seen.stress)}

    def look(self, atoms: Atoms) -> Prediction:
        """What it says of the atoms as they are now; not computed again if it was."""
        self.get_property("energy", atoms)
        assert self._seen is not None
        return self._seen


def _end(number: int, atoms: Atoms, seen: Prediction, steps: int, *, converged: bool) -> dict[str, Any]:
    """What came of one structure, for relaxed.cfg and for a checkpoint."""
    return {
        "structure": number,
        "converged": converged,
        "steps": steps,
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "energy": float(seen.energy),
        "forces": seen.forces.tolist(),
        "stress": seen.stress.tolist(),
        "force": float(np.linalg.norm(seen.forces, axis=1).max()),
    }
