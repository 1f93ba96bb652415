"""What MLIP's training begins with, and what it must have made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from db.records import Json
from tasks.engines.mlip_output import MlipError
from tasks.formats.almtp import read_active_set
from tasks.formats.mtp import ACTIVE_SET_MARK, parse_potential, read_potential
from tasks.mtp.basis import untrained
from tasks.mtp.errors_of_fit import Pair, Weights
from tasks.mtp.motep_fit import Fit

_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Made:
    """What a training has left.

    Attributes:
        potential: the trained one.
        active: configurations in MLIP's own active set; None without one.
    """

    potential: MTPData
    active: int | None


def starting_point(
    spec: Json, root: Path, pairs: Sequence[Pair], species: Sequence[int], weights: Weights
) -> tuple[MTPData, MTPData | None]:
    """The potential that MLIP is to begin with; and, for a warm start, the same once more.

    MLIP has no seed: from an untrained potential it comes to the same each time. So the further members of an ensemble
    begin with a pair potential from their own seed.

    Raises:
        InputError: the start or the template is none, or does not fit the settings.
    """
    size = int(spec["radial_basis_size"])
    basis = untrained(int(spec["level"]), len(species), float(spec["min_dist"]), float(spec["max_dist"]), size)
    if spec.get("start"):
        path = root / spec["start"]
        start = read_potential(path)
        if start.moment_coeffs is None:
            raise InputError("the start is not trained", where=str(path), next_step="leave `start` out")
        template = spec["settings"].get("template")
        like = read_potential(root / template) if template else basis
        refuse_other_kind(start, like, str(path), "start")
        if abs(float(start.radial_basis.min) - float(spec["min_dist"])) > _CLOSE:
            # another one would rescale the basis, and spoil the coefficients
            print(f"min_dist stays at the start's {float(start.radial_basis.min):g} Å", flush=True)
        return start, read_potential(path)
    if spec["settings"].get("template"):
        path = root / spec["settings"]["template"]
        template = read_potential(path)
        _refuse_other_basis(template, basis, str(path))
        if template.moment_coeffs is not None:
            return template, read_potential(path)
        basis = template
    if int(spec.get("member", 0)):
        fit = Fit(basis, pairs, species, weights)
        fit.from_level_2(int(spec["seed"]))
        fit.linear()
        fit.finish()
    return basis, None


def refuse_other_kind(start: MTPData, like: MTPData, where: str, name: str) -> None:
    """A potential with other functions or another cutoff has other coefficients.

    Raises:
        InputError: it is one.
    """
    pairs = {
        "number of species": (start.species_count, like.species_count),
        "level (number of basis functions)": (start.alpha_scalar_moments, like.alpha_scalar_moments),
        "number of radial functions": (start.radial_funcs_count, like.radial_funcs_count),
        "size of the radial basis": (start.radial_basis.size, like.radial_basis.size),
        "cutoff max_dist": (start.radial_basis.max, like.radial_basis.max),
    }
    for what, (has, wanted) in pairs.items():
        if abs(float(has) - float(wanted)) > _CLOSE:
            raise InputError(
                f"the {name} has another {what}: {has:g}, wanted {wanted:g}",
                where=where,
                next_step=f"train without `{name}`, or put the setting back to what it was",
            )


def _refuse_other_basis(template: MTPData, basis: MTPData, where: str) -> None:
    """What pilot.toml says of the radial basis must be what the template says."""
    pairs = {
        "species_count": (template.species_count, basis.species_count),
        "min_dist": (template.radial_basis.min, basis.radial_basis.min),
        "max_dist": (template.radial_basis.max, basis.radial_basis.max),
        "radial_basis_size": (template.radial_basis.size, basis.radial_basis.size),
    }
    for what, (has, wanted) in pairs.items():
        if abs(float(has) - float(wanted)) > _CLOSE:
            raise InputError(
                f"{what} is {has:g} in the template, {wanted:g} by pilot.toml",
                where=where,
                next_step="make them the same, in the template or in [train]",
            )


def read_trained(path: Path, begun_with: MTPData, *, active_set: bool) -> Made:
    """Read what MLIP has made, and prove that it is whole and of the same kind as what it was given.

    It is written during the fit, too, and not in one piece: only its reader can tell whether it is whole.

    Raises:
        MlipError: it is not.
    """
    try:
        content = path.read_bytes().split(ACTIVE_SET_MARK, 1)[0]
        if b"\nscaling" not in content:
            # MLIP leaves it out when it is 1
            content = content.replace(b"\nspecies_count", b"\nscaling = 1.0\nspecies_count", 1)
        potential = parse_potential(content, str(path))
        refuse_other_kind(potential, begun_with, str(path), "result")
        rows = read_active_set(path).rows if active_set else ()
    except (InputError, OSError) as error:
        what = error.what if isinstance(error, InputError) else error.strerror
        raise MlipError(f"what MLIP has trained cannot be used: {what}", where=str(path)) from error
    if potential.moment_coeffs is None:
        raise MlipError("what MLIP has trained has no coefficients", where=str(path))
    if abs(float(potential.radial_basis.min) - float(begun_with.radial_basis.min)) > _CLOSE:
        raise MlipError(
            f"MLIP has moved min_dist from {float(begun_with.radial_basis.min):g} to "
            f"{float(potential.radial_basis.min):g} Å, which it was told not to do"
        )
    return Made(potential, len(set(rows) - {-1}) if active_set else None)
