"""What one potential says of a crystal by itself: no reference is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from db.records import Structure
from tasks.model import Predictor
from tasks.validation.cells import scaled, volume_of
from tasks.validation.curve import Curve, lattice_parameter, relax
from tasks.validation.elastic import Constants, NoConstantsError, elastic_constants


@dataclass(frozen=True, slots=True)
class Crystal:
    """What one potential says of the crystal by itself.

    Attributes:
        lattice_parameter: Å.
        reasons: why something is missing: ``reason``, ``elastic_reason``.
    """

    curve: Curve | None = None
    lattice_parameter: float | None = None
    constants: Constants | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


def crystal_of(predictor: Predictor, structure: Structure | None, species: Sequence[int], *, elastic: bool) -> Crystal:
    """Its minimum of energy over volume and, if they are wanted, its elastic constants.

    Args:
        predictor: the potential.
        structure: a cell of the crystal, periodic in three directions; None: there is nothing to say.
        species: atomic numbers in the order of the types.
        elastic: whether they are wanted.
    """
    if structure is None:
        return Crystal()
    curve, reason = relax(predictor, structure, species)
    if curve is None:
        reasons = {"reason": reason} | ({"elastic_reason": reason} if elastic else {})
        return Crystal(reasons=reasons)
    parameter = lattice_parameter(structure, curve.volume)
    if not elastic:
        return Crystal(curve, parameter)
    scale = (curve.volume * len(structure.numbers) / volume_of(structure)) ** (1.0 / 3.0)
    try:
        constants = elastic_constants(predictor, scaled(structure, scale), species)
    except NoConstantsError as error:
        return Crystal(curve, parameter, reasons={"elastic_reason": str(error)})
    return Crystal(curve, parameter, constants)
