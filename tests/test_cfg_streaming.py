"""Large .cfg files pass through in the memory of one configuration."""

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from db.errors import InputError
from tasks.formats.cfg import Configuration, format_cfg, parse_cfg, read_cfg, write_cfg
from tasks.formats.cfg_parser import read_blocks
from tasks.formats.cfg_quick import configuration_of

ATOMS = 50


def one() -> Configuration:
    rng = np.random.default_rng(1)
    return Configuration(
        types=np.arange(ATOMS) % 2,
        positions=rng.random((ATOMS, 3)),
        cell=np.eye(3) * 9.1,
        energy=-1.25,
        forces=rng.random((ATOMS, 3)),
        plus_stress=rng.random(6),
        columns={"nbh_grades": rng.random(ATOMS)},
        features=(("source", "a b"), ("MV_grade", "1.5")),
    )


def peak_of_copying(path: Path, megabytes: float) -> int:
    """Write a file of this size, read it and write it once more: the most memory that took, bytes."""
    configuration = one()
    number = int(megabytes * 1e6 / len(format_cfg(configuration)))

    def some() -> Iterator[Configuration]:
        return itertools.repeat(configuration, number)

    tracemalloc.start()
    try:
        assert write_cfg(path, some()) == number
        assert write_cfg(path.with_suffix(".copy.cfg"), read_cfg(path)) == number
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_file_five_times_as_large_takes_no_more_memory(tmp_path: Path) -> None:
    small, large = peak_of_copying(tmp_path / "small.cfg", 0.3), peak_of_copying(tmp_path / "large.cfg", 1.5)
    assert large < 1.1 * small + 100_000
    # held whole, the numbers alone would be more
    assert large < 1_000_000


def test_grades_of_neighbourhoods_come_back() -> None:
    configuration = one()
    (again,) = parse_cfg(format_cfg(configuration).splitlines(keepends=True), "x.cfg")
    assert again.nbh_grades is not None
    np.testing.assert_array_equal(again.nbh_grades, configuration.columns["nbh_grades"])
    assert again.features == configuration.features


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("END_CFG\n\nBEGIN_CFG", "BEGIN_CFG"),
        (" Energy\n", " Energie\n"),
        ("    -1.25", "    nan"),
        ("    -1.25", "    1_0"),
    ],
)
def test_the_line_of_a_mistake_is_counted_from_the_beginning_of_the_file(old: str, new: str) -> None:
    first, second = format_cfg(one()), (format_cfg(one()) * 2).replace(old, new, 1)
    lines = (first + second).splitlines(keepends=True)
    place = max(n for n, text in enumerate(lines, 1) if text.strip() == new.strip() and n < 2 + len(lines) * 2 // 3)
    with pytest.raises(InputError) as caught:
        list(parse_cfg(lines, "x.cfg"))
    assert caught.value.where == f"x.cfg, line {place}"


def test_the_quick_reader_and_the_careful_one_agree() -> None:
    lines = format_cfg(one()).splitlines(keepends=True)[:-1]
    quick = configuration_of(lines)
    assert quick is not None
    (block,) = read_blocks(lines, "x.cfg")
    assert block.size == len(quick.types)
    assert (
        [float(word) for word in block.column("fx")] == quick.forces[:, 0].tolist() if quick.forces is not None else 0
    )
    # whatever is unusual is left to the careful one
    for old, new in (("Size", "size"), ("type", "kind"), (" 0 ", " 0.5 "), ("-1.25", "1d0")):
        assert configuration_of([text.replace(old, new) for text in lines]) is None
