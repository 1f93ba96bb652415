"""The fit itself: motep's linear steps, and scipy's BFGS with our own loss function between them."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from ase.calculators.singlepoint import SinglePointCalculator
from motep.loss import LossFunction, LossSetting
from motep.optimizers import Level2MTPOptimizer, LLSOptimizer
from motep.parallel import DummyMPIComm
from motep.potentials.mtp.data import MTPData
from scipy.optimize import OptimizeResult, minimize

from pilot import host
from tasks.formats.atoms import to_atoms
from tasks.mtp.errors_of_fit import Pair, Weights
from tasks.mtp.evaluations import SLOPE, VALUE, Evaluations
from tasks.mtp.loss import Loss
from tasks.mtp.reference import reference_energies

Floats = npt.NDArray[np.float64]

_ALL = ["species_coeffs", "moment_coeffs", "radial_coeffs"]
_SPEAK_EVERY_S = 10.0

logging.getLogger("motep").setLevel(logging.ERROR)


class Fit:
    """The fit of one potential, in place.

    The energies are shifted by one reference energy for each species, found by least squares, so that the
    minimiser never sees the hundreds of eV an atom that a DFT energy holds; :meth:`finish` puts them back.

    Args:
        potential: with coefficients, or none if :meth:`from_level_2` comes first.
        pairs: the training set.
        species: atomic numbers in the order of the types.
        weights: of the loss function.
    """

    def __init__(self, potential: MTPData, pairs: Sequence[Pair], species: Sequence[int], weights: Weights) -> None:
        self.potential = potential
        self.iterations = 0
        # motep takes the volumes of those with a stress by position, so these must come first
        ordered = sorted(pairs, key=lambda pair: pair[1].stress is None)
        self._reference, shifts = reference_energies(ordered, species)
        self._ask: Callable[[], Loss] = lambda: Loss(potential, ordered, shifts, species, weights)
        self._own: Loss | None = None
        potential.species = np.array(species, dtype=np.int32)
        if potential.species_coeffs is not None:
            potential.species_coeffs = potential.species_coeffs - self._reference
        images = []
        for (structure, label), shift in zip(ordered, shifts, strict=True):
            atoms = to_atoms(structure)
            known = {"energy": label.energy - shift, "forces": np.array(label.forces).reshape(-1, 3)}
            if label.stress is not None:
                known["stress"] = np.array(label.stress)
            atoms.calc = SinglePointCalculator(atoms, **known)
            images.append(atoms)
        self._images = images
        self._setting = LossSetting(
            energy_weight=weights.energy, forces_weight=weights.forces, stress_weight=weights.stress
        )

    def from_level_2(self, seed: int) -> None:
        """Start with what a pair potential can do: BFGS from random numbers gets stuck."""
        self.potential.initialize(np.random.default_rng(seed))
        Level2MTPOptimizer(self._of_motep()).optimize()
        self._balance()
        self._own = None  # it remembers the scaling

    def _of_motep(self) -> LossFunction:
        """motep's loss function, as its linear steps want it; what it holds of each configuration is large."""
        return LossFunction(self._images, self.potential, self._setting, comm=DummyMPIComm())

    def _balance(self) -> None:
        """Write the same potential with coefficients of like size, as a minimiser wants them.

        Only products of scaling, radial and moment coefficients have a meaning. With the smooth cutoff of order 1
        and each radial function of length 1/2 the minimiser gets further in as many steps.
        """
        p = self.potential
        scaling = 1.0 / (float(p.radial_basis.max) - float(p.radial_basis.min)) ** 2
        radial = np.array(p.radial_coeffs) * (float(p.scaling) / scaling)
        lengths = np.sqrt((radial**2).sum(axis=(0, 1, 3))) / len(radial)
        factors = np.where(lengths > 0.0, 0.5 / np.where(lengths > 0.0, lengths, 1.0), 1.0)
        moments = np.array(p.moment_coeffs)
        moments[0] /= factors[0]  # the others are zero so far
        p.scaling, p.moment_coeffs = scaling, moments
        p.radial_coeffs = radial * factors[None, None, :, None]

    def linear(self) -> None:
        """Solve for the moment and species coefficients exactly; kept only if the loss is smaller than before."""
        before, value = self.parameters, self.loss()
        LLSOptimizer(self._of_motep()).optimize()
        after = self.loss()
        if not after <= value:
            self._set(before)

    def nonlinear(self, iterations: int, evaluations: Evaluations, heed: Callable[[], bool]) -> bool:
        """Minimise over all coefficients by BFGS.

        Args:
            iterations: at most.
            evaluations: those that are known from before; new ones are added.
            heed: asked after each evaluation whether to stop there.

        Returns:
            Whether it was stopped.
        """
        begin = best = self.parameters
        value = self.loss()
        spoken = host.monotonic()

        def look_up(intermediate_result: OptimizeResult) -> None:
            nonlocal best, spoken
            self.iterations += 1
            best = intermediate_result.x
            if host.monotonic() - spoken > _SPEAK_EVERY_S:
                spoken = host.monotonic()
                print(f"iteration {self.iterations} of {iterations}: loss {intermediate_result.fun:.6e}", flush=True)

        objective = _Objective(self, evaluations, heed)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = minimize(
                    objective.value,
                    begin,
                    jac=objective.slope,
                    method="BFGS",
                    callback=look_up,
                    options={"maxiter": iterations, "gtol": 1e-9},
                )
        except _StoppedError:
            self._set(best)
            return True
        self._set(found.x if found.fun <= value else begin)
        return False

    @property
    def parameters(self) -> Floats:
        """All coefficients, as they are now."""
        self.potential.optimized = list(_ALL)
        return np.array(self.potential.parameters, dtype=np.float64)

    def loss(self) -> float:
        """The loss function of the coefficients as they are now."""
        return self._mine().value()

    def at(self, parameters: Floats) -> float:
        """The loss function of other coefficients, which stay."""
        self._set(parameters)
        return self._mine().value()

    def slope(self) -> Floats:
        """Its derivative by the coefficients where it was asked for last."""
        return self._mine().slope()

    def _mine(self) -> Loss:
        self._own = self._own or self._ask()
        return self._own

    def finish(self) -> None:
        """Put the reference energies back into the potential; nothing can be fitted after that."""
        self.potential.optimized = list(_ALL)
        self.potential.species_coeffs = np.asarray(self.potential.species_coeffs) + self._reference

    def _set(self, parameters: Floats) -> None:
        self.potential.optimized = list(_ALL)
        self.potential.parameters = np.array(parameters)


class _StoppedError(Exception):
    """Carries a stop through the minimiser."""


class _Objective:
    """Loss and slope, remembered; the slope is that of the last loss, so the point is checked."""

    def __init__(self, fit: Fit, evaluations: Evaluations, heed: Callable[[], bool]) -> None:
        self._fit = fit
        self._evaluations = evaluations
        self._heed = heed
        self._point: Floats = np.empty(0)

    def value(self, parameters: Floats) -> float:
        known = self._evaluations.recall(VALUE, parameters)
        if known is None:
            known = np.array([self._compute(parameters)])
            self._evaluations.add(VALUE, parameters, known)
        self._look_up()
        return float(known[0])

    def slope(self, parameters: Floats) -> Floats:
        known = self._evaluations.recall(SLOPE, parameters)
        if known is None:
            if not np.array_equal(parameters, self._point):
                self._compute(parameters)
            known = self._fit.slope()
            self._evaluations.add(SLOPE, parameters, known)
        self._look_up()
        return known.copy()

    def _compute(self, parameters: Floats) -> float:
        self._point = parameters.copy()
        return self._fit.at(self._point)

    def _look_up(self) -> None:
        if self._heed():
            raise _StoppedError
