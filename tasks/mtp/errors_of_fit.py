"""How far a potential is from its reference, in the measures that the field prints, each with its meaning and unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Label, Structure
from tasks.model import Predictor, predict_structure
from tasks.mtp.neighbours import NonsenseCellError

Floats = npt.NDArray[np.float64]
Pair = tuple[Structure, Label]

_FULL = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # Voigt -> 3×3, row by row


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the loss function: per configuration w_e (ΔE/N)² + w_f Σ|ΔF|²/N + w_s Σ(V Δσ/N)², then the mean."""

    energy: float = 1.0
    forces: float = 0.01
    stress: float = 0.001


@dataclass(frozen=True, slots=True)
class Difference:
    """Prediction minus reference of one configuration.

    Attributes:
        energy: of the whole cell, eV.
        forces: eV/Å, (atoms, 3).
        stress: eV/Å³, Voigt, (6,); None where there is no reference.
        volume: Å³.
    """

    energy: float
    forces: Floats
    stress: Floats | None
    volume: float

    @property
    def atoms(self) -> int:
        """Number of atoms."""
        return len(self.forces)

    @property
    def eps_f(self) -> float:
        """ε_F, eV/Å: the RMS over the atoms of the norm of the force error (equation 1 of the Pb report, squared)."""
        return math.sqrt(float((self.forces**2).sum(axis=1).mean()))

    @property
    def eps_e(self) -> float:
        """ε_E, eV a cell: the absolute error of the energy (equation 2 of the Pb report)."""
        return abs(self.energy)


def differences(predictor: Predictor, pairs: Sequence[Pair], species: Sequence[int]) -> list[Difference]:
    """Predict each configuration and subtract its label.

    Raises:
        InputError: an unknown species, or a configuration that is not one of matter.
    """
    found = []
    for number, (structure, label) in enumerate(pairs, start=1):
        try:
            seen = predict_structure(predictor, structure, species)
        except NonsenseCellError as error:
            raise InputError(f"configuration {number} cannot be used: {error}") from error
        stress = None if label.stress is None else seen.stress - np.array(label.stress)
        forces = seen.forces - np.array(label.forces).reshape(-1, 3)
        volume = abs(float(np.linalg.det(np.array(structure.cell))))
        found.append(Difference(seen.energy - label.energy, forces, stress, volume))
    return found


def errors_of(found: Sequence[Difference]) -> dict[str, Any] | None:
    """The error measures; None for no configuration.

    - ``n``: configurations.
    - ``eps_F``: eV/Å; the RMS over the atoms of the norm of the force error, averaged over the configurations
      (equations 1 and 3 of the Pb report; the square that its equation 1 leaves out is meant).
    - ``eps_E``: eV a cell; mean absolute error (equations 2 and 4); ``eps_E_per_atom``: eV/atom, the same of ΔE/N.
    - ``rmse_energy_per_atom``: eV/atom. ``rmse_force_component``: eV/Å, over all components of all atoms;
      ``rms_force_vector``: eV/Å, over all atoms, of the norm: √3 times as large (what MLIP prints).
    - ``rmse_stress``: eV/Å³, over the six components; None without reference.
    - ``max_force``: eV/Å, the largest norm of a force error.
    """
    if not found:
        return None
    squares = np.concatenate([(d.forces**2).sum(axis=1) for d in found])
    per_atom = np.array([d.energy / d.atoms for d in found])
    stresses = [d.stress for d in found if d.stress is not None]
    vector = math.sqrt(squares.mean())
    return {
        "n": len(found),
        "eps_F": float(np.mean([d.eps_f for d in found])),
        "eps_E": float(np.mean([d.eps_e for d in found])),
        "eps_E_per_atom": float(np.abs(per_atom).mean()),
        "rmse_energy_per_atom": math.sqrt((per_atom**2).mean()),
        "rmse_force_component": vector / math.sqrt(3.0),
        "rms_force_vector": vector,
        "rmse_stress": math.sqrt(np.mean(np.square(stresses))) if stresses else None,
        "max_force": math.sqrt(squares.max()),
    }


def loss_of(found: Sequence[Difference], weights: Weights) -> float:
    """The loss function that training makes small."""
    total = 0.0
    for d in found:
        total += weights.energy * (d.energy / d.atoms) ** 2
        total += weights.forces * float((d.forces**2).sum()) / d.atoms
        if d.stress is not None:
            total += weights.stress * float(((d.stress[_FULL] * d.volume / d.atoms) ** 2).sum())
    return total / max(len(found), 1)


def in_words(errors: dict[str, Any] | None) -> str:
    """One line for people."""
    if errors is None:
        return "no configuration"
    stress = errors["rmse_stress"]
    words = (
        f"{errors['n']} configurations: energy {1000 * errors['rmse_energy_per_atom']:.3g} meV/atom (RMS), "
        f"force {1000 * errors['rmse_force_component']:.3g} meV/Å a component (RMS), "
        f"{1000 * errors['max_force']:.3g} at most"
    )
    return words if stress is None else f"{words}, stress {160.21766 * stress:.3g} GPa (RMS)"
