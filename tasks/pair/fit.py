"""The fit of a pair potential: its energies, forces and stresses are linear in what is sought, so least squares do it.

The loss function is that of the other engines (:class:`tasks.mtp.errors_of_fit.Weights`). The rows of the training set
are folded into a triangle of the size of the unknowns block by block (a QR factorisation that is updated), so the
memory does not grow with the training set; unlike the normal equations that does not square the condition number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from db.records import Structure
from tasks.model import enclosing_cell, types_of
from tasks.mtp.errors_of_fit import Pair, Weights
from tasks.mtp.neighbours import NonsenseCellError, find_neighbours
from tasks.mtp.reference import reference_energies
from tasks.pair.basis import PairBasis
from tasks.pair.potential import PairPotential

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: of the squared length of a column; it decides only what the data leave open, such as pairs that never meet
_RIDGE = 1e-10
_VOIGT = [0, 4, 8, 5, 2, 1]
#: the six components with the weight that makes their squares those of the nine
_TWICE = np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
#: rows that are folded in together
_BLOCK = 20_000


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where an unknown has its column: first the functions of each pair of species, then the energy of each species."""

    species: int
    size: int

    @property
    def pairs(self) -> Ints:
        """The number of each pair, the same both ways round, (species, species)."""
        numbers = np.empty((self.species, self.species), dtype=np.int64)
        upper = np.triu_indices(self.species)
        numbers[upper] = np.arange(len(upper[0]))
        numbers.T[upper] = numbers[upper]
        return numbers

    @property
    def functions(self) -> int:
        """Number of all functions."""
        return self.species * (self.species + 1) // 2 * self.size

    @property
    def unknowns(self) -> int:
        """Number of columns."""
        return self.functions + self.species


def fit(
    pairs: Sequence[Pair],
    times: Sequence[int],
    species: Sequence[int],
    basis: PairBasis,
    weights: Weights,
) -> PairPotential:
    """The potential whose loss is smallest.

    Args:
        pairs: the training set.
        times: how often each configuration counts; 0: not at all.
        species: atomic numbers in the order of the types.
        basis: of all pairs of species.
        weights: of the loss function.

    Raises:
        InputError: an unknown species, or a configuration that is not one of matter.
    """
    slots = _Slots(len(species), basis.size)
    used = [pair for pair, often in zip(pairs, times, strict=True) if often]
    reference, _ = reference_energies(used, species)
    folded = np.empty((0, slots.unknowns + 1))
    waiting: list[Floats] = []
    for number, ((structure, label), often) in enumerate(zip(pairs, times, strict=True), start=1):
        if not often:
            continue
        try:
            rows = _rows((structure, label), species, basis, slots, weights, reference)
        except NonsenseCellError as error:
            raise InputError(f"configuration {number} cannot be used: {error}") from error
        waiting.append(rows * np.sqrt(often))
        if sum(map(len, waiting)) > _BLOCK:
            folded, waiting = _folded([folded, *waiting]), []
    folded = _folded([folded, *waiting])
    found = _solve(folded[:, :-1], folded[:, -1])
    coefficients = found[: slots.functions].reshape(-1, basis.size)[slots.pairs]
    return PairPotential(basis, found[slots.functions :] + reference, coefficients)


def _folded(rows: list[Floats]) -> Floats:
    """The triangle that has the same least squares as all these rows together."""
    return np.asarray(np.linalg.qr(np.concatenate(rows), mode="r"), dtype=np.float64)


def _solve(matrix: Floats, wanted: Floats) -> Floats:
    lengths = np.linalg.norm(matrix, axis=0)
    lengths[lengths == 0.0] = 1.0
    unknowns = matrix.shape[1]
    damped = np.concatenate([matrix / lengths, np.sqrt(_RIDGE) * np.eye(unknowns)])
    found: Floats = np.linalg.lstsq(damped, np.concatenate([wanted, np.zeros(unknowns)]), rcond=None)[0]
    return np.asarray(found / lengths, dtype=np.float64)


def _rows(
    pair: Pair, species: Sequence[int], basis: PairBasis, slots: _Slots, weights: Weights, reference: Floats
) -> Floats:
    """What one configuration asks for: a row for each number of its label, the wanted number last."""
    structure, label = pair
    atoms = len(structure.numbers)
    types = types_of(structure.numbers, species)
    energy, forces, virial, push = _design(structure, types, basis, slots)
    shifted = label.energy - float(reference[types].sum()) - push[0]
    blocks = [
        _joined(energy[None], np.array([shifted])) * (np.sqrt(weights.energy) / atoms),
        _joined(forces, np.array(label.forces).ravel() - push[1]) * np.sqrt(weights.forces / atoms),
    ]
    if label.stress is not None:
        volume = abs(float(np.linalg.det(np.array(structure.cell))))
        rows = _joined(virial, np.array(label.stress) * volume - push[2])
        blocks.append(rows * (_TWICE * np.sqrt(weights.stress) / atoms)[:, None])
    return np.concatenate(blocks)


def _joined(matrix: Floats, wanted: Floats) -> Floats:
    return np.concatenate([matrix, wanted[:, None]], axis=1)


def _design(
    structure: Structure, types: npt.NDArray[np.int32], basis: PairBasis, slots: _Slots
) -> tuple[Floats, Floats, Floats, tuple[float, Floats, Floats]]:
    """How energy, forces (3·atoms) and volume times stress (6) depend on the unknowns, and what is fixed of them."""
    positions = np.array(structure.positions, dtype=float).reshape(-1, 3)
    cell = enclosing_cell(positions, np.array(structure.cell), structure.pbc, basis.high)
    near = find_neighbours(positions, cell, basis.high)
    i, k = np.nonzero(~near.blank)
    j = near.js[i, k]
    vectors = near.shifts[i, k] @ cell + positions[j] - positions[i]
    distance = np.linalg.norm(vectors, axis=1)
    values, slopes = basis.values(distance)
    fixed, fixed_slope = basis.push(distance)
    unit = vectors / distance[:, None]
    dyads = (vectors[:, :, None] * unit[:, None, :]).reshape(-1, 9)[:, _VOIGT]
    energy = np.zeros(slots.unknowns)
    forces = np.zeros((len(positions), 3, slots.unknowns))
    virial = np.zeros((6, slots.unknowns))
    number = slots.pairs[types[i], types[j]]
    for which in np.unique(number):
        mine = number == which
        column = slice(which * slots.size, (which + 1) * slots.size)
        energy[column] = 0.5 * values[mine].sum(axis=0)
        virial[:, column] = 0.5 * dyads[mine].T @ slopes[mine]
        np.add.at(forces[:, :, column], i[mine], unit[mine][:, :, None] * slopes[mine][:, None, :])
    energy[slots.functions :] = np.bincount(types, minlength=slots.species)
    fixed_forces = np.zeros((len(positions), 3))
    np.add.at(fixed_forces, i, unit * fixed_slope[:, None])
    push = (0.5 * float(fixed.sum()), fixed_forces.ravel(), 0.5 * dyads.T @ fixed_slope)
    return energy, forces.reshape(-1, slots.unknowns), virial, push


def resampled(count: int, seed: int) -> list[int]:
    """How often each of ``count`` configurations comes when as many are drawn with replacement (Efron's bootstrap)."""
    drawn = np.random.default_rng(seed).integers(0, count, count)
    return [int(n) for n in np.bincount(drawn, minlength=count)]
