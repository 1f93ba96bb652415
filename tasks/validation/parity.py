"""What the plots of a potential against its reference need, as ``parity.npz``: beside the facts, as it may be large."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase.units import GPa

from tasks.formats.whole import beside
from tasks.validation.sets import Seen

FILE = "parity.npz"
#: a plot shows no more
MOST_FORCES = 20_000
_SEED = 5

Array = npt.NDArray[np.float32] | npt.NDArray[np.int32] | npt.NDArray[np.str_] | npt.NDArray[np.float64]


def write_parity(path: Path, sets: Mapping[str, Sequence[Seen]]) -> None:
    """Write the file; it appears whole.

    For each NAME of the sets, where columns are (reference, potential):

    - NAME_atoms: of each configuration. NAME_id: text.
    - NAME_energy: eV/atom, (n, 2). NAME_forces: eV/Å, components, (k, 2). NAME_stress: GPa, components, (m, 2).
    - NAME_eps_F: eV/Å. NAME_eps_E: eV a cell. NAME_gamma: nan where it is not known; only if any is known.

    Of large sets only some forces are kept, always the same ones.

    Raises:
        StorageError: the disk refuses.
    """
    arrays = {f"{name}_{what}": array for name, seen in sets.items() for what, array in _arrays(seen).items()}
    with beside(path) as new, new.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _arrays(seen: Sequence[Seen]) -> dict[str, Array]:
    energies = [(one.label.energy, one.label.energy + one.difference.energy) for one in seen]
    atoms = np.array([one.difference.atoms for one in seen], np.int32)
    found: dict[str, Array] = {
        "atoms": atoms,
        # in single precision a large energy would lose its last meV
        "energy": np.array(energies) / atoms[:, None],
        "forces": _thinned(np.concatenate([_forces(one) for one in seen])).astype(np.float32),
        "eps_F": np.array([one.difference.eps_f for one in seen], np.float32),
        "eps_E": np.array([one.difference.eps_e for one in seen], np.float32),
        "id": np.array([one.id for one in seen], dtype=np.str_),
    }
    stresses = [_stress(one) for one in seen if one.difference.stress is not None]
    if stresses:
        found["stress"] = (np.concatenate(stresses) / GPa).astype(np.float32)
    gamma = np.array([one.gamma for one in seen], np.float32)
    if np.isfinite(gamma).any():
        found["gamma"] = gamma
    return found


def _forces(one: Seen) -> npt.NDArray[np.float64]:
    reference = np.array(one.label.forces, dtype=float).ravel()
    return np.stack([reference, reference + one.difference.forces.ravel()], axis=1)


def _stress(one: Seen) -> npt.NDArray[np.float64]:
    reference = np.array(one.label.stress, dtype=float)
    return np.stack([reference, reference + np.asarray(one.difference.stress)], axis=1)


def _thinned(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if len(rows) <= MOST_FORCES:
        return rows
    return rows[sorted(random.Random(_SEED).sample(range(len(rows)), MOST_FORCES))]
