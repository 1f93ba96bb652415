"""A committee: potentials trained on the same data from different beginnings, whose disagreement is a grade.

Where nobody has been, potentials that agree on all that they were trained on disagree (seeds of the method: Smith et
al., Chem. Sci. 8, 3192 (2017); Behler, Int. J. Quantum Chem. 115, 1032 (2015)). It knows potentials by their protocol
only, so any kind will do.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from db.errors import InputError
from tasks.model import Floats, Model, Prediction, Predictor, Types

_FEWEST = 2


class Committee:
    """Several potentials as one that also says how far it extrapolates.

    It predicts with the mean of its members. The dynamics then follows the force whose error bar is the grade: σ is
    measured about the mean, and a sudden folly of one member moves the atoms by its share only. The cost is the same
    as with one member leading, as all must be asked for the grade at each step.

    The grade of an atom is σ = sqrt(mean over the members of |F_m - F_mean|²), eV/Å, and that of a configuration the
    largest of its atoms': what a member does to one atom must not vanish among the many of a large cell.

    Args:
        members: at least two.

    Raises:
        InputError: fewer.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        if len(members) < _FEWEST:
            raise InputError(
                f"a committee of {len(members)} cannot disagree", where="members", next_step="set train.members = 4"
            )
        self.members = tuple(members)
        self._grades: Floats = np.empty(0)

    @property
    def cutoff(self) -> float:
        """Å; the longest of its members'."""
        return max(member.cutoff for member in self.members)

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """The mean of what the members say.

        Raises:
            NonsenseCellError: the cell cannot be one of matter.
        """
        each = [member.predict(types, positions, cell) for member in self.members]
        with np.errstate(all="ignore"):  # nonsense shows as nan
            all_forces = np.array([seen.forces for seen in each])
            forces: Floats = all_forces.mean(axis=0)
            self._grades = np.sqrt(((all_forces - forces) ** 2).sum(axis=2).mean(axis=0))
            energy = float(np.mean([seen.energy for seen in each]))
            return Prediction(energy, forces, np.mean([seen.stress for seen in each], axis=0))

    def forget(self) -> None:
        """Let no member remember anything."""
        for member in self.members:
            member.forget()

    def grade(self) -> float:
        """The largest σ of an atom in the configuration that was predicted last, eV/Å; nan for nonsense."""
        return float(self._grades.max())  # nan goes before all numbers

    def grades_of_atoms(self) -> Floats:
        """σ of each atom, eV/Å, (atoms,)."""
        return self._grades


def open_committee(model: Model, paths: Sequence[Path], species: Sequence[int], *, skin: float = 0.0) -> Committee:
    """Read the members, the main one first.

    Args:
        model: what they are.
        paths: the ``model.file`` of each.
        species: atomic numbers in the order of the types.
        skin: Å to add to the cutoff of neighbour lists that are kept from step to step.

    Raises:
        InputError: one cannot be read, or there are fewer than two.
    """
    return Committee([model.open(path, species, skin=skin) for path in paths])
