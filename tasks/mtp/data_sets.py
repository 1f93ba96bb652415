"""Sets of configurations as the steps use them: records with labels and features, read from and written to ``.cfg``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers

from db.errors import InputError
from db.records import Json, Label, Structure
from tasks.formats.cfg import Configuration, from_structure, read_cfg, to_label, to_structure, write_cfg


@dataclass(frozen=True, slots=True)
class Sample:
    """A configuration, what the reference says of it if anything, its features, and γ of each atom if that is known."""

    structure: Structure
    label: Label | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    grades: npt.NDArray[np.float64] | None = field(default=None, compare=False)


def symbols_of(spec: Json) -> list[str]:
    """The chemical symbols of a spec, in the order of the potential's types."""
    return [str(symbol) for symbol in spec["species"]]


def numbers_of(symbols: Sequence[str]) -> list[int]:
    """Their atomic numbers.

    Raises:
        InputError: no such element.
    """
    unknown = [symbol for symbol in symbols if not atomic_numbers.get(symbol)]
    if unknown:
        raise InputError(f"{', '.join(unknown)} is no element", next_step="mend `species` in pilot.toml")
    return [int(atomic_numbers[symbol]) for symbol in symbols]


def read_samples(path: Path, symbols: Sequence[str]) -> list[Sample]:
    """All configurations of a file; an empty file has none.

    Raises:
        InputError: the file is not there or is not a ``.cfg`` file, or has a type without an element.
    """
    return list(stream_samples(path, symbols))


def stream_samples(path: Path, symbols: Sequence[str]) -> Iterator[Sample]:
    """As :func:`read_samples`, one by one."""
    for c in read_cfg(path):
        grades = None if c.nbh_grades is None or c.nbh_grades.dtype.kind == "U" else np.asarray(c.nbh_grades, float)
        yield Sample(to_structure(c, symbols), to_label(c), dict(c.features), grades)


def read_labelled(path: Path, symbols: Sequence[str]) -> list[tuple[Structure, Label]]:
    """All configurations of a file with their labels.

    Raises:
        InputError: as :func:`read_samples`, or there is none, or one has no energy or forces.
    """
    pairs = []
    for number, sample in enumerate(read_samples(path, symbols), start=1):
        if sample.label is None:
            raise InputError(
                f"configuration {number} has no energy or no forces",
                where=str(path),
                next_step="label it, or take it out of the file",
            )
        pairs.append((sample.structure, sample.label))
    if not pairs:
        raise InputError("there is no configuration in this file", where=str(path))
    return pairs


def write_samples(path: Path, samples: Iterable[Sample], symbols: Sequence[str]) -> int:
    """Write them, the file appearing whole; returns how many there were.

    Raises:
        InputError: an element that is not among the symbols.
        StorageError: the disk refuses.
    """
    return write_cfg(path, (_configuration(sample, symbols) for sample in samples))


def _configuration(sample: Sample, symbols: Sequence[str]) -> Configuration:
    columns = None if sample.grades is None else {"nbh_grades": sample.grades}
    return from_structure(sample.structure, sample.label, symbols, tuple(sample.features.items()), columns)
