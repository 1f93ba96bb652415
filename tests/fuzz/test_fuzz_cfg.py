"""Configurations that are cut, mixed up or hostile: an error that names the line, or the numbers that stand there."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

import io
from pathlib import Path

import numpy as np
import pytest
from hostile import damaged, fuzzed, truncations, with_a_line_twice, without_a_line
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError
from db.records import Label, Structure
from tasks.formats.cfg import Configuration, format_cfg, parse_cfg, read_cfg, to_label, to_structure, write_cfg
from tasks.formats.configuration import from_structure

WHOLE = b"""\
BEGIN_CFG
 Size
    2
 Supercell
    4.5 0 0
    0 +5.0E0 0.25
    0 0 6.25
 AtomData:  id type cartes_x cartes_y cartes_z fx fy fz nbh_grades
    1 0 0.125 0.25 0.375 1e-3 -2E-3 0.003 1.25
    2 1 1.0000000000000002 2.5e+00 -1e-17 -1e-3 2E-3 -0.003 8.5
 Energy
    -4.123456789
 PlusStress:  xx yy zz yz xz xy
    1.5 2.5 3.5 4.5 5.5 6.5
 Feature   EFS_by\tVASP
 Feature   MV_grade\t2.71828
END_CFG

BEGIN_CFG
 Size
    1
 Supercell
    3.5 0 0
    0 3.5 0
    0 0 3.5
 AtomData:  id type cartes_x cartes_y cartes_z fx fy fz
    1 0 0.5 0.5 0.5 0 0 0
 Energy
    -1.987654321
END_CFG
"""


def read(data: bytes) -> list[Configuration]:
    text = data.decode("utf-8", "replace")
    return list(parse_cfg(io.StringIO(text, newline=None), "x.cfg"))


def meaning(c: Configuration) -> tuple[object, ...]:
    """All that training makes of it."""
    structure, label = to_structure(c, ["Li", "Pb"]), to_label(c)
    return structure, label, c.features


def same(a: Configuration, b: Configuration) -> bool:
    return meaning(a) == meaning(b)


def test_a_cut_file_gives_whole_configurations_or_an_error() -> None:
    first, second = read(WHOLE)
    for data in truncations(WHOLE):
        try:
            got = read(data)
        except InputError as error:
            assert error.where.startswith("x.cfg, line ")
            continue
        # after an END_CFG nothing says that more was to come
        assert len(got) in {0, 1} or data.strip() == WHOLE.strip()
        assert all(same(a, b) for a, b in zip(got, (first, second), strict=False)), data
        assert len(got) == data.count(b"END_CFG")


def test_a_lost_line_is_noticed_or_changes_no_number() -> None:
    whole = read(WHOLE)
    for data in without_a_line(WHOLE):
        try:
            got = read(data)
        except InputError:
            continue
        assert len(got) == 2
        for a, b in zip(got, whole, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)
            assert (a.energy, np.array_equal(a.forces, b.forces)) == (b.energy, True)  # type: ignore[arg-type]
            # the format allows configurations that are periodic in two directions, or without features
            assert a.rows == 2 or np.array_equal(a.cell, b.cell)
            assert set(a.features) <= set(b.features)


def test_a_line_that_stands_twice_is_noticed_or_changes_no_number() -> None:
    whole = read(WHOLE)
    for data in with_a_line_twice(WHOLE):
        try:
            got = read(data)
        except InputError:
            continue
        assert [(to_structure(c, ["Li", "Pb"]), to_label(c)) for c in got] == [
            (to_structure(c, ["Li", "Pb"]), to_label(c)) for c in whole
        ]


@fuzzed
@given(damaged(WHOLE))
def test_damage_gives_an_error_with_its_line_or_finite_numbers(data: bytes) -> None:
    try:
        got = read(data)
    except InputError as error:
        assert "line " in error.where
        return
    for c in got:
        n = len(c.types)
        assert n >= 1
        assert c.positions.shape == (n, 3)
        assert np.isfinite(c.positions).all()
        assert np.isfinite(c.cell).all()
        assert c.energy is None or np.isfinite(c.energy)
        assert c.forces is None or (c.forces.shape == (n, 3) and bool(np.isfinite(c.forces).all()))
        assert c.plus_stress is None or np.isfinite(c.plus_stress).all()
        # what was understood can be written, and is understood in the same way
        again = read(format_cfg(c).encode())
        assert len(again) == 1
        np.testing.assert_array_equal(again[0].positions, c.positions)


@fuzzed
@given(st.text())
def test_any_text_is_refused_in_words_or_empty(text: str) -> None:
    try:
        got = list(parse_cfg(io.StringIO(text), "x.cfg"))
    except InputError:
        return
    assert got == []
    assert not text.strip()


numbers = st.floats(-1e6, 1e6)
vectors = st.tuples(numbers, numbers, numbers)


@st.composite
def rows(draw: st.DrawFn) -> tuple[Structure, Label]:
    n = draw(st.integers(1, 5))
    cell = ((draw(st.floats(1, 20)), 0.0, 0.0), (draw(numbers), draw(st.floats(1, 20)), 0.0), (0.0, 0.0, 7.5))
    structure = Structure(
        tuple(draw(st.sampled_from([3, 82])) for _ in range(n)), tuple(draw(vectors) for _ in range(n)), cell
    )
    return structure, Label(draw(numbers), tuple(draw(vectors) for _ in range(n)))


@fuzzed
@given(st.lists(rows(), max_size=4))
def test_what_is_written_is_read_exactly(pairs: list[tuple[Structure, Label]]) -> None:
    text = "".join(format_cfg(from_structure(s, label, ["Li", "Pb"])) for s, label in pairs)
    got = [(to_structure(c, ["Li", "Pb"]), to_label(c)) for c in read(text.encode())]
    assert got == pairs


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b" Size\n    2\n", b" Size\n    4000000000\n"),
        (b" Size\n    2\n", b" Size\n    999999999\n"),
        (b" Size\n    2\n", b" Size\n    " + b"9" * 5000 + b"\n"),
        (b"    2 1 1.0", b"    2 99999999999999999999 1.0"),
        (b"    2 1 1.0", b"    1 1 1.0"),
        (b"fx fy fz nbh", b"fx fy gz nbh"),
        (b"-4.123456789", b"-4.12345_6789"),
        (b"-4.123456789", "-4.12345678٩".encode()),
        (b"-4.123456789", b"-4.123456789e400"),
        (b" Energy\n    -4.123456789\n", b" Energy\n    -4.123456789\n Energy\n    -5\n"),
        (b"    0 0 6.25\n", b""),
        (b"BEGIN_CFG\n Size\n    2", b"\xef\xbb\xbfBEGIN_CFG\n Size\n    2"),
    ],
)
def test_what_would_be_a_wrong_number_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    assert WHOLE.count(old) == 1
    path = tmp_path / "x.cfg"
    path.write_bytes(WHOLE.replace(old, new))
    with pytest.raises(InputError) as caught:
        list(read_cfg(path))
    assert caught.value.where.startswith(f"{path}, line ")


def test_other_line_ends_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.cfg"
    for end in (b"\r\n", b"\r", b" \n"):
        path.write_bytes(WHOLE.replace(b"\n", end))
        assert all(same(a, b) for a, b in zip(read_cfg(path), read(WHOLE), strict=True)), end
    assert write_cfg(path, read(WHOLE)) == 2
