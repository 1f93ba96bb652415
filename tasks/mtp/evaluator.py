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
from tasks.model import Prediction, predict_structure
from tasks.mtp.energy_gradient import EnergyGradient
from tasks.mtp.neighbours import NeighbourKeeper

Floats = npt.NDArray[np.float64]
Types = npt.NDArray[np.int32]

_VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy in a flat 3×3


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
    def cutoff(self) -> float:
        """Å; atoms further apart do not feel each other."""
        return self.keeper.cutoff

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

    def rows(self) -> Floats:
        """∂V/∂θ of each neighbourhood of the configuration that was predicted last, (atoms, parameters).

        V is what one atom adds to the energy (MLIP-3's paper, equation 10); their sum is :meth:`gradient`.
        """
        with np.errstate(all="ignore"):
            return self._gradient.rows(self._vectors, self._types, self.keeper.neighbours.js)

    def forget(self) -> None:
        """Build the list of neighbours anew next time: what comes then depends on nothing that was before."""
        self.keeper.forget()

    def predict_structure(self, structure: Structure, species: Sequence[int]) -> Prediction:
        """As :func:`tasks.model.predict_structure`."""
        return predict_structure(self, structure, species)


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
