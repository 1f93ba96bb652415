"""Energies as sums over pairs of atoms: E = Σ_i e(type of i) + ½ Σ_ij φ(r_ij), one φ for each pair of species."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from db.errors import InputError, MissingError
from db.files import write_whole
from tasks.model import Floats, Prediction, Types
from tasks.mtp.neighbours import NeighbourKeeper
from tasks.pair.basis import PairBasis

_VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy in a flat 3×3
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PairPotential:
    """What training finds.

    Attributes:
        basis: of all pairs.
        energies: of an atom of each species by itself, eV, (species,).
        coefficients: of the functions of each pair, eV, (species, species, functions), the same both ways round.
    """

    basis: PairBasis
    energies: Floats
    coefficients: Floats


class PairPredictor:
    """A pair potential along a trajectory.

    Args:
        potential: what to evaluate.
        skin: Å added to the cutoff of the neighbour list; 0 when each call is another configuration.
    """

    def __init__(self, potential: PairPotential, *, skin: float = 0.0) -> None:
        self.potential = potential
        self.cutoff = potential.basis.high
        self.keeper = NeighbourKeeper(self.cutoff, skin)

    def forget(self) -> None:
        """Build the list of neighbours anew next time."""
        self.keeper.forget()

    def predict(self, types: Types, positions: Floats, cell: Floats) -> Prediction:
        """Energy, forces and stress of a cell that is periodic in three directions.

        Args:
            types: from 0, as in the potential.
            positions: Å, (atoms, 3).
            cell: three rows, Å.

        Raises:
            NonsenseCellError: the cell cannot be one of matter.
        """
        p = self.potential
        with np.errstate(all="ignore"):  # nonsense shows as nan
            vectors = self.keeper.vectors(positions, cell)
            js = self.keeper.neighbours.js
            distance = np.sqrt(np.einsum("ikx,ikx->ik", vectors, vectors))
            values, slopes = p.basis.values(distance)
            push, push_slope = p.basis.push(distance)
            mine = p.coefficients[types[:, None], types[js]]
            energy = 0.5 * float((np.einsum("ikb,ikb->ik", values, mine) + push).sum())
            # blank neighbours lie at the cutoff, where all is zero
            slope = np.einsum("ikb,ikb->ik", slopes, mine) + push_slope
            pulls = vectors * (slope / distance)[:, :, None]
            # each pair is met from both its ends, so all of φ' acts on i, and half of each meeting on the cell
            stress = np.einsum("ikx,iky->xy", vectors, pulls) * (0.5 / abs(float(np.linalg.det(cell))))
            return Prediction(energy + float(p.energies[types].sum()), pulls.sum(axis=1), stress.ravel()[_VOIGT])


def save_pair_potential(path: Path, potential: PairPotential, species: Sequence[int]) -> None:
    """Write it whole, as JSON.

    Raises:
        StorageError: the disk refuses.
    """
    symbols = [chemical_symbols[number] for number in species]
    pairs = {
        f"{a}-{b}": potential.coefficients[i, j].tolist()
        for i, a in enumerate(symbols)
        for j, b in enumerate(symbols)
        if i <= j
    }
    content = {
        "kind": "pair potential",
        "format": _FORMAT,
        "species": symbols,
        "min_dist": potential.basis.low,
        "max_dist": potential.basis.high,
        "radial_basis_size": potential.basis.size,
        "energies": potential.energies.tolist(),
        "pairs": pairs,
    }
    write_whole(path, json.dumps(content, indent=1) + "\n")


def read_pair_potential(path: Path, species: Sequence[int]) -> PairPotential:
    """Read it.

    Args:
        path: what :func:`save_pair_potential` has written.
        species: atomic numbers in the order of the types.

    Raises:
        MissingError: there is no such file.
        InputError: it is none, or one for other species.
    """
    again = "train it again"
    try:
        content = json.loads(path.read_bytes())
        found = list(content["species"])
        potential = _from_json(content)
    except FileNotFoundError:
        raise MissingError("there is no potential", where=str(path), next_step=again) from None
    except (OSError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"this is not a pair potential: {error}", where=str(path), next_step=again) from None
    if found != [chemical_symbols[number] for number in species]:
        raise InputError(
            f"this potential is for {', '.join(map(str, found))}, in this order",
            where=str(path),
            next_step="mend `species` in pilot.toml, or train from the beginning",
        )
    return potential


def _from_json(content: Mapping[str, Any]) -> PairPotential:
    if (content["kind"], content["format"]) != ("pair potential", _FORMAT):
        raise ValueError("it is of another kind or format")
    symbols = content["species"]
    basis = PairBasis(float(content["min_dist"]), float(content["max_dist"]), int(content["radial_basis_size"]))
    energies = np.array(content["energies"], dtype=float)
    coefficients = np.empty((len(symbols), len(symbols), basis.size))
    for i, a in enumerate(symbols):
        for j, b in enumerate(symbols[i:], start=i):
            coefficients[i, j] = coefficients[j, i] = content["pairs"][f"{a}-{b}"]
    if energies.shape != (len(symbols),) or not math.isfinite(float(energies.sum() + coefficients.sum())):
        raise ValueError("its numbers do not fit together")
    return PairPotential(basis, energies, coefficients)
