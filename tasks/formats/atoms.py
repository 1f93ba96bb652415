"""Structures in the formats of others: any file that ASE reads, and training sets to hand over."""

import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from db.errors import InputError, StorageError
from db.records import Label, Structure, Vector
from tasks.formats.cfg import from_structure, read_cfg, to_label, to_structure, write_cfg
from tasks.formats.given_files import bounded_memory, check_xyz
from tasks.formats.whole import beside

Row = tuple[Structure, Label | None]
#: what else is known of a configuration, by name
About = Mapping[str, str | int | float]

_XYZ = frozenset({".xyz", ".extxyz"})

#: what ASE's readers are known to raise on files that are not what they seem, beside what they call errors
READER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    sqlite3.Error,
    struct.error,
)


def to_atoms(structure: Structure, label: Label | None = None) -> Atoms:
    """A structure for ASE; its label, if there is one, becomes the results of a single-point calculator."""
    atoms = Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
    )
    if label is not None:
        results: dict[str, Any] = {
            "energy": label.energy,
            "free_energy": label.energy,
            "forces": np.array(label.forces).reshape(-1, 3),
        }
        if label.stress is not None:
            results["stress"] = np.array(label.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def from_atoms(atoms: Atoms) -> Row:
    """The structure of an ASE object, and its label if it carries an energy and forces.

    Where there is a free energy it is taken, as the forces are its derivatives.
    """
    a, b, c = _vectors(atoms.cell.array)
    structure = Structure(
        numbers=tuple(int(z) for z in atoms.numbers),
        positions=_vectors(atoms.positions),
        cell=(a, b, c),
        pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
    )
    results = {} if atoms.calc is None else atoms.calc.results
    energy = results.get("free_energy", results.get("energy"))
    forces = results.get("forces")
    if energy is None or forces is None:
        return structure, None
    stress = None
    if results.get("stress") is not None and all(structure.pbc):
        given = np.asarray(results["stress"], dtype=float)
        # readers give six components or a matrix
        six = given if given.shape == (6,) else given.reshape(9)[[0, 4, 8, 5, 2, 1]]
        xx, yy, zz, yz, xz, xy = (float(value) for value in six)
        stress = (xx, yy, zz, yz, xz, xy)
    return structure, Label(float(energy), _vectors(forces), stress)


def read_structures(path: Path, species: Sequence[str] = ()) -> list[Row]:
    """Read all structures of a file, with their labels where it has them.

    Args:
        path: any file that ASE reads, or a ``.cfg`` of MLIP, which is known by its BEGIN_CFG (``.cfg`` is
            also the suffix of AtomEye's files).
        species: the elements of the types 0, 1, …; needed for MLIP's ``.cfg`` only.

    Raises:
        InputError: the file cannot be read, or has no structure.
    """
    if is_mlip_cfg(path):
        if not species:
            raise InputError(
                "the file names its atoms by types, not by elements",
                where=str(path),
                next_step="name the elements of the types 0, 1, … with `species` in pilot.toml",
            )
        rows = [(to_structure(c, species), to_label(c)) for c in read_cfg(path)]
    else:
        rows = [_row(atoms, number, path) for number, atoms in enumerate(_read_with_ase(path), 1)]
    if not rows:
        raise InputError(
            "the file has no structure", where=str(path), next_step="check that the run that wrote it has finished"
        )
    return rows


def _row(atoms: Atoms, number: int, path: Path) -> Row:
    """A structure that was read, if it is one.

    Raises:
        InputError: it has no atoms, an unknown element, a number that is not finite, or no cell where it is periodic.
    """
    try:
        structure, label = from_atoms(atoms)
        problem = problem_of(structure, label)
    except (TypeError, ValueError) as error:
        problem = f"its numbers cannot be used ({error})"
    if problem:
        raise InputError(
            f"structure {number}: {problem}", where=str(path), next_step="mend it, or take it out of the file"
        )
    return structure, label


def problem_of(structure: Structure, label: Label | None) -> str:
    """Why this is no structure, or its label none; "" if all is well."""
    if not structure.numbers:
        return "it has no atoms"
    if not all(1 <= z < len(chemical_symbols) for z in structure.numbers):
        return "an atom of no known element"
    if not np.isfinite([*structure.positions, *structure.cell]).all():
        return "a position or a cell vector that is not finite"
    cell = np.array(structure.cell)[list(structure.pbc)]
    if np.linalg.matrix_rank(cell) < len(cell):
        return "it is periodic, and its cell has no volume"
    if label is None:
        return ""
    if len(label.forces) != len(structure.numbers):
        return f"forces of {len(label.forces)} of its {len(structure.numbers)} atoms"
    if not np.isfinite([label.energy, *(label.stress or ()), *np.ravel(label.forces)]).all():
        return "an energy, a force or a stress that is not finite"
    return ""


def is_mlip_cfg(path: Path) -> bool:
    """Whether the first words of a file are those of MLIP's ``.cfg`` format."""
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip().startswith(b"BEGIN_CFG")
    except OSError as error:
        raise InputError(
            f"cannot read the file: {error.strerror}",
            where=str(path),
            next_step="check the name of the file and its permissions",
        ) from error


def export_structures(path: Path, rows: Iterable[Row], species: Sequence[str]) -> int:
    """Write structures and labels of which nothing else is to be said; see :func:`export_described`."""
    return export_described(path, ((structure, label, {}) for structure, label in rows), species)


def export_described(path: Path, rows: Iterable[tuple[Structure, Label | None, About]], species: Sequence[str]) -> int:
    """Write a training set for others, one configuration after the other; the file appears whole.

    Args:
        path: its suffix decides the format: ``.extxyz`` or ``.xyz`` (positions to 10⁻⁸ Å), ``.db`` (ASE's
            database), ``.cfg`` (MLIP).
        rows: structures with their labels, and what is known of them: it becomes ``info`` of an extxyz, ``data`` of
            an ASE database, features of a ``.cfg``.
        species: the elements of the types 0, 1, … of a ``.cfg``.

    Returns:
        how many structures were written.

    Raises:
        InputError: another suffix, or an element that is not in ``species``.
        StorageError: the file cannot be written.
    """
    if path.suffix == ".cfg":
        return write_cfg(path, (from_structure(one, label, species, _features(about)) for one, label, about in rows))
    write = _WRITERS.get(path.suffix)
    if write is None:
        raise InputError(
            f"cannot tell the format from the suffix {path.suffix!r}",
            where=str(path),
            next_step="let the name end in .extxyz, .db or .cfg",
        )
    try:
        with beside(path) as new:
            return write(new, (_described(*row) for row in rows))
    except sqlite3.Error as error:
        raise StorageError(
            f"ASE's database cannot be written: {error}",
            where=str(path),
            next_step="free some room, or export to .extxyz",
        ) from error


def _described(structure: Structure, label: Label | None, about: About) -> Atoms:
    atoms = to_atoms(structure, label)
    atoms.info.update(about)
    return atoms


def _features(about: About) -> list[tuple[str, str]]:
    """``grade`` is what MLIP calls MV_grade; a name has no white space there."""
    return [("MV_grade" if name == "grade" else name.replace(" ", "_"), str(value)) for name, value in about.items()]


# ASE's readers and databases are loaded by who uses them: that takes a second or two, which a pilot that starts on many
# nodes of a shared disk has no use for


def _read_with_ase(path: Path) -> list[Atoms]:
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    try:
        if path.suffix in _XYZ:
            check_xyz(path)
        with bounded_memory(path):
            # a name may hold an @, after which ASE would look for an index
            images = ase.io.read(str(path), index=":", do_not_split_by_at_sign=True)
    except (*READER_ERRORS, ase.io.ParseError, UnknownFileTypeError) as error:
        raise InputError(
            f"ASE cannot read the file ({type(error).__name__}: {str(error)[:200]})",
            where=str(path),
            next_step="check that the file is whole, or convert it to extxyz",
        ) from error
    return list(images)


def _write_extxyz(path: Path, images: Iterator[Atoms]) -> int:
    import ase.io

    count = 0
    with path.open("w", encoding="utf-8") as file:
        for atoms in images:
            ase.io.write(file, atoms, format="extxyz")
            count += 1
    return count


def _write_database(path: Path, images: Iterator[Atoms]) -> int:
    import ase.db

    count = 0
    # no lock: nobody else knows this name, and not every shared file system can lock
    with ase.db.connect(str(path), type="db", append=False, use_lock_file=False) as database:
        for atoms in images:
            database.write(atoms, data=dict(atoms.info))
            count += 1
    return count


_WRITERS: dict[str, Callable[[Path, Iterator[Atoms]], int]] = {
    ".extxyz": _write_extxyz,
    ".xyz": _write_extxyz,
    ".db": _write_database,
}


def _vectors(rows: Any) -> tuple[Vector, ...]:
    return tuple((float(x), float(y), float(z)) for x, y, z in rows)
