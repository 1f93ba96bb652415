"""Evaluate: errors on the holdout, lattice parameter and equation of state, beside those of the reference."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.cell import Cell
from ase.eos import EquationOfState
from ase.units import GPa
from scipy.optimize import OptimizeWarning, minimize_scalar

from db.errors import InputError
from db.records import Json, Structure
from tasks.mtp.data_sets import numbers_of, read_labelled, symbols_of
from tasks.mtp.errors_of_fit import Pair, differences, errors_of, in_words
from tasks.mtp.evaluator import Evaluator, open_potential
from tasks.mtp.neighbours import NonsenseCellError

Floats = npt.NDArray[np.float64]

#: scales of the cell that are looked at for a minimum: ±20 %
_SCALES = np.linspace(0.8, 1.2, 81)
#: scales about the minimum from which the bulk modulus is fitted: ±3 %, 9 % in volume
_NEAR = np.linspace(0.97, 1.03, 13)
_FEWEST_POINTS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """A minimum of energy over volume.

    Attributes:
        volume: at the minimum, Å³ an atom.
        bulk_modulus: GPa.
    """

    volume: float
    bulk_modulus: float


def evaluate(spec: Json, root: Path, _where: Path) -> dict[str, Any]:
    """Compute the facts; no file is written but the result.

    All volumes and energies of ``eos`` are per atom (Å³, eV).

    Raises:
        InputError: a file cannot be used.
    """
    symbols = symbols_of(spec)
    species = numbers_of(symbols)
    evaluator = Evaluator(open_potential(root / spec["potential"], species))
    errors = None
    if spec.get("holdout"):
        errors = errors_of(differences(evaluator, read_labelled(root / spec["holdout"], symbols), species))
        print(f"holdout: {in_words(errors)}", flush=True)
    points = read_labelled(root / spec["eos"], symbols) if spec.get("eos") else []
    reference, eos = _reference(evaluator, points, species)
    structure = _structure(spec, points)
    facts: dict[str, Any] = {
        "holdout": errors,
        "lattice_parameter": None,
        "lattice_parameter_dft": None,
        "bulk_modulus": None,
        "bulk_modulus_dft": None if reference is None else reference.bulk_modulus,
        "eos": eos,
    }
    if structure is None:
        return facts
    if reference is not None:
        facts["lattice_parameter_dft"] = lattice_parameter(structure, reference.volume)
    mine, reason = relax(evaluator, structure, species)
    if mine is None:
        facts["reason"] = reason
    else:
        facts["lattice_parameter"] = lattice_parameter(structure, mine.volume)
        facts["bulk_modulus"] = mine.bulk_modulus
    print(
        f"lattice parameter {_number(facts['lattice_parameter'])} Å (reference "
        f"{_number(facts['lattice_parameter_dft'])}), bulk modulus {_number(facts['bulk_modulus'])} GPa "
        f"(reference {_number(facts['bulk_modulus_dft'])}){'; ' + reason if reason else ''}",
        flush=True,
    )
    return facts


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"


def _structure(spec: Json, points: Sequence[Pair]) -> Structure | None:
    lattice = spec.get("lattice")
    if lattice is not None:
        structure = Structure.from_json(lattice["structure"])
    elif points:
        structure = points[0][0]
    else:
        return None
    if not all(structure.pbc):
        raise InputError("the lattice wants a cell that is periodic in three directions", where="lattice")
    return structure


def _reference(
    evaluator: Evaluator, points: Sequence[Pair], species: Sequence[int]
) -> tuple[Curve | None, dict[str, list[float]] | None]:
    """The reference's curve, and both curves at the points where the reference has been computed."""
    if not points:
        return None, None
    rows = []
    for (structure, label), difference in zip(points, differences(evaluator, points, species), strict=True):
        atoms = len(structure.numbers)
        rows.append((difference.volume / atoms, (label.energy + difference.energy) / atoms, label.energy / atoms))
    volumes, mine, theirs = (list(column) for column in zip(*sorted(rows), strict=True))
    eos = {"volumes": volumes, "energies": mine, "energies_dft": theirs}
    return fit_curve(volumes, theirs), eos


def fit_curve(volumes: Sequence[float], energies: Sequence[float]) -> Curve | None:
    """Birch–Murnaghan's equation of state (Birch, Phys. Rev. 71, 809 (1947), third order) through the points.

    Args:
        volumes: Å³ an atom.
        energies: eV an atom.

    Returns:
        None where there are too few points, or no minimum between them.
    """
    if len(set(volumes)) < _FEWEST_POINTS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    except (ValueError, RuntimeError, OptimizeWarning):
        return None
    if not (min(volumes) <= volume <= max(volumes) and modulus > 0.0):
        return None
    return Curve(float(volume), float(modulus / GPa))


def relax(evaluator: Evaluator, structure: Structure, species: Sequence[int]) -> tuple[Curve | None, str]:
    """The minimum of the energy over the size of the cell, its shape kept: zero pressure.

    A potential may have spurious minima far from where it was trained, so the one nearest to the given cell counts.

    Returns:
        The minimum, or None with the reason why there is none.
    """
    atoms = len(structure.numbers)
    volume = abs(float(np.linalg.det(np.array(structure.cell)))) / atoms

    def energy(scale: float) -> float:
        return evaluator.predict_structure(scaled(structure, scale), species).energy / atoms

    try:
        values = np.array([energy(scale) for scale in _SCALES])
        best = _nearest_minimum(values)
        if best is None:
            return None, "the energy has no minimum between 0.8 and 1.2 of the given cell"
        scale = _refined(energy, best)
        near = scale * _NEAR
        curve = fit_curve((near**3 * volume).tolist(), [energy(s) for s in near])
    except NonsenseCellError as error:
        return None, str(error)
    if curve is None:
        return None, "the energy about its minimum does not follow an equation of state"
    return Curve(scale**3 * volume, curve.bulk_modulus), ""


def _nearest_minimum(values: Floats) -> int | None:
    inside = np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])) + 1
    return int(min(inside, key=lambda k: abs(_SCALES[k] - 1.0))) if len(inside) else None


def _refined(energy: Callable[[float], float], place: int) -> float:
    bounds = (float(_SCALES[place - 1]), float(_SCALES[place + 1]))
    found = minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(found.x)


def scaled(structure: Structure, scale: float) -> Structure:
    """The same structure, all lengths times ``scale``."""
    data = structure.to_json()
    data["cell"] = (np.array(data["cell"]) * scale).tolist()
    data["positions"] = (np.array(data["positions"]) * scale).tolist()
    return Structure.from_json(data)


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
