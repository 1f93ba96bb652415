"""The active set that MLIP-3 keeps in an ``.almtp`` file behind the potential.

The layout, as observed in a file of MLIP-3 for a level-8 potential of one species (m = 26 parameters, 23
configurations in the active set) and checked against the grades that MLIP-3 itself printed for it:

- the text of an ``.mtp``;
- a line ``#MVS_v1.1``;
- five lines ``name value``: energy_weight, force_weight, stress_weight, site_en_weight, weight_scaling;
- the character ``#``, and with no line end after it
- m·m doubles (little-endian, row by row): A, one row for each member of the active set;
- m·m doubles: the *transpose* of A⁻¹;
- a line end, a line ``#``, and m lines of two numbers: for each row of A the index of its configuration in
  the list below, and an index of the neighbourhood (0 throughout when whole configurations are selected);
  ``-1 -1`` where the row is unused: such a row of A is 10⁻⁶ times that of the identity;
- a line ``#``, and the configurations of the active set as in a ``.cfg`` file.

A row of A is dE/dθ over N, the number of atoms (weight_scaling 2), with the parameters θ in the order of
the file: radial coefficients, species coefficients, moment coefficients.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from tasks.formats.cfg import Configuration, parse_cfg
from tasks.formats.cfg_parser import number
from tasks.formats.mtp import ACTIVE_SET_MARK, parse_potential

Floats = npt.NDArray[np.float64]

#: the index of a configuration or -1, and the index of a neighbourhood
_ROW = re.compile(r"(-1|[0-9]{1,9})\s+-?[0-9]{1,9}")
_WEIGHTS = ("energy_weight", "force_weight", "stress_weight", "site_en_weight", "weight_scaling")


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """The active set of an ``.almtp`` file.

    Attributes:
        matrix: A, (m, m), its rows dE/dθ of the members, per atom, θ in the order of the file.
        inverse: A⁻¹, (m, m); γ = max|b·A⁻¹| for a row b made like those of A.
        configurations: the members.
        weights: the five weights by name.
        rows: for each row of A the index of its configuration, or -1.
        first_line: the mark of the file with the version of the layout, such as ``#MVS_v1.1``.
    """

    matrix: Floats
    inverse: Floats
    configurations: tuple[Configuration, ...]
    weights: Mapping[str, float]
    rows: tuple[int, ...]
    first_line: str


def read_active_set(path: Path) -> ActiveSet:
    """Read the active set of an ``.almtp`` file.

    Raises:
        InputError: the file cannot be read, has no active set, is cut short, or its matrices are not the
            inverse of each other.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the potential: {error.strerror}",
            where=str(path),
            next_step="check the name of the file and its permissions",
        ) from error
    head, mark, tail = content.partition(ACTIVE_SET_MARK)
    potential = parse_potential(head, str(path))
    if not mark:
        raise _bad("the potential has no active set", path)
    species = int(potential.species_count)
    radial = species**2 * int(potential.radial_funcs_count) * int(potential.radial_basis.size)
    size = radial + species + int(potential.alpha_scalar_moments)
    version, _, tail = tail.partition(b"\n")
    weights, tail = _weights(tail, path)
    matrix, inverse, tail = _matrices(tail, size, path)
    rows, text = _rows(tail, size, path)
    configurations = tuple(parse_cfg(io.StringIO(text, newline=None), f"{path}, its active set"))
    if max(rows) >= len(configurations):
        raise _bad("the file is not whole: configurations of the active set are missing", path)
    return ActiveSet(matrix, inverse, configurations, weights, rows, (mark + version).decode("ascii", "replace"))


def per_atom_row(moments: Floats, species: Floats, radial: Floats, atoms: int) -> Floats:
    """A row b as MLIP makes it, from the derivatives of the energy in motep's three pieces.

    Args:
        moments: dE/dξ, (scalar moments,).
        species: dE/d(species coefficients), (species,).
        radial: dE/dc, (species, species, radial functions, radial basis).
        atoms: number of atoms of the configuration.

    Returns:
        (m,), in the order of the columns of :attr:`ActiveSet.matrix`.
    """
    return np.concatenate([radial.ravel(), species, moments]) / atoms


def _bad(what: str, path: Path) -> InputError:
    return InputError(
        what,
        where=str(path),
        next_step="make the active set again: `mlp select POTENTIAL TRAIN.cfg --save_to=POTENTIAL.almtp`",
    )


def _weights(tail: bytes, path: Path) -> tuple[dict[str, float], bytes]:
    weights: dict[str, float] = {}
    for name in _WEIGHTS:
        line, _, tail = tail.partition(b"\n")
        match = re.fullmatch(rb"(\w+)\s+(\S+)", line.strip())
        if match is None or match[1].decode("ascii", "replace") != name:
            raise _bad(f"{name} is missing from the active set, or the layout is of another version", path)
        try:
            weights[name] = number(match[2].decode("ascii", "replace"))
        except ValueError:
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise _bad(f"{name} of the active set is not a number", path)
    return weights, tail


def _matrices(tail: bytes, size: int, path: Path) -> tuple[Floats, Floats, bytes]:
    length = 8 * size * size
    if tail[:1] != b"#" or len(tail) < 1 + 2 * length:
        raise _bad(f"the file is not whole: two matrices of {size} by {size} numbers are missing", path)
    matrix = np.frombuffer(tail, "<f8", size * size, 1).reshape(size, size).astype(np.float64)
    inverse = np.frombuffer(tail, "<f8", size * size, 1 + length).reshape(size, size).T.astype(np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(inverse).all()):
        raise _bad("the matrices of the active set hold numbers that are not finite", path)
    # the inverse is updated step by step as rows are exchanged, so rounding gathers in it
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.abs(matrix @ inverse - np.eye(size)).max())
    # also when it is not a number
    if not error <= 1e-3:
        raise _bad(f"the matrices of the active set are not the inverse of each other (off by {error:.1e})", path)
    return matrix, inverse, tail[1 + 2 * length :]


def _rows(tail: bytes, size: int, path: Path) -> tuple[tuple[int, ...], str]:
    lines = io.StringIO(tail.decode("utf-8", "replace"), newline="\n")
    mark = next((line.strip() for line in lines if line.strip()), "")
    rows: list[int] = []
    while mark == "#":
        line = lines.readline()
        if line.strip() == "#" and len(rows) == size:
            return tuple(rows), lines.read()
        match = _ROW.fullmatch(line.strip())
        if match is None or len(rows) == size:
            break
        rows.append(int(match[1]))
    raise _bad(f"the file is not whole: the list of the {size} rows of the active set is missing", path)
