"""Elastic constants of a potential at its own minimum, where cell and atoms are at rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from ase.units import GPa

from db.records import Structure
from tasks.model import Predictor, Types, types_of
from tasks.mtp.neighbours import NonsenseCellError
from tasks.validation.elasticity import Form, deformation, form_of, moduli
from tasks.validation.symmetry import point_group, primitive

Floats = npt.NDArray[np.float64]

#: of the finite differences: the error is of the order of its square
_STRAIN = 1e-3
#: Å
_SHIFT = 1e-3
#: GPa and eV/Å: what is less counts as at rest
_REST_STRESS = 1e-3
_REST_FORCE = 1e-4
_MOST_STEPS = 40
#: so many steps go by one stiffness
_KEPT = 6
#: of a primitive cell: each costs six evaluations
_MOST_ATOMS = 64
#: no strain of a step of the relaxation is larger
_LONGEST = 0.02
#: Å; no atom moves further in one, along one axis
_FURTHEST = 0.1


class NoConstantsError(ValueError):
    """There are no elastic constants; why is its text."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Elastic constants.

    Attributes:
        named: the independent ones, GPa: C11, C12, C44 of a cubic crystal along its axes.
        moduli: ``bulk`` and ``shear``, GPa, and ``stable``; see :func:`tasks.validation.elasticity.moduli`.
        matrix: all of them, GPa.
    """

    named: dict[str, float]
    moduli: dict[str, float | bool]
    matrix: Floats = field(repr=False, compare=False)


def constants_in_gpa(form: Form, matrix: Floats, *, stable: bool = True) -> Constants:
    """The constants of a matrix in eV/Å³.

    Args:
        stable: whether the atoms are in a minimum of the energy.
    """
    in_gpa = matrix / GPa
    found = moduli(in_gpa)
    return Constants(form.named(in_gpa), found | {"stable": bool(found["stable"]) and stable}, in_gpa)


@dataclass(frozen=True, slots=True)
class _Response:
    """How stress and forces answer to small strains and displacements.

    Attributes:
        stress: of the cell itself, eV/Å³, (6,).
        forces: of the cell itself, eV/Å, (3 atoms,).
        components: Voigt components that were strained.
        clamped: ∂σ/∂ε with the atoms moving with the cell, (6, components).
        internal: ∂f/∂ε, (3 atoms, components).
        stiffness: −∂f/∂u, (3 atoms, 3 atoms).
        volume: Å³.
    """

    stress: Floats
    forces: Floats
    components: tuple[int, ...]
    clamped: Floats
    internal: Floats
    stiffness: Floats
    volume: float


@dataclass(frozen=True, slots=True)
class _Answered:
    """The same once the atoms have answered: constants and stress, eV/Å³, and where the atoms go.

    Attributes:
        compliant: inverse of the stiffness, without the shift of all atoms together.
        soft: the atoms themselves are not in a minimum.
    """

    constants: Floats
    stress: Floats
    compliant: Floats
    soft: bool


def elastic_constants(predictor: Predictor, structure: Structure, species: Sequence[int]) -> Constants:
    """The constants at the potential's own minimum of cell and atoms, with atoms that answer to the strain.

    Cell and atoms are relaxed first, by Newton's steps, as far as the symmetry of the crystal allows. From central
    differences of stress and forces come the constants of clamped atoms C⁰, the forces that a strain causes Λ and the
    stiffness of the atoms Φ; C = C⁰ − ΛᵀΦ⁻¹Λ/V (Born and Huang, Dynamical Theory of Crystal Lattices; in this form:
    Wu, Vanderbilt and Hamann, Phys. Rev. B 72, 035105 (2005)).

    Args:
        predictor: the potential.
        structure: near its minimum, at the right volume at least; any cell of the crystal.
        species: atomic numbers in the order of the types.

    Raises:
        NoConstantsError: there is no minimum near, or the cell is not one of matter.
    """
    cell = primitive(structure)
    if len(cell.numbers) > _MOST_ATOMS:
        raise NoConstantsError(f"the cell has {len(cell.numbers)} atoms, more than {_MOST_ATOMS}")
    form = form_of(point_group(cell))
    types = types_of(cell.numbers, species)
    positions, vectors = np.array(cell.positions, dtype=float), np.array(cell.cell, dtype=float)
    # what strains do to the atoms has to be known of all components
    components = form.components() if len(types) == 1 else tuple(range(6))
    try:
        response = _response(predictor, types, positions, vectors, components)
        for step in range(1, _MOST_STEPS):
            if _at_rest(response):
                if step > 1:  # how it answers may be that of a few steps before
                    response = _response(predictor, types, positions, vectors, components)
                answered = _answered(response, form)
                return constants_in_gpa(form, answered.constants, stable=not answered.soft)
            positions, vectors = _moved(positions, vectors, response, _answered(response, form))
            if step % _KEPT == 0:
                response = _response(predictor, types, positions, vectors, components)
            else:
                stress, forces = _ask(predictor, types, positions, vectors)
                response = replace(response, stress=stress, forces=forces)
    except NonsenseCellError as error:
        raise NoConstantsError(str(error)) from error
    raise NoConstantsError("cell and atoms do not come to rest near the minimum of the energy over the volume")


def _at_rest(response: _Response) -> bool:
    return bool(np.abs(response.stress).max() < _REST_STRESS * GPa and np.abs(response.forces).max() < _REST_FORCE)


def _ask(predictor: Predictor, types: Types, positions: Floats, vectors: Floats) -> tuple[Floats, Floats]:
    """Stress, (6,), and forces, (3 atoms,)."""
    predictor.forget()
    seen = predictor.predict(types, positions, vectors)
    if not (np.isfinite(seen.stress).all() and np.isfinite(seen.forces).all()):
        raise NonsenseCellError("forces or stress are not finite")
    return seen.stress, seen.forces.ravel()


def _response(
    predictor: Predictor, types: Types, positions: Floats, vectors: Floats, components: tuple[int, ...]
) -> _Response:
    def ask(p: Floats, v: Floats) -> tuple[Floats, Floats]:
        return _ask(predictor, types, p, v)

    stress, forces = ask(positions, vectors)
    clamped, internal = np.zeros((6, len(components))), np.zeros((forces.size, len(components)))
    for k, component in enumerate(components):
        plus, minus = (deformation(component, sign * _STRAIN) for sign in (1.0, -1.0))
        (s1, f1), (s0, f0) = ask(positions @ plus, vectors @ plus), ask(positions @ minus, vectors @ minus)
        clamped[:, k] = (s1 - s0) / (2.0 * _STRAIN)
        internal[:, k] = (f1 - f0) / (2.0 * _STRAIN)
    stiffness = np.zeros((forces.size, forces.size))
    if len(types) > 1:
        for k in range(forces.size):
            shift = np.zeros(forces.size)
            shift[k] = _SHIFT
            f1, f0 = (ask(positions + sign * shift.reshape(-1, 3), vectors)[1] for sign in (1.0, -1.0))
            stiffness[:, k] = (f0 - f1) / (2.0 * _SHIFT)
    volume = abs(float(np.linalg.det(vectors)))
    return _Response(stress, forces, components, clamped, internal, (stiffness + stiffness.T) / 2.0, volume)


def _answered(response: _Response, form: Form) -> _Answered:
    compliant = np.asarray(np.linalg.pinv(response.stiffness, rcond=1e-6, hermitian=True), dtype=float)
    slopes, stress = response.clamped, response.stress
    if len(response.components) == 6:
        slopes = slopes - response.internal.T @ compliant @ response.internal / response.volume
        stress = stress - response.internal.T @ (compliant @ response.forces) / response.volume
    matrix = form.solve({component: slopes[:, k] for k, component in enumerate(response.components)})
    if matrix is None:
        raise NoConstantsError("the strained components do not determine the constants")
    values = np.linalg.eigvalsh(response.stiffness)
    return _Answered(matrix, stress, compliant, soft=bool(values.min() < -1e-3 * np.abs(values).max()))


def _moved(positions: Floats, vectors: Floats, response: _Response, answered: _Answered) -> tuple[Floats, Floats]:
    """Newton's step of cell and atoms towards rest, not too long a one."""
    strain = -np.linalg.pinv(answered.constants, rcond=1e-9) @ answered.stress
    strain *= min(1.0, _LONGEST / max(float(np.abs(strain).max()), 1e-12))
    forces = response.forces + (response.internal @ strain[list(response.components)])
    shift = np.clip(answered.compliant @ forces, -_FURTHEST, _FURTHEST).reshape(-1, 3)
    turn = np.eye(3)
    for component in range(6):
        turn += deformation(component, float(strain[component])) - np.eye(3)
    return (positions + shift) @ turn, vectors @ turn
