"""What an interatomic potential is to the steps that use one: the protocol behind which MTPs and others stand.

A kind of potential is one module that defines ``MODEL``, named in ``tasks.registry.MODELS`` under the train engine that
makes such potentials. Explorations, selections by a committee and evaluations ask nothing else of it; selection by
MaxVol needs an active set, which only a model with ``active_sets`` has. How to write one: docs/another-potential.md.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Structure
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

    @property
    def cutoff(self) -> float:
        """Å; atoms further apart do not feel each other, not by way of others either."""

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


class Grader(Predictor, Protocol):
    """A predictor that also says how far it extrapolates; an Explorer asks for the grade at every step."""

    def grade(self) -> float:
        """γ of the configuration that was predicted last; of a committee its disagreement, eV/Å; nan for nonsense."""

    def grades_of_atoms(self) -> Floats | None:
        """γ of each atom's neighbourhood, or each atom's disagreement, (atoms,); None where γ is of the whole."""


class Model(Protocol):
    """A kind of potential.

    Attributes:
        file: the name of the file, in the folder of a trained potential, that holds it.
        files: all that training leaves of it in any case and that is published, ``file`` among them.
        optional: what training may leave beside, to be published where it is there.
        active_sets: whether it has an active set, so that γ and MaxVol mean something.
    """

    file: str
    files: tuple[str, ...]
    optional: tuple[str, ...]
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


def predict_structure(predictor: Predictor, structure: Structure, species: Sequence[int]) -> Prediction:
    """As :meth:`Predictor.predict`, for a record; directions that are not periodic get room instead of images.

    Args:
        predictor: any.
        structure: any.
        species: atomic numbers in the order of the potential's types.

    Raises:
        InputError: an atom of another species.
        NonsenseCellError: the cell cannot be one of matter.
    """
    types = types_of(structure.numbers, species)
    positions = np.array(structure.positions, dtype=float).reshape(-1, 3)
    cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, predictor.cutoff)
    seen = predictor.predict(types, positions, cell)
    if all(structure.pbc):
        return seen
    return Prediction(seen.energy, seen.forces, np.full(6, np.nan))


def types_of(numbers: Sequence[int], species: Sequence[int]) -> Types:
    """The type of each atom, from 0.

    Raises:
        InputError: an atom of a species that the potential does not know.
    """
    place = {number: index for index, number in enumerate(species)}
    strange = sorted(set(numbers) - set(place))
    if strange:
        raise InputError(
            f"atoms with atomic number {strange} are unknown to the potential (it knows {list(species)})",
            next_step="name all species of the campaign in pilot.toml, in one order",
        )
    return np.array([place[number] for number in numbers], dtype=np.int32)


def enclosing_cell(positions: Floats, cell: Floats, pbc: Sequence[bool], cutoff: float) -> Floats:
    """A cell that is periodic in three directions and holds the same neighbours.

    Along a direction that is not periodic the cell gets a vector across the others that is longer than the atoms
    reach plus the cutoff, so that no image is a neighbour.
    """
    if all(pbc):
        return cell
    full = cell.astype(float).copy()
    fixed = [k for k in range(3) if pbc[k]]
    free = [k for k in range(3) if not pbc[k]]
    basis = np.linalg.qr(full[fixed].T, mode="complete")[0] if fixed else np.eye(3)
    for k, direction in zip(free, basis.T[len(fixed) :], strict=True):
        along = positions @ direction
        full[k] = direction * (float(np.ptp(along)) + cutoff + 1.0)
    return full
