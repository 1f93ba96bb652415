"""Blocks of ``.cfg`` in the layout that the programs write, converted at once: nearly all there are.

Whatever is not exactly so is left to ``cfg_parser``, which understands more, counts lines, and says what is wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tasks.formats.configuration import Column, Configuration

_STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")
_DIGITS = 9
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the columns of an AtomData line stand; ``others`` are neither type, position, force nor id."""

    width: int
    type: int
    id: int | None
    positions: int
    forces: int | None
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class _Tail:
    """What stands below the atoms."""

    energy: list[str]
    stress: list[str]
    features: tuple[tuple[str, str], ...]


def configuration_of(lines: Sequence[str]) -> Configuration | None:
    """The configuration in the lines from BEGIN_CFG to END_CFG; None if the layout is an unusual one, or wrong."""
    if len(lines) < 6 or lines[0].strip() != "BEGIN_CFG" or lines[1].strip() != "Size":
        return None
    size = lines[2].strip()
    rows = 3 if lines[3].strip() == "Supercell" else 0
    head = 4 + rows if rows else 3
    layout = _layout(lines[head]) if head < len(lines) else None
    if layout is None or not _is_count(size) or head + 1 + int(size) >= len(lines):
        return None
    n = int(size)
    tail = _tail(lines[head + 1 + n : -1])
    if tail is None:
        return None
    atoms = lines[head + 1 : head + 1 + n]
    table: list[str] = []
    for line in atoms:
        words = line.split()
        if len(words) != layout.width:
            return None
        table += words
    types = table[layout.type :: layout.width]
    # Python's own 1_0 and digits of other scripts are no numbers to anybody else
    text = "".join(atoms)
    if "_" in text or not text.isascii() or not _are_counts(types):
        return None
    cell = [line.split() for line in lines[4 : 4 + rows]]
    if any(len(words) != 3 for words in cell):
        return None
    values = _values([*table, *(word for words in cell for word in words), *tail.energy, *tail.stress])
    return None if values is None else _made(values, n, layout, rows, tail)


def _made(values: Floats, n: int, layout: _Layout, rows: int, tail: _Tail) -> Configuration | None:
    end = n * layout.width
    table = values[:end].reshape(n, layout.width)
    columns: dict[str, Column] = {name: table[:, place] for name, place in layout.others}
    if layout.id is not None and not (table[:, layout.id] == np.arange(1, n + 1)).all():
        return None
    forces = layout.forces
    cell = values[end : end + 3 * rows].reshape(3, 3) if rows else np.zeros((3, 3))
    rest = values[end + 3 * rows :]
    return Configuration(
        types=table[:, layout.type].astype(np.int64),
        positions=table[:, layout.positions : layout.positions + 3].copy(),
        cell=cell,
        rows=rows,
        energy=float(rest[0]) if tail.energy else None,
        forces=None if forces is None else table[:, forces : forces + 3].copy(),
        plus_stress=rest[len(tail.energy) :] if tail.stress else None,
        columns=columns,
        features=tail.features,
    )


def _values(words: list[str]) -> Floats | None:
    """The numbers, if all of them are finite."""
    try:
        numbers = list(map(float, words))
    except ValueError:
        return None
    # a sum is finite if its terms are, but for overflow, which is left to the careful reader too
    return np.array(numbers) if math.isfinite(sum(numbers)) else None


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and 0 < len(word) <= _DIGITS and int(word) > 0


def _are_counts(words: list[str]) -> bool:
    return "".join(words).isdigit() and max(map(len, words)) <= _DIGITS


@lru_cache(maxsize=64)
def _layout(line: str) -> _Layout | None:
    words = line.split()
    names = words[1:]
    if words[:1] != ["AtomData:"] or len(set(names)) != len(names) or "type" not in names:
        return None
    positions, forces = _triple(names, "cartes_x cartes_y cartes_z"), _triple(names, "fx fy fz")
    if positions is None or (forces is None and {"fx", "fy", "fz"} & set(names)):
        return None
    used = {"id", "type", "cartes_x", "cartes_y", "cartes_z", "fx", "fy", "fz"}
    others = tuple((name, place) for place, name in enumerate(names) if name not in used)
    place = names.index("id") if "id" in names else None
    return _Layout(len(names), names.index("type"), place, positions, forces, others)


def _triple(names: list[str], wanted: str) -> int | None:
    """Where three columns stand side by side."""
    first = wanted.split()[0]
    place = names.index(first) if first in names else 0
    return place if names[place : place + 3] == wanted.split() else None


def _tail(lines: Sequence[str]) -> _Tail | None:
    energy: list[str] = []
    stress: list[str] = []
    features: list[tuple[str, str]] = []
    place = 0
    while place < len(lines):
        words = lines[place].split(maxsplit=2)
        place += 1
        if len(words) > 1 and words[0] == "Feature":
            features.append((words[1], words[2].rstrip() if len(words) > 2 else ""))
        elif words == ["Energy"] and not energy and place < len(lines):
            energy = _row(lines[place], 1)
            place += 1
        elif words and words[0] == "PlusStress:" and not stress and place < len(lines):
            stress = _stress(words, _row(lines[place], 6))
            place += 1
        else:
            return None
        if words[0] != "Feature" and not (energy if words[0] == "Energy" else stress):
            return None
    if any("\0" in value for feature in features for value in feature):
        return None
    return _Tail(energy, stress, tuple(features))


def _stress(head: list[str], words: list[str]) -> list[str]:
    order = _ORDERS.get(tuple(" ".join(head[1:]).split()))
    return [words[place] for place in order] if order and words else []


def _row(line: str, width: int) -> list[str]:
    words = line.split()
    return words if len(words) == width and "_" not in line and line.isascii() else []


#: the orders in which the programs write the stress, and where ours then stand
_ORDERS: dict[tuple[str, ...], tuple[int, ...]] = {
    order: tuple(order.index(name) for name in _STRESS) for order in (_STRESS, ("xx", "yy", "zz", "xy", "xz", "yz"))
}
