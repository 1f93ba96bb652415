"""Moment tensor potentials behind the protocol of :mod:`tasks.model`, by motep, MLIP-3 or MLIP-2."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from db.errors import InputError
from tasks.model import Floats, Prediction, Types
from tasks.mtp.active_set import ActiveSet, load_active_set
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.registry import POTENTIALS

_FILES = POTENTIALS["motep"]
ACTIVE_SET = "active.npz"
ACTIVE_NEIGHBOURHOODS = "active-nbh.npz"


class ConfigurationGrader:
    """γ of the whole configuration: its dE/dθ per atom against the active set of configurations."""

    def __init__(self, evaluator: Evaluator, active: ActiveSet) -> None:
        self.evaluator = evaluator
        self.active = active
        self.cutoff = evaluator.cutoff

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """As :meth:`Evaluator.predict`."""
        return self.evaluator.predict(types, positions, cell)

    def forget(self) -> None:
        """As :meth:`Evaluator.forget`."""
        self.evaluator.forget()

    def grade(self) -> float:
        """γ of the configuration that was predicted last; nan where it is nonsense."""
        return self.active.grade(self.evaluator.row())

    def grades_of_atoms(self) -> None:
        """γ is of the whole."""
        return


class NeighbourhoodGrader:
    """γ of each atom: the ∂V/∂θ of its neighbourhood against the active set of neighbourhoods.

    That of the configuration is the largest of its atoms' (MLIP-3's paper, section II.E).
    """

    def __init__(self, evaluator: Evaluator, active: ActiveSet) -> None:
        self.evaluator = evaluator
        self.active = active
        self.cutoff = evaluator.cutoff

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """As :meth:`Evaluator.predict`."""
        return self.evaluator.predict(types, positions, cell)

    def forget(self) -> None:
        """As :meth:`Evaluator.forget`."""
        self.evaluator.forget()

    def grade(self) -> float:
        """The largest γ of an atom of the configuration that was predicted last; nan where one is nonsense."""
        return float(self.grades_of_atoms().max())

    def grades_of_atoms(self) -> Floats:
        """γ of each atom's neighbourhood in the configuration that was predicted last, (atoms,)."""
        return self.active.grades(self.evaluator.rows())


@dataclass(frozen=True, slots=True)
class MomentTensorModel:
    """See :class:`tasks.model.Model`."""

    file: str = _FILES.file
    files: tuple[str, ...] = _FILES.files
    optional: tuple[str, ...] = _FILES.optional
    active_sets: bool = True

    def open(self, path: Path, species: Sequence[int], *, skin: float = 0.0) -> Evaluator:
        """Read a trained potential.

        Raises:
            InputError: it is none, or one for other species.
        """
        return Evaluator(open_potential(path, species), skin=skin)

    def grader(
        self, folder: Path, species: Sequence[int], grade: str, *, skin: float = 0.0
    ) -> ConfigurationGrader | NeighbourhoodGrader:
        """A trained potential with one of its active sets.

        Raises:
            InputError: there is no grade of that kind, or the active set is another potential's.
            MissingError: this potential has no active set of that kind.
        """
        evaluator = self.open(folder / self.file, species, skin=skin)
        if grade == "configuration":
            return ConfigurationGrader(evaluator, load_active_set(folder / ACTIVE_SET, evaluator.potential))
        if grade == "neighbourhood":
            active = load_active_set(folder / ACTIVE_NEIGHBOURHOODS, evaluator.potential, neighbourhoods=True)
            return NeighbourhoodGrader(evaluator, active)
        raise InputError(
            f'an active set gives no grade "{grade}"', where="grade", next_step='use "configuration" or "neighbourhood"'
        )


MODEL = MomentTensorModel()
