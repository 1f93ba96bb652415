"""One configuration of a ``.cfg`` file, and what it is as the records of the database.

The two differ in how elements are named (types from 0 against atomic numbers) and in the stress: PlusStress
is −V·σ in eV, a :class:`Label` has σ in eV/Å³; the order of the components is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers, chemical_symbols

from db.errors import InputError
from db.records import Label, Structure, Vector

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.float64] | npt.NDArray[np.str_]

_NAME_IT = "name all elements in `species` of pilot.toml, in the order of the potential's types"


@dataclass(frozen=True, eq=False)
class Configuration:
    """One configuration of a ``.cfg`` file.

    Attributes:
        types: type of each atom, from 0; (n,).
        positions: Cartesian, Å; (n, 3).
        cell: Å; the rows of ``Supercell``, then zero rows up to three.
        rows: how many rows of ``Supercell`` there are: the configuration is periodic along these.
        energy: eV, or None.
        forces: eV/Å, (n, 3), or None.
        plus_stress: −V·σ in eV, xx, yy, zz, yz, xz, xy (σ with ASE's sign), or None.
        columns: all other columns of ``AtomData`` by name, (n,) each: numbers, or words if they are not.
        features: (name, value) in the order of the file; a name may occur twice.
    """

    types: npt.NDArray[np.int64]
    positions: Floats
    cell: Floats
    rows: int = 3
    energy: float | None = None
    forces: Floats | None = None
    plus_stress: Floats | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    features: tuple[tuple[str, str], ...] = ()

    @property
    def pbc(self) -> tuple[bool, bool, bool]:
        """Periodic or not, along each row of the cell."""
        return (self.rows > 0, self.rows > 1, self.rows > 2)

    @property
    def site_energies(self) -> Column | None:
        """Energy of each atom, eV, or None."""
        return self.columns.get("site_en")

    @property
    def charges(self) -> Column | None:
        """Charge of each atom, or None."""
        return self.columns.get("charge")

    @property
    def nbh_grades(self) -> Column | None:
        """Extrapolation grade γ of each neighbourhood, or None."""
        return self.columns.get("nbh_grades")

    @property
    def magnetic_moments(self) -> dict[str, Column]:
        """The columns whose names begin with ``magmom``."""
        return {name: column for name, column in self.columns.items() if name.startswith("magmom")}

    def feature(self, name: str) -> str | None:
        """The value of the first feature of that name, or None."""
        return next((value for key, value in self.features if key == name), None)


def to_structure(configuration: Configuration, species: Sequence[str]) -> Structure:
    """The structure of a configuration.

    Args:
        configuration: its type i is the element ``species[i]``.
        species: chemical symbols.

    Raises:
        InputError: a type without an element, or a symbol that is no element.
    """
    numbers = _numbers(species)
    types = configuration.types.tolist()
    largest = max(types)
    if largest >= len(numbers):
        raise InputError(
            f"a configuration has an atom of type {largest}, but there are only {len(numbers)} species: "
            f"{', '.join(species)}",
            where="species",
            next_step=_NAME_IT,
        )
    a, b, c = _vectors(configuration.cell if configuration.rows else _box(configuration))
    return Structure(
        numbers=tuple([numbers[kind] for kind in types]),
        positions=_vectors(configuration.positions),
        cell=(a, b, c),
        pbc=configuration.pbc,
    )


def to_label(configuration: Configuration) -> Label | None:
    """The label of a configuration; None unless it has an energy and forces."""
    if configuration.energy is None or configuration.forces is None:
        return None
    stress = None
    volume = _volume(configuration.cell)
    if configuration.plus_stress is not None and configuration.rows == 3 and volume > 0:
        xx, yy, zz, yz, xz, xy = (-value / volume for value in configuration.plus_stress.tolist())
        stress = (xx, yy, zz, yz, xz, xy)
    return Label(float(configuration.energy), _vectors(configuration.forces), stress)


def from_structure(
    structure: Structure,
    label: Label | None,
    species: Sequence[str],
    features: Sequence[tuple[str, str]] = (),
    columns: Mapping[str, Column] | None = None,
) -> Configuration:
    """The configuration of a structure and, if there is one, its label.

    A ``.cfg`` file is periodic along its first rows, so the periodic rows of the cell come first and the
    others are left out; this changes the order of the rows, never a position.

    Args:
        columns: further columns of ``AtomData``, such as ``nbh_grades``, γ of each neighbourhood.

    Raises:
        InputError: an element that is not in ``species``.
    """
    numbers = _numbers(species)
    unknown = sorted({z for z in structure.numbers if z not in numbers})
    if unknown:
        names = ", ".join(chemical_symbols[z] for z in unknown)
        raise InputError(
            f"a structure has {names}, which is not among the species {', '.join(species)}",
            where="species",
            next_step=_NAME_IT,
        )
    periodic = [row for row, is_periodic in zip(structure.cell, structure.pbc, strict=True) if is_periodic]
    cell = np.zeros((3, 3))
    cell[: len(periodic)] = np.array(periodic).reshape(-1, 3)
    stress = None
    if label is not None and label.stress is not None and len(periodic) == 3:
        stress = -_volume(cell) * np.array(label.stress)
    return Configuration(
        types=np.array([numbers.index(z) for z in structure.numbers], dtype=np.int64),
        positions=np.array(structure.positions, dtype=np.float64).reshape(-1, 3),
        cell=cell,
        rows=len(periodic),
        energy=None if label is None else label.energy,
        forces=None if label is None else np.array(label.forces, dtype=np.float64).reshape(-1, 3),
        plus_stress=stress,
        columns=dict(columns or {}),
        features=tuple(features),
    )


def _numbers(species: Sequence[str]) -> list[int]:
    unknown = [symbol for symbol in species if atomic_numbers.get(symbol, 0) == 0]
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} is no chemical element (species: {', '.join(species)})",
            where="species",
            next_step="write chemical symbols such as Li or Pb",
        )
    return [int(atomic_numbers[symbol]) for symbol in species]


def _vectors(rows: Floats) -> tuple[Vector, ...]:
    return tuple((x, y, z) for x, y, z in np.asarray(rows, dtype=np.float64).tolist())


def _box(configuration: Configuration) -> Floats:
    """The room of a cluster that was cut out (feature ``box``, three lengths, Å): some engines cannot do without."""
    try:
        lengths = [float(word) for word in (configuration.feature("box") or "").split()]
    except ValueError:
        return configuration.cell
    return np.diag(lengths) if len(lengths) == 3 and 0.0 < min(lengths) <= max(lengths) < 1e9 else configuration.cell


def _volume(cell: Floats) -> float:
    # numpy's determinant costs as much as all the rest of a small cell
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    return abs(float(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)))
