"""The derivative of the energy with respect to every parameter of an MTP, without that of the forces.

motep's training mode computes the same numbers, but with them the derivatives of all forces, which cost an order
of magnitude more. Here the energy alone is differentiated: forwards from pair sums to moments, once backwards
from the energy to the basic moments (Shapeev, Multiscale Model. Simul. 14, 1153 (2016), eqs. 2-4, 10).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from motep.potentials.mtp.data import MTPData
from scipy.sparse import csr_array

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

#: matrices with more elements than this are kept sparse
_DENSE = 20_000
#: neighbourhoods whose rows are made together
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class _Layer:
    """Products of moments that need only moments of the layers before: m[product] += factor·m[left]·m[right].

    The sums are products with small matrices, as a call of numpy costs more than the arithmetic of a small cell.

    Attributes:
        forwards: (moments, products), holds the factors.
        backwards: (moments, 2·products), the same for the derivatives: left factors first, then right ones.
        other: the partner of each column of ``backwards``.
        upper: the product of each column of ``backwards``.
    """

    left: Index
    right: Index
    forwards: Any
    other: Index
    upper: Index
    backwards: Any


class EnergyGradient:
    """dE/dθ of one potential, θ in motep's order: moment, species, radial coefficients.

    Attributes:
        products: number of products of direction cosines.
        steps: how to make them, see :func:`_angular_steps`.
        angular: for each basic moment its product.
        mu: for each basic moment its radial function.
        basic: number of basic moments.
        moments: number of all moments.
        layers: how to make the others from the basic ones.
        mapping: which moments are the basis functions.
    """

    def __init__(self, potential: MTPData) -> None:
        basic = np.asarray(potential.alpha_index_basic)
        times = np.asarray(potential.alpha_index_times).reshape(-1, 4)
        powers, angular = np.unique(basic[:, 1:], axis=0, return_inverse=True)
        # sorted by degree, so that each is made from one that is there already
        by_degree = np.argsort(powers.sum(axis=1), kind="stable")
        place = np.argsort(by_degree)
        self.products = len(powers)
        self.steps = _angular_steps(powers[by_degree])
        self.angular = place[angular.reshape(-1)]
        self.mu = basic[:, 0].astype(np.intp)
        self.basic = len(basic)
        self.moments = int(potential.alpha_moments_count)
        self.layers = _layers(times, len(basic), self.moments)
        self.mapping = np.asarray(potential.alpha_moment_mapping).astype(np.intp)
        self._potential = potential

    def __call__(self, vectors: Floats, types: npt.NDArray[np.int32], js: npt.NDArray[np.int32]) -> Floats:
        """dE/dθ, (parameters,), of the whole configuration.

        Args:
            vectors: from each atom to its neighbours, Å, (atoms, most neighbours, 3).
            types: of the atoms, from 0.
            js: neighbours of each atom; blank ones lie at the cutoff, where all radial functions are zero.
        """
        species = int(self._potential.species_count)
        moments, each = self._derivatives(vectors, types, types[js])
        by_radial = np.zeros((species, *each.shape[1:]))
        if species == 1:
            by_radial[0] = each.sum(axis=0)
        else:
            np.add.at(by_radial, types, each)
        by_radial = by_radial.reshape(species, each.shape[1], species, -1).transpose(0, 2, 1, 3)
        counts = np.bincount(types, minlength=species).astype(float)
        return np.concatenate([moments.sum(axis=1), counts, by_radial.ravel()])

    def rows(self, vectors: Floats, types: npt.NDArray[np.int32], js: npt.NDArray[np.int32]) -> Floats:
        """dV/dθ of the neighbourhood of each atom, (atoms, parameters); their sum is dE/dθ.

        Args:
            vectors: as in :meth:`__call__`.
            types: as in :meth:`__call__`.
            js: as in :meth:`__call__`.
        """
        species = int(self._potential.species_count)
        found = []
        for begin in range(0, len(types), _BLOCK):  # by blocks, so that what lies between stays small
            block = slice(begin, begin + _BLOCK)
            mine = types[block]
            moments, each = self._derivatives(vectors[block], mine, types[js[block]])
            atoms, functions = each.shape[:2]
            by_radial = np.zeros((atoms, species, *each.shape[1:]))
            by_radial[np.arange(atoms), mine] = each
            by_radial = by_radial.reshape(atoms, species, functions, species, -1).transpose(0, 1, 3, 2, 4)
            own = (mine[:, None] == np.arange(species)).astype(float)
            found.append(np.concatenate([moments.T, own, by_radial.reshape(atoms, -1)], axis=1))
        return np.concatenate(found)

    def _derivatives(
        self, vectors: Floats, types: npt.NDArray[np.int32], others: npt.NDArray[np.int32]
    ) -> tuple[Floats, Floats]:
        """Of each atom: its basis functions, (functions, atoms), and dV/d(radial coefficients of its type).

        The latter as (atoms, radial functions, species·basis).

        Args:
            vectors: from each atom to its neighbours, Å.
            types: of the atoms.
            others: types of the neighbours.
        """
        atoms = len(types)
        sums = self._pair_sums(vectors, others)
        radial = np.asarray(self._potential.radial_coeffs)[types]  # (atoms, species, functions, basis)
        functions = radial.shape[2]
        weights = radial.transpose(0, 2, 1, 3).reshape(atoms, functions, -1)
        moments = np.zeros((self.moments, atoms))
        moments[: self.basic] = (weights @ sums)[:, self.mu, self.angular].T
        slopes = self._contract(moments)
        spread = np.zeros((atoms, functions, sums.shape[2]))
        spread[:, self.mu, self.angular] = slopes[: self.basic].T
        return moments[self.mapping], spread @ sums.transpose(0, 2, 1)

    def _pair_sums(self, vectors: Floats, others: npt.NDArray[np.int32]) -> Floats:
        """Σ_j Q_β(r_ij)·(product of direction cosines), (atoms, species·basis, angular)."""
        p = self._potential
        distance = np.sqrt(np.einsum("ikx,ikx->ik", vectors, vectors))
        unit = vectors.transpose(2, 0, 1) / distance
        angular = self.cosines(unit)
        basis = self.radial_basis(distance)
        species = int(p.species_count)
        if species > 1:
            mine = others[None] == np.arange(species)[:, None, None]
            basis = (mine[:, None] * basis[None]).reshape(-1, *distance.shape)
        sums: Floats = basis.transpose(1, 0, 2) @ angular.transpose(1, 2, 0)
        return sums

    def cosines(self, unit: Floats) -> Floats:
        """All products of direction cosines, (products, …), of unit vectors, (3, …)."""
        angular = np.empty((self.products, *unit.shape[1:]))
        angular[0] = 1.0
        for made, source, axis in self.steps:
            np.multiply(angular[source], unit[axis], out=angular[made])
        return angular

    def radial_basis(self, distance: Floats) -> Floats:
        """Chebyshev polynomials times the smooth cutoff (R_cut - r)², (basis, atoms, most neighbours)."""
        radial = self._potential.radial_basis
        low, high = float(radial.min), float(radial.max)
        size = int(radial.size)
        x = (2.0 * distance - (low + high)) / (high - low)
        basis = np.empty((size, *distance.shape))
        basis[0] = 1.0
        if size > 1:
            basis[1] = x
        top = 1
        while top < size - 1:  # T_{n+k} = 2 T_n T_k - T_{n-k}, a whole block at a time
            more = min(top, size - 1 - top)
            block = basis[top + 1 : top + more + 1]
            np.multiply(2.0 * basis[top], basis[1 : more + 1], out=block)
            block -= basis[top - more : top][::-1]
            top += more
        basis *= float(self._potential.scaling) * np.maximum(high - distance, 0.0) ** 2
        return basis

    def _contract(self, moments: Floats) -> Floats:
        """Fill in the products (in place) and return dE/dm of every moment, (moments, atoms)."""
        for layer in self.layers:
            moments += layer.forwards @ (moments[layer.left] * moments[layer.right])
        slopes = np.zeros(moments.shape)
        slopes[self.mapping] = np.asarray(self._potential.moment_coeffs)[:, None]
        for layer in reversed(self.layers):
            slopes += layer.backwards @ (slopes[layer.upper] * moments[layer.other])
        return slopes


def _angular_steps(powers: npt.NDArray[np.int32]) -> list[tuple[slice, Index, Index]]:
    """Degree by degree: which product to make, from which one, times which direction cosine.

    The tensors of a degree are complete in an MTP, so one component less is always there.
    """
    known = {tuple(int(n) for n in row): index for index, row in enumerate(powers)}
    degrees = powers.sum(axis=1)
    steps = []
    for degree in range(1, int(degrees.max(initial=0)) + 1):
        made = np.flatnonzero(degrees == degree)
        axes = np.argmax(powers[made] > 0, axis=1)
        lower = powers[made] - np.eye(3, dtype=powers.dtype)[axes]
        source = np.array([known[tuple(int(n) for n in row)] for row in lower], dtype=np.intp)
        steps.append((slice(int(made[0]), int(made[-1]) + 1), source, axes))
    return steps


def _layers(times: npt.NDArray[np.int32], basic: int, moments: int) -> list[_Layer]:
    """Sort the products by how many products they stand on."""
    depth = np.zeros(moments, dtype=int)
    depth[basic:] = 1
    for left, right, _, product in times:  # the file lists a moment before it is used
        depth[product] = max(depth[product], 1 + max(depth[left], depth[right]))
    layers = []
    for level in range(1, int(depth.max(initial=0)) + 1):
        rows = times[depth[times[:, 3]] == level] if len(times) else times
        if not len(rows):
            continue
        left, right, factor, product = (rows[:, k].astype(np.intp) for k in range(4))
        forwards = _scatter(product, factor, moments)
        backwards = _scatter(np.concatenate([left, right]), np.tile(factor, 2), moments)
        other, upper = np.concatenate([right, left]), np.tile(product, 2)
        layers.append(_Layer(left, right, forwards, other, upper, backwards))
    return layers


def _scatter(targets: Index, factors: Index, rows: int) -> Any:
    """The matrix that adds column k, times its factor, to row ``targets[k]``."""
    columns = np.arange(len(targets))
    matrix = csr_array((factors.astype(float), (targets, columns)), shape=(rows, len(targets)))
    return matrix.toarray() if rows * len(targets) <= _DENSE else matrix
