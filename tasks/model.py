"""What an interatomic potential is to the steps that use one: the protocol behind which MTPs and others stand.

A kind of potential is one module that defines ``MODEL``, named in ``tasks.registry.MODELS`` under the train engine that
makes such potentials. Explorations, selections by a committee and evaluations ask nothing else of it; selection by
MaxVol needs an active set, which only a model with ``active_sets`` has.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tasks.registry import MODELS

Floats = npt.NDArray[np.float64]
Types = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a potential says of one configuration.

    Attributes:
        energy: of the whole cell, eV.
        forces: eV/Å, (atoms, 3).
        stress: eV/Å³, ASE's sign, xx, yy, zz, yz, xz, xy; nan where the cell is not periodic in three directions.
    """

    energy: float
    forces: Floats
    stress: Floats


class Predictor(Protocol):
    """One trained potential, ready to be asked along a trajectory."""

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """Energy, forces and stress of a cell that is periodic in three directions.

        Args:
            types: from 0, in the order of the campaign's species.
            positions: Å, (atoms, 3).
            cell: three rows, Å.

        Raises:
            NonsenseCellError: the cell cannot be one of matter.
        """

    def forget(self) -> None:
        """Let what comes not depend on what was asked before (neighbour lists)."""


class Grader(Protocol):
    """A predictor that also says how far it extrapolates."""

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """As :meth:`Predictor.predict`."""

    def forget(self) -> None:
        """As :meth:`Predictor.forget`."""

    def grade(self) -> float:
        """γ of the configuration that was predicted last; of a committee its disagreement, eV/Å; nan for nonsense."""

    def grades_of_atoms(self) -> Floats | None:
        """γ of each atom's neighbourhood, or each atom's disagreement, (atoms,); None where γ is of the whole."""


class Model(Protocol):
    """A kind of potential.

    Attributes:
        file: the name of the file, in the folder of a trained potential, that holds it.
        files: all that training leaves of it and that is published, ``file`` among them.
        active_sets: whether it has an active set, so that γ and MaxVol mean something.
    """

    file: str
    files: tuple[str, ...]
    active_sets: bool

    def open(self, path: Path, species: Sequence[int], *, skin: float = 0.0) -> Predictor:
        """Read a trained potential.

        Args:
            path: its ``file``.
            species: atomic numbers in the order of the types.
            skin: Å to add to the cutoff of neighbour lists that are kept from step to step.

        Raises:
            InputError: it is none, or one for other species.
        """

    def grader(self, folder: Path, species: Sequence[int], grade: str, *, skin: float = 0.0) -> Grader:
        """A trained potential with the active set that was trained with it.

        Args:
            folder: of the potential and its active set.
            species: as in :meth:`open`.
            grade: "configuration" or "neighbourhood".
            skin: as in :meth:`open`.

        Raises:
            InputError: the model has no active sets, or this potential has none of that kind.
        """


def model(train_engine: str) -> Model:
    """The kind of potential that a train engine makes; its module is imported at the first call."""
    found: Model = importlib.import_module(MODELS[train_engine]).MODEL
    return found
