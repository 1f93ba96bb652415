"""Configurations in MLIP's ``.cfg`` format, as they are written by MLIP-2, MLIP-3, motep and LAMMPS runs.

A file is a row of ``BEGIN_CFG … END_CFG`` blocks. What varies between writers, and is understood here: any
notation of numbers, 0 to 3 rows of ``Supercell``, the columns of ``AtomData`` (they are named in the line),
Cartesian or direct coordinates, the order of the components of ``PlusStress``. Columns that we do not know
are kept. Everything is Å, eV and eV/Å; ``PlusStress`` is −V·σ in eV with ASE's sign of σ.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import InputError
from tasks.formats.cfg_parser import Block, bad, number, read_blocks
from tasks.formats.cfg_quick import configuration_of
from tasks.formats.configuration import Column, Configuration, Floats, from_structure, to_label, to_structure
from tasks.formats.whole import beside

__all__ = [
    "Configuration",
    "format_cfg",
    "from_structure",
    "parse_cfg",
    "read_cfg",
    "to_label",
    "to_structure",
    "write_cfg",
]

_CARTESIAN = ("cartes_x", "cartes_y", "cartes_z")
_DIRECT = ("direct_x", "direct_y", "direct_z")
_FORCES = ("fx", "fy", "fz")
_STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")
#: so many digits has no type, and no more fit into a number of the machine
_DIGITS = 9
#: so many lines of a block are held: a file without END_CFG is not read into memory
_LONG = 200_000


def read_cfg(path: Path) -> Iterator[Configuration]:
    """Read the configurations of a file one by one; an empty file has none.

    Raises:
        InputError: the file cannot be read, is cut short, or is not a ``.cfg`` file; it names the line.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from parse_cfg(lines, str(path))
    except OSError as error:
        raise InputError(
            f"cannot read the configurations: {error.strerror}",
            where=str(path),
            next_step="check the name of the file and its permissions",
        ) from error


def parse_cfg(lines: Iterable[str], where: str) -> Iterator[Configuration]:
    """Read configurations from lines of text.

    Raises:
        InputError: as :func:`read_cfg`; ``where`` is the file it names.
    """
    taken: list[str] = []
    begun = 0
    rest = iter(lines)
    for line in rest:
        if taken or not line.isspace():
            taken.append(line)
        else:
            begun += 1
        if "END_CFG" in line and line.strip() == "END_CFG":
            found = configuration_of(taken)
            if found is None:
                yield from map(_configuration, read_blocks(taken, where, begun))
            else:
                yield found
            begun += len(taken)
            taken = []
        elif len(taken) > _LONG:
            break
    # what is long is read as it comes; of what is cut off it is said where
    yield from map(_configuration, read_blocks(chain(taken, rest), where, begun))


def write_cfg(path: Path, configurations: Iterable[Configuration]) -> int:
    """Write configurations one by one; the file appears whole, or not at all if ``configurations`` raises.

    Returns:
        how many there were.

    Raises:
        StorageError: the file cannot be written.
    """
    count = 0
    with beside(path) as new, new.open("w", encoding="utf-8") as file:
        for configuration in configurations:
            file.write(format_cfg(configuration))
            count += 1
    return count


def format_cfg(configuration: Configuration) -> str:
    """The text of one configuration; every number comes back from it exactly."""
    c = configuration
    lines = ["BEGIN_CFG", " Size", f"    {len(c.types)}"]
    if c.rows:
        lines += [" Supercell", *(f"    {_numbers(row)}" for row in c.cell[: c.rows])]
    table = _atom_table(c)
    lines.append(f" AtomData:  {' '.join(table)}")
    lines += [f"    {' '.join(row)}" for row in zip(*table.values(), strict=True)]
    if c.energy is not None:
        lines += [" Energy", f"    {float(c.energy)!r}"]
    if c.plus_stress is not None:
        lines += [f" PlusStress:  {' '.join(_STRESS)}", f"    {_numbers(c.plus_stress)}"]
    # a value is what stands in one line
    lines += [f" Feature   {name}\t{' '.join(value.splitlines())}" for name, value in c.features]
    return "\n".join([*lines, "END_CFG", "", ""])


def _atom_table(c: Configuration) -> dict[str, Sequence[str]]:
    """The columns of AtomData, first what MLIP writes first, then the other columns as they came."""
    n = len(c.types)
    table: dict[str, Sequence[str]] = {
        "id": _words(c.columns["id"]) if "id" in c.columns else list(map(str, range(1, n + 1))),
        "type": list(map(str, c.types.tolist())),
    }
    table |= zip(_CARTESIAN, _vector_words(c.positions), strict=True)
    if "site_en" in c.columns:
        table["site_en"] = _words(c.columns["site_en"])
    if c.forces is not None:
        table |= zip(_FORCES, _vector_words(c.forces), strict=True)
    table |= {name: _words(column) for name, column in c.columns.items() if name not in table}
    return table


