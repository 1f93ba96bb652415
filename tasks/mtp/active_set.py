"""The active set: the configurations that span what the potential has seen, and the grade γ measured against it.

γ = max_j |(b A⁻¹)_j| with b = dE/dθ per atom of a configuration and A the matrix of the b of the active set
(Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017), eqs. 8 and 11; configuration mode). The set is found
as MLIP-3 finds it, from a small multiple of the identity, so that γ means the same as there. That of neighbourhoods is
made in :mod:`tasks.mtp.active_neighbourhoods`.
"""

import hashlib
import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from motep.grade.maxvol import FindMethod, MaxVol
from motep.potentials.mtp.data import MTPData

from db.errors import InputError, MissingError
from db.files import write_whole
from db.records import Structure
from tasks.mtp.evaluator import Evaluator

Floats = npt.NDArray[np.float64]

#: a configuration enters when it makes the volume grow by more than this (MLIP-3's 1.001)
SWAP_THRESHOLD = 1.001
#: what numpy and zipfile raise on a damaged file, or on one that promises more numbers than there is memory
_UNREADABLE = (
    LookupError,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
#: after so many exchanges the inverse is made anew, for rounding adds up
_REFRESH = 50

# "some parameters have not been selected" is the normal case for a small training set
logging.getLogger("motep.grade.maxvol").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class ActiveSet:
    """What γ is measured against.

    Attributes:
        matrix: A, one row a member, (parameters, parameters); rows without a member are a small multiple of the
            identity's.
        inverse: A⁻¹.
        indices: for each row the index in the training set, -1 where no configuration is.
        potential: :func:`fingerprint` of the potential.
        atoms: for each row the atom whose neighbourhood it is, -1 where none is; None: rows are configurations.
    """

    matrix: Floats
    inverse: Floats
    indices: npt.NDArray[np.int64]
    potential: str
    atoms: npt.NDArray[np.int64] | None = None

    @property
    def members(self) -> int:
        """Number of rows that come from a configuration, or from a neighbourhood of one."""
        return int((self.indices >= 0).sum())

    def grade(self, row: Floats) -> float:
        """γ of one configuration from its b; nan where that is not finite."""
        return float(np.abs(row @ self.inverse).max())

    def grades(self, rows: Floats) -> Floats:
        """γ of each of ``rows``, (configurations,)."""
        grades: Floats = np.abs(rows @ self.inverse).max(axis=1, initial=0.0)
        return grades


def rows_of(evaluator: Evaluator, structures: Sequence[Structure], species: Sequence[int]) -> Floats:
    """b (dE/dθ per atom) of each structure, (structures, parameters).

    Raises:
        InputError: an atom of a species that the potential does not know.
        NonsenseCellError: a cell that cannot be one of matter.
    """
    rows = np.empty((len(structures), evaluator.parameters))
    for row, structure in zip(rows, structures, strict=True):
        evaluator.predict_structure(structure, species)
        row[:] = evaluator.row()
    return rows


def build(rows: Floats, potential: MTPData) -> ActiveSet:
    """The active set of a training set given by its ``rows``; fewer rows than parameters are fine."""
    parameters = rows.shape[1]
    # the algorithm asks for at least as many rows as parameters; a row of zeros is never chosen
    missing = max(parameters - len(rows), 0)
    padded = np.vstack([rows, np.zeros((missing, parameters))])
    result = MaxVol(algorithm=FindMethod.MLIP).run(padded)
    matrix: Floats = np.asarray(result.submatrix)
    indices = _origin(matrix, rows, np.asarray(result.indices))
    inverse: Floats = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return ActiveSet(matrix, inverse, indices, fingerprint(potential))


def _origin(matrix: Floats, rows: Floats, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which row of the training set each row of the matrix is; the result lists the chosen ones in order."""
    indices = np.full(len(matrix), -1, dtype=np.int64)
    waiting = [int(k) for k in chosen]
    for place, row in enumerate(matrix):
        if waiting and np.array_equal(rows[waiting[0]], row):
            indices[place] = waiting.pop(0)
    return indices


@dataclass(frozen=True, slots=True)
class Enlarged:
    """What :func:`enlarge` finds.

    Attributes:
        entered: indices of the candidates that are in the active set at the end.
        grades: γ of every candidate against the active set before.
        after: γ of every candidate against the active set afterwards: not above 1.001.
    """

    entered: tuple[int, ...]
    grades: Floats
    after: Floats


def enlarge(
    active: ActiveSet, candidates: Floats, training: Floats | None = None, *, most_swaps: int = 100_000
) -> Enlarged:
    """MaxVol from the active set there is: candidates take the places where they make |det A| grow most.

    Never more than the number of parameters enter, however many candidates there are. With ``training`` this is what
    MLIP-3's ``select_add`` does: who has lost a place may take another one, and in the end the places are offered to
    the training set once more. So some candidates fewer are selected, and ``after`` may be above 1.001.

    Args:
        active: of the training set.
        candidates: b of each, (candidates, parameters), finite.
        training: b of the training set; None: it is not asked again.
        most_swaps: gives up beyond that; each swap multiplies the volume, so it ends long before.
    """
    if not len(candidates):
        return Enlarged((), np.empty(0), np.empty(0))
    count = len(candidates)
    offered = candidates if training is None else np.vstack([candidates, active.matrix])
    matrix, seats, after = exchange(active.matrix, active.inverse, offered, most_swaps)
    if training is not None:
        owners = np.concatenate([np.full(len(training), -1), seats])
        inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
        matrix, last, _ = exchange(matrix, inverse, np.vstack([training, matrix]), most_swaps)
        seats = np.where(last >= 0, owners[last], seats)
        after = np.abs(np.linalg.solve(matrix.T, candidates.T)).max(axis=0)
    entered = tuple(sorted(int(k) for k in set(seats.tolist()) if 0 <= k < count))
    return Enlarged(entered, active.grades(candidates), after[:count])


def exchange(
    matrix: Floats, inverse: Floats, candidates: Floats, most_swaps: int = 100_000
) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """MaxVol's exchanges themselves: rows of ``matrix`` for candidates, while the volume grows by more than 1.001.

    Args:
        matrix: A, (parameters, parameters).
        inverse: A⁻¹.
        candidates: at least one row, finite.
        most_swaps: gives up beyond that.

    Returns:
        A afterwards; for each of its rows the candidate that took the place, or -1; γ of each candidate against it.
    """
    matrix = matrix.copy()
    coordinates = candidates @ inverse
    seats = np.full(len(matrix), -1, dtype=np.int64)
    for swap in range(most_swaps):
        who, where = divmod(int(np.abs(coordinates).argmax()), len(matrix))
        pivot = coordinates[who, where]
        if abs(pivot) <= SWAP_THRESHOLD:
            break
        seats[where] = who
        matrix[where] = candidates[who]
        if swap % _REFRESH == _REFRESH - 1:
            coordinates = np.asarray(np.linalg.solve(matrix.T, candidates.T).T, dtype=np.float64)
            continue
        row = coordinates[who].copy()
        row[where] -= 1.0
        coordinates -= np.outer(coordinates[:, where] / pivot, row)
    after: Floats = np.abs(coordinates).max(axis=1)
    return matrix, seats, after


def fingerprint(potential: MTPData) -> str:
    """The same for the same coefficients and the same basis, however the file was written."""
    radial = potential.radial_basis
    parts = [
        [potential.scaling, radial.min, radial.max, radial.size],
        potential.radial_coeffs,
        potential.species_coeffs,
        potential.moment_coeffs,
        potential.alpha_index_basic,
        potential.alpha_index_times,
        potential.alpha_moment_mapping,
    ]
    digest = hashlib.sha256()
    for part in parts:
        numbers = np.asarray(part, dtype=float).ravel()
        # files carry 16 digits: 13 are the same before and after
        digest.update(",".join(f"{x + 0.0:.12e}" for x in numbers).encode() + b";")
    return digest.hexdigest()[:32]


def _is_one(active: ActiveSet) -> bool:
    m = len(active.indices) if active.indices.ndim == 1 else -1
    whole = [active.indices] if active.atoms is None else [active.indices, active.atoms]
    arrays = (active.matrix, active.inverse)
    return all(array.dtype.kind == "i" and array.shape == (m,) for array in whole) and all(
        array.dtype.kind == "f" and array.shape == (m, m) and bool(np.isfinite(array).all()) for array in arrays
    )


def save_active_set(path: Path, active: ActiveSet) -> None:
    """Write it whole.

    Raises:
        StorageError: the disk refuses.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"matrix": active.matrix, "inverse": active.inverse, "indices": active.indices}
    if active.atoms is not None:
        arrays["atoms"] = active.atoms
    np.savez(buffer, potential=np.array(active.potential), **arrays)
    write_whole(path, buffer.getvalue())


def load_active_set(path: Path, potential: MTPData, *, neighbourhoods: bool = False) -> ActiveSet:
    """Read it, and refuse one that belongs to another potential.

    Args:
        path: the file.
        potential: that it was made with.
        neighbourhoods: whether one of neighbourhoods is wanted, or one of configurations.

    Raises:
        MissingError: no such file.
        InputError: not an active set, or that of another potential, or of the other kind.
    """
    again = "train the potential again: training writes both files together"
    try:
        # through memory: numpy leaves a file that it cannot read open
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            atoms = file["atoms"] if "atoms" in file.files else None
            active = ActiveSet(file["matrix"], file["inverse"], file["indices"], str(file["potential"]), atoms)
    except FileNotFoundError:
        raise MissingError("there is no active set", where=str(path), next_step=again) from None
    except _UNREADABLE as error:
        raise InputError(f"this is not an active set: {error}", where=str(path), next_step=again) from None
    if not _is_one(active):
        raise InputError("the numbers of this active set do not fit together", where=str(path), next_step=again)
    if (active.atoms is not None) is not neighbourhoods:
        has, wanted = ("neighbourhoods", "configurations")[:: -1 if neighbourhoods else 1]
        raise InputError(f"this is an active set of {has}, not of {wanted}", where=str(path), next_step=again)
    if active.potential != fingerprint(potential):
        raise InputError(
            "this active set belongs to another potential: γ would mean nothing",
            where=str(path),
            next_step=again,
        )
    return active
