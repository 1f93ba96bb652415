"""The loss function of a fit and its slope, at a fraction of the price of differentiating each force.

The slope asks of the forces only one number: Σ_i ΔF_i·∂F_i/∂θ. As F = -∂E/∂r, that is the derivative of ∂E/∂θ along one
direction, in which each atom moves by its own force error (and the cell strains by its stress error):

    dL/dθ = 2 w_e ΔE/N² ∂E/∂θ + d/dt ∂E/∂θ(r + t·w),  w_ij = -2 (w_f/N) (ΔF_j - ΔF_i) + 2 (w_s V/N²) V Δσ r_ij

So the energy's gradient is carried along with its derivative in that direction (dual numbers, by hand), for all
configurations at once. motep's training mode makes the derivatives of all forces with respect to all coefficients
instead: the same numbers to rounding, for ten to twenty times the time (docs/benchmarks.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from motep.potentials.mtp.cext import _mtp_cext
from motep.potentials.mtp.data import MTPData
from numpy.polynomial import chebyshev

from tasks.chebyshev import derivative_matrix
from tasks.mtp.energy_gradient import EnergyGradient
from tasks.mtp.errors_of_fit import Pair, Weights
from tasks.mtp.training_blocks import Block, blocks_of

Floats = npt.NDArray[np.float64]
Types = npt.NDArray[np.int32]

#: bytes of what is remembered of the geometry; the rest is made anew at each evaluation
_REMEMBERED = 400_000_000


@dataclass(slots=True)
class _MomentValues:
    """The place where the C core writes the basis functions of each atom."""

    vatoms: Floats


@dataclass(frozen=True, slots=True)
class _Geometry:
    """What does not change while the coefficients do.

    Attributes:
        unit: unit vectors, (3, atoms, neighbours).
        distance: Å, (atoms, neighbours).
        radial: the functions of the radial basis over the distance, (basis, atoms, neighbours).
        slopes: their slopes, likewise.
        angular: products of direction cosines, (products, atoms, neighbours).
        sums: Σ_j of their products, (atoms, species·basis, products).
    """

    unit: Floats
    distance: Floats
    radial: Floats
    slopes: Floats
    angular: Floats
    sums: Floats


@dataclass(frozen=True, slots=True)
class _Errors:
    """Prediction minus label of a block: energies, forces, and volume times stress."""

    energies: Floats
    forces: Floats
    virials: Floats


class Loss:
    """The loss of one potential, changed in place by its user, on a training set.

    Args:
        potential: with coefficients.
        pairs: the training set.
        shifts: to be taken from the energy of each, eV.
        species: atomic numbers in the order of the types.
        weights: of :class:`tasks.mtp.errors_of_fit.Weights`.
    """

    def __init__(
        self, potential: MTPData, pairs: Sequence[Pair], shifts: Floats, species: Sequence[int], weights: Weights
    ) -> None:
        self._potential = potential
        self._weights = weights
        self._gradient = EnergyGradient(potential)
        self._count = len(pairs)
        self._blocks = list(blocks_of(pairs, shifts, species, float(potential.radial_basis.max)))
        self._remembered: dict[int, _Geometry] = {}
        self._room = _REMEMBERED
        self._errors: list[_Errors] = []

    def value(self) -> float:
        """The loss of the coefficients as they are now."""
        self._errors = [self._errors_of(block) for block in self._blocks]
        total = 0.0
        w = self._weights
        for block, error in zip(self._blocks, self._errors, strict=True):
            atoms = np.bincount(block.owner)
            squares = np.bincount(block.owner, (error.forces**2).sum(axis=1))
            virials = (error.virials**2).sum(axis=(1, 2))
            each = w.energy * (error.energies / atoms) ** 2 + w.forces * squares / atoms + w.stress * virials / atoms**2
            total += float(each.sum())
        return total / self._count

    def slope(self) -> Floats:
        """Its derivative by the coefficients, in motep's order, where :meth:`value` was asked last."""
        total: Floats = np.sum(
            [self._slope_of(block, error) for block, error in zip(self._blocks, self._errors, strict=True)], axis=0
        )
        return total / self._count

    def _errors_of(self, block: Block) -> _Errors:
        p, owner = self._potential, block.owner
        values = _MomentValues(np.zeros((int(p.alpha_scalar_moments), len(owner))))
        energies, pulls = _mtp_cext.calc_run(block.js, block.vectors, block.types, block.types[block.js], p, values)
        forces = _mtp_cext.calc_forces_from_gradient(pulls, block.js)
        each = block.vectors.transpose(0, 2, 1) @ pulls
        virials = np.zeros(block.virials.shape)
        np.add.at(virials, owner, 0.5 * (each + each.transpose(0, 2, 1)))
        return _Errors(
            np.bincount(owner, energies) - block.energies,
            forces - block.forces,
            (virials - block.virials) * block.stressed[:, None, None],
        )

    def _slope_of(self, block: Block, error: _Errors) -> Floats:
        w, owner = self._weights, block.owner
        atoms = np.bincount(owner).astype(float)
        share = (2.0 * w.energy * error.energies / atoms**2)[owner]
        moves = error.forces * (-2.0 * w.forces / atoms)[owner, None]
        strains = error.virials * (2.0 * w.stress / atoms**2)[:, None, None]
        along = moves[block.js] - moves[:, None, :] + block.vectors @ strains[owner]
        geometry = self._geometry(block)
        return self._dual(block.types, geometry, self._sums_along(block, geometry, along), share)

    def _geometry(self, block: Block) -> _Geometry:
        known = self._remembered.get(block.first)
        if known is not None:
            return known
        g, p = self._gradient, self._potential
        distance = np.sqrt(np.einsum("ikx,ikx->ik", block.vectors, block.vectors))
        unit = block.vectors.transpose(2, 0, 1) / distance
        low, high, size = float(p.radial_basis.min), float(p.radial_basis.max), int(p.radial_basis.size)
        left = np.maximum(high - distance, 0.0)
        radial = g.radial_basis(distance)
        # of T(x)·(high - r)²; T itself cannot be had from the product at the cutoff, so it is made again
        polynomials = chebyshev.chebvander((2.0 * distance - low - high) / (high - low), size - 1)
        derivative = polynomials @ derivative_matrix(size) * (2.0 / (high - low))
        slopes = (derivative * left[..., None] - 2.0 * polynomials) * left[..., None] * float(p.scaling)
        angular = g.cosines(unit)
        sums = self._by_species(block, radial) @ angular.transpose(1, 2, 0)
        slopes = np.ascontiguousarray(slopes.transpose(2, 0, 1))
        found = _Geometry(unit, distance, radial / distance, slopes, angular, sums)
        arrays = (found.unit, found.distance, found.radial, found.slopes, found.angular, found.sums)
        size_of = sum(array.nbytes for array in arrays)
        if size_of <= self._room:
            self._room -= size_of
            self._remembered[block.first] = found
        return found

    def _by_species(self, block: Block, functions: Floats) -> Floats:
        """Radial functions sorted by the species of the neighbour, (atoms, species·basis, neighbours)."""
        species = int(self._potential.species_count)
        if species > 1:
            mine = block.types[block.js][None] == np.arange(species)[:, None, None]
            functions = (mine[:, None] * functions[None]).reshape(-1, *functions.shape[1:])
        return functions.transpose(1, 0, 2)

    def _sums_along(self, block: Block, geometry: _Geometry, along: Floats) -> Floats:
        """The derivative of the pair sums when each neighbour moves by ``along``, (atoms, species·basis, products)."""
        w = along.transpose(2, 0, 1)
        outwards = (geometry.unit * w).sum(axis=0)
        turning = w - outwards * geometry.unit  # of the unit vector, times the distance
        angular = geometry.angular
        turned = np.zeros(angular.shape)
        for made, source, axis in self._gradient.steps:
            turned[made] = turned[source] * geometry.unit[axis] + angular[source] * turning[axis]
        found: Floats = self._by_species(block, geometry.slopes * outwards) @ angular.transpose(1, 2, 0)
        found += self._by_species(block, geometry.radial) @ turned.transpose(1, 2, 0)
        return found

    def _dual(self, types: Types, geometry: _Geometry, sums_along: Floats, share: Floats) -> Floats:
        """Σ over atoms of share·∂V/∂θ and of the derivative of ∂V/∂θ along the direction."""
        g, p = self._gradient, self._potential
        sums = geometry.sums
        atoms, species = len(types), int(p.species_count)
        radial = np.asarray(p.radial_coeffs)
        functions = radial.shape[2]
        weights = radial.transpose(0, 2, 1, 3).reshape(species, functions, -1)[types]
        m, dm = np.zeros((g.moments, atoms)), np.zeros((g.moments, atoms))
        m[: g.basic] = (weights @ sums)[:, g.mu, g.angular].T
        dm[: g.basic] = (weights @ sums_along)[:, g.mu, g.angular].T
        for layer in g.layers:
            m += layer.forwards @ (m[layer.left] * m[layer.right])
            dm += layer.forwards @ (dm[layer.left] * m[layer.right] + m[layer.left] * dm[layer.right])
        back, dback = np.zeros(m.shape), np.zeros(m.shape)
        back[g.mapping] = np.asarray(p.moment_coeffs)[:, None]
        for layer in reversed(g.layers):
            up, other = back[layer.upper], layer.other
            dback += layer.backwards @ (dback[layer.upper] * m[other] + up * dm[other])
            back += layer.backwards @ (up * m[other])
        by_moment = m[g.mapping] @ share + dm[g.mapping].sum(axis=1)
        by_species = np.bincount(types, share, minlength=species)
        shape = (atoms, functions, sums.shape[2])
        plain, carried = np.zeros(shape), np.zeros(shape)
        plain[:, g.mu, g.angular] = back[: g.basic].T
        carried[:, g.mu, g.angular] = (back[: g.basic] * share + dback[: g.basic]).T
        by_radial = np.zeros((species, functions, sums.shape[1]))
        for kind in range(species):
            mine = types == kind
            by_radial[kind] = np.tensordot(carried[mine], sums[mine], ([0, 2], [0, 2]))
            by_radial[kind] += np.tensordot(plain[mine], sums_along[mine], ([0, 2], [0, 2]))
        in_order = by_radial.reshape(species, functions, species, -1).transpose(0, 2, 1, 3)
        return np.concatenate([by_moment, by_species, in_order.ravel()])
