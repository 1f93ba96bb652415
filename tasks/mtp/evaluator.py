"""Energy, forces, stress and extrapolation grade of small periodic cells, fast enough for every step of dynamics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from motep.potentials.mtp.cext import _mtp_cext
from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from db.records import Structure
from tasks.formats.mtp import read_potential
from tasks.mtp.energy_gradient import EnergyGradient
from tasks.mtp.neighbours import NeighbourKeeper

Floats = npt.NDArray[np.float64]
Types = npt.NDArray[np.int32]

_VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy in a flat 3×3


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


@dataclass(slots=True)
class _MomentValues:
    """The place where the C core writes the basis functions of each atom; it asks for nothing else of it."""

    vatoms: Floats


class Evaluator:
    """One potential, evaluated along a trajectory: what can be kept from step to step is kept.

    Args:
        potential: with coefficients.
        skin: Å added to the cutoff of the neighbour list; 0 when each call is another configuration.
    """

    def __init__(self, potential: MTPData, *, skin: float = 0.0) -> None:
        self.potential = potential
        self.keeper = NeighbourKeeper(float(potential.radial_basis.max), skin)
        self._gradient = EnergyGradient(potential)
        self._vectors: Floats = np.empty((0, 0, 3))
        self._types: Types = np.empty(0, np.int32)
        self._values = _MomentValues(np.empty((0, 0)))

    @property
    def parameters(self) -> int:
        """Number of parameters: the length of :meth:`gradient` and :meth:`row`."""
        p = self.potential
        species = int(p.species_count)
        radial = species**2 * int(p.radial_funcs_count) * int(p.radial_basis.size)
        return int(p.alpha_scalar_moments) + species + radial

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """Energy, forces and stress of a cell that is periodic in three directions.

        Args:
            types: from 0, as in the potential.
            positions: Å, (atoms, 3).
            cell: three rows, Å.

        Raises:
            NonsenseCellError: the cell cannot be one of matter.
        """
        with np.errstate(all="ignore"):  # nonsense shows as nan in the energy
            vectors = self.keeper.vectors(positions, cell)
            js = self.keeper.neighbours.js
            self._vectors, self._types = vectors, types
            shape = (int(self.potential.alpha_scalar_moments), len(types))
            if self._values.vatoms.shape != shape:
                self._values.vatoms = np.empty(shape)
            self._values.vatoms[...] = 0.0  # the core adds to what is there
            energies, slopes = _mtp_cext.calc_run(js, vectors, types, types[js], self.potential, self._values)
            forces: Floats = _mtp_cext.calc_forces_from_gradient(slopes, js)
            stress = vectors.reshape(-1, 3).T @ slopes.reshape(-1, 3)
            stress = (stress + stress.T) * (0.5 / volume_of(cell))
            return Prediction(float(energies.sum()), forces, stress.ravel()[_VOIGT])

    def gradient(self) -> Floats:
        """dE/dθ, (parameters,), of the configuration that was predicted last, in motep's order of θ."""
        with np.errstate(all="ignore"):  # nonsense shows as nan in the grade
            return self._gradient(self._vectors, self._types, self.keeper.neighbours.js)

    def row(self) -> Floats:
        """b of the extrapolation grade of the configuration that was predicted last: dE/dθ divided by its atoms.

        Per atom, as MLIP-3 does it (``weight_scaling 2`` in its files): else γ of a cell would grow with its size.
        """
        return self.gradient() / len(self._types)

    def predict_structure(self, structure: Structure, species: Sequence[int]) -> Prediction:
        """As :meth:`predict`, for a record; directions that are not periodic get room instead of images.

        Args:
            structure: any.
            species: atomic numbers in the order of the potential's types.

        Raises:
            InputError: an atom of another species.
            NonsenseCellError: the cell cannot be one of matter.
        """
        types = types_of(structure.numbers, species)
        positions = np.array(structure.positions, dtype=float).reshape(-1, 3)
        cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, self.keeper.cutoff)
        seen = self.predict(types, positions, cell)
        if all(structure.pbc):
            return seen
        return Prediction(seen.energy, seen.forces, np.full(6, np.nan))


def open_potential(path: Path, species: Sequence[int]) -> MTPData:
    """Read a trained potential and name its types.

    Args:
        path: a .mtp or .almtp file.
        species: atomic numbers in the order of its types.

    Raises:
        InputError: not a potential, not a trained one, or one for another number of species.
    """
    potential = read_potential(path)
    if potential.radial_coeffs is None or potential.moment_coeffs is None or potential.species_coeffs is None:
        raise InputError("this potential is not trained", where=str(path), next_step="train it first")
    if int(potential.species_count) != len(species):
        raise InputError(
            f"this potential is for {int(potential.species_count)} species, the campaign has {len(species)}",
            where=str(path),
            next_step="mend `species` in pilot.toml, or train from the beginning",
        )
    potential.species = np.array(species, dtype=np.int32)
    return potential


def volume_of(cell: Floats) -> float:
    """Å³, of three rows; plain numbers, as this is asked at every step."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    return abs(float(ax * (by * cz - bz * cy) - ay * (bx * cz - bz * cx) + az * (bx * cy - by * cx)))


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
