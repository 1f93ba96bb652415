"""Moments of an exploration, and which of them are kept for the selection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from db.records import Structure
from tasks.mtp.data_sets import Sample

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One configuration of an exploration.

    Attributes:
        step: at which it was met.
        gamma: γ of the configuration.
        positions: Å, (atoms, 3), in the order of the structure that was given.
        cell: three rows, Å, as the exploration has it.
        grades: γ of each atom, (atoms,); None where γ is of the whole.
        structure: which of the structures of a relaxation it belongs to, from 1; 0 in dynamics.
    """

    step: int
    gamma: float
    positions: Floats
    cell: Floats
    grades: Floats | None = None
    structure: int = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint, to the last digit."""
        return {
            "step": self.step,
            "gamma": self.gamma,
            "positions": self.positions.tolist(),
            "cell": self.cell.tolist(),
            "grades": None if self.grades is None else self.grades.tolist(),
            "structure": self.structure,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Self:
        """What :meth:`state` told of."""
        grades = state["grades"]
        return cls(
            int(state["step"]),
            float(state["gamma"]),
            np.array(state["positions"]),
            np.array(state["cell"]),
            None if grades is None else np.array(grades),
            int(state["structure"]),
        )

    def sample(self, like: Structure, cell: Floats) -> Sample:
        """For a file, with its grade: the atoms of ``like`` as they are now, in ``cell`` (Å)."""
        features = {"MV_grade": f"{self.gamma:.6f}", "step": str(self.step)}
        if self.structure:
            features["structure"] = str(self.structure)
        now = Structure.from_json(
            {"numbers": like.numbers, "positions": self.positions.tolist(), "cell": cell.tolist(), "pbc": like.pbc}
        )
        return Sample(now, features=features, grades=self.grades)


class Keeper:
    """The configurations to keep: when there are too many, every second one goes, and so on."""

    def __init__(self, most: int) -> None:
        self._most = max(most, 1)
        self._stride = 1
        self._seen = 0
        self.kept: list[Moment] = []

    def offer(self, make: Callable[[], Moment]) -> None:
        """One more that is worth keeping; ``make`` is asked for it only if it is kept."""
        if self._seen % self._stride == 0:
            if len(self.kept) == self._most:
                self.kept = self.kept[::2]
                self._stride *= 2
            if self._seen % self._stride == 0 and len(self.kept) < self._most:
                self.insist(make())
        self._seen += 1

    def insist(self, moment: Moment) -> None:
        """One that is kept in any case, in place of the last if there is no room."""
        if len(self.kept) == self._most:
            self.kept.pop()
        self.kept.append(moment)

    def state(self) -> dict[str, Any]:
        """All it remembers, to the last digit."""
        return {"stride": self._stride, "seen": self._seen, "kept": [moment.state() for moment in self.kept]}

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self._stride, self._seen = int(state["stride"]), int(state["seen"])
        self.kept = [Moment.restored(moment) for moment in state["kept"]]
