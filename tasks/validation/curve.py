"""Energy over volume: the equation of state, the lattice parameter at zero pressure, how far two curves are apart."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ase.cell import Cell
from ase.eos import EquationOfState
from ase.units import GPa
from scipy.optimize import OptimizeWarning, minimize_scalar

from db.records import Structure
from tasks.model import Predictor, predict_structure
from tasks.mtp.errors_of_fit import Pair, differences
from tasks.mtp.neighbours import NonsenseCellError
from tasks.validation import FEWEST_POINTS
from tasks.validation.cells import scaled, volume_of

Floats = npt.NDArray[np.float64]

#: scales of the cell that are looked at for a minimum: ±20 %
_SCALES = np.linspace(0.8, 1.2, 81)
#: scales about the minimum from which the bulk modulus is fitted: ±3 %, 9 % in volume
_NEAR = np.linspace(0.97, 1.03, 13)


@dataclass(frozen=True, slots=True)
class Curve:
    """A minimum of energy over volume.

    Attributes:
        volume: at the minimum, Å³ an atom.
        bulk_modulus: GPa.
        energy: at the minimum, eV an atom.
    """

    volume: float
    bulk_modulus: float
    energy: float


@dataclass(frozen=True, slots=True)
class Points:
    """Two curves where the reference has been computed, by growing volume.

    Attributes:
        volumes: Å³ an atom.
        energies: the potential's, eV an atom.
        reference: the reference's, eV an atom.
    """

    volumes: list[float]
    energies: list[float]
    reference: list[float]


def points_of(predictor: Predictor, pairs: Sequence[Pair], species: Sequence[int]) -> Points | None:
    """Both curves at the points where the reference has been computed; None for no points.

    Raises:
        InputError: a configuration that is not one of matter.
    """
    if not pairs:
        return None
    rows = []
    for (structure, label), difference in zip(pairs, differences(predictor, pairs, species), strict=True):
        atoms = len(structure.numbers)
        rows.append((difference.volume / atoms, (label.energy + difference.energy) / atoms, label.energy / atoms))
    volumes, mine, theirs = (list(column) for column in zip(*sorted(rows), strict=True))
    return Points(volumes, mine, theirs)


def apart(points: Points, mine: Curve, reference: Curve) -> float:
    """The largest difference of the two curves at the points, each counted from its own minimum, eV an atom."""
    a = np.array(points.energies) - mine.energy
    b = np.array(points.reference) - reference.energy
    return float(np.abs(a - b).max())


def fit_curve(volumes: Sequence[float], energies: Sequence[float]) -> Curve | None:
    """Birch–Murnaghan's equation of state (Birch, Phys. Rev. 71, 809 (1947), third order) through the points.

    Args:
        volumes: Å³ an atom.
        energies: eV an atom.

    Returns:
        None where there are too few points, or no minimum between them.
    """
    if len(set(volumes)) < FEWEST_POINTS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            volume, energy, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    except (ValueError, RuntimeError, OptimizeWarning):
        return None
    if not (min(volumes) <= volume <= max(volumes) and modulus > 0.0):
        return None
    return Curve(float(volume), float(modulus / GPa), float(energy))


def relax(predictor: Predictor, structure: Structure, species: Sequence[int]) -> tuple[Curve | None, str]:
    """The minimum of the energy over the size of the cell, its shape kept: zero pressure.

    A potential may have spurious minima far from where it was trained, so the one nearest to the given cell counts.

    Returns:
        The minimum, or None with the reason why there is none.
    """
    atoms = len(structure.numbers)
    volume = volume_of(structure) / atoms

    def energy(scale: float) -> float:
        return predict_structure(predictor, scaled(structure, scale), species).energy / atoms

    try:
        values = np.array([energy(scale) for scale in _SCALES])
        best = _nearest_minimum(values)
        if best is None:
            return None, "the energy has no minimum between 0.8 and 1.2 of the given cell"
        scale, lowest = _refined(energy, best)
        near = scale * _NEAR
        curve = fit_curve((near**3 * volume).tolist(), [energy(s) for s in near])
    except NonsenseCellError as error:
        return None, str(error)
    if curve is None:
        return None, "the energy about its minimum does not follow an equation of state"
    return Curve(scale**3 * volume, curve.bulk_modulus, lowest), ""


def _nearest_minimum(values: Floats) -> int | None:
    inside = np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])) + 1
    return int(min(inside, key=lambda k: abs(_SCALES[k] - 1.0))) if len(inside) else None


def _refined(energy: Callable[[float], float], place: int) -> tuple[float, float]:
    bounds = (float(_SCALES[place - 1]), float(_SCALES[place + 1]))
    found = minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(found.x), float(found.fun)


def lattice_parameter(structure: Structure, volume: float) -> float:
    """The lattice parameter, Å, of a cell of this shape at ``volume`` (Å³ an atom).

    Of a primitive cell of one of the Bravais lattices it is the conventional parameter a (that of the cube, for fcc
    and bcc); of any other cell the length of its first vector.
    """
    cell = Cell(np.array(structure.cell))
    scale = (volume * len(structure.numbers) / abs(float(cell.volume))) ** (1.0 / 3.0)
    try:
        lattice = cell.get_bravais_lattice(eps=1e-4)
    except RuntimeError:  # not recognised
        return float(scale * cell.lengths()[0])
    own = lattice.vars().get("a")
    return float(scale * (cell.lengths()[0] if own is None else own))