def _vector_words(rows: Floats) -> list[list[str]]:
    words = list(map(repr, np.asarray(rows, dtype=np.float64).ravel().tolist()))
    return [words[axis::3] for axis in range(3)]


def _words(column: Column) -> list[str]:
    if column.dtype.kind == "U":
        return [str(word) for word in column]
    return [_word(number) for number in np.asarray(column, dtype=np.float64).tolist()]


def _word(number: float) -> str:
    # whole numbers as such: ids and charges are usually that
    return str(int(number)) if number.is_integer() and abs(number) < 1e9 and str(number) != "-0.0" else repr(number)


def _numbers(row: Floats) -> str:
    return " ".join(map(repr, np.asarray(row, dtype=np.float64).tolist()))


def _configuration(block: Block) -> Configuration:
    """Give the pieces of a block their meaning."""
    n = block.size
    rows = len(block.cell)
    cell = np.zeros((3, 3))
    for place, (words, line) in enumerate(block.cell):
        cell[place] = block.numbers(words, line)
    types = _types(block)
    table = _table(block)
    table.pop("type")
    if all(name in table for name in _CARTESIAN):
        positions = _take(block, table, _CARTESIAN)
    elif all(name in table for name in _DIRECT) and rows == 3:
        positions = _take(block, table, _DIRECT) @ cell
    else:
        raise bad(
            "the columns cartes_x cartes_y cartes_z are missing (or direct_x direct_y direct_z with three "
            "rows of Supercell)",
            block.where,
            block.atoms_line,
        )
    forces = _take(block, table, _FORCES) if any(name in table for name in _FORCES) else None
    ids = table.get("id")
    if ids is not None and ids.dtype.kind == "f" and (ids == np.arange(1, n + 1)).all():
        del table["id"]
    elif ids is not None and len(np.unique(ids)) != n:
        raise bad("the column id names an atom twice", block.where, block.atoms_line)
    return Configuration(
        types,
        positions,
        cell,
        rows,
        energy=None if block.energy is None else block.numbers([block.energy[0]], block.energy[1])[0],
        forces=forces,
        plus_stress=_plus_stress(block),
        columns=table,
        features=tuple(block.features),
    )


def _table(block: Block) -> dict[str, Column]:
    """The columns of AtomData by name."""
    if block.plain:
        try:
            # all of a block at once: this is where the time of large files goes
            values = np.array(list(map(float, block.words))).reshape(block.size, -1)
        except ValueError:
            pass
        else:
            return {name: values[:, place] for place, name in enumerate(block.names)}
    return {name: _column(block.column(name)) for name in block.names}


def _types(block: Block) -> npt.NDArray[np.int64]:
    words = block.column("type") if "type" in block.names else [""]
    text = "".join(words)
    if not (text.isascii() and text.isdigit() and max(map(len, words)) <= _DIGITS):
        raise bad("the column type is missing, or is not whole numbers from 0", block.where, block.atoms_line)
    return np.array(list(map(int, words)), dtype=np.int64)


def _take(block: Block, table: dict[str, Column], names: tuple[str, str, str]) -> Floats:
    missing = [name for name in names if name not in table]
    if missing:
        raise bad(f"of the columns {' '.join(names)} {' '.join(missing)} is missing", block.where, block.atoms_line)
    taken = np.empty((block.size, 3))
    for axis, name in enumerate(names):
        column = table.pop(name)
        if column.dtype.kind != "f" or not np.isfinite(column).all():
            for row, word in enumerate(block.column(name)):
                block.numbers([word], block.atoms_line + 1 + row)
        taken[:, axis] = column
    return taken


def _column(words: list[str]) -> Column:
    try:
        return np.array([number(word) for word in words], dtype=np.float64)
    except ValueError:
        return np.array(words, dtype=np.str_)


def _plus_stress(block: Block) -> Floats | None:
    if block.stress is None:
        return None
    names, words, line = block.stress
    if sorted(names) != sorted(_STRESS) or len(words) != len(_STRESS):
        raise bad("PlusStress needs the six components xx yy zz yz xz xy", block.where, line)
    if len(block.cell) in {1, 2}:
        raise bad("PlusStress needs three rows of Supercell, or none", block.where, line)
    values = dict(zip(names, block.numbers(words, line), strict=True))
    return np.array([values[name] for name in _STRESS])
