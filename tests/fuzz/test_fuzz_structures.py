"""Files of structures for `pilot add label`: cut, mixed up, hostile. Refused by name, or every frame as it stands."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

from pathlib import Path

import numpy as np
import pytest
from hostile import damaged, fuzzed, place, truncations
from hypothesis import given

from db.errors import InputError
from db.records import Label, Structure
from tasks.formats.atoms import Row, export_structures, read_structures

HEAD = 'Lattice="4.0 0 0 0 4.0 0 0 0 {a}" Properties=species:S:1:pos:R:3:forces:R:3 energy={e} pbc="T T T"'
WHOLE = "".join(
    f"2\n{HEAD.format(a=a, e=e)}\nLi 0.0 0.0 0.125 0.1 0.2 0.3\nLi 1.5 1.5 1.625 -0.1 -0.2 -0.3\n"
    for a, e in ((5.25, -1.5), (6.25, -2.5), (7.25, -3.5))
).encode()
POSCAR = b"Li\n1.0\n3 0 0\n0 3 0\n0 0 3\nLi\n2\nDirect\n0 0 0\n0.5 0.5 0.5\n"


def read(path: Path, data: bytes) -> list[Row] | None:
    path.write_bytes(data)
    try:
        return read_structures(path, ["Li"])
    except InputError as error:
        assert error.where.startswith(str(path))
        assert error.next_step
        return None


def test_a_cut_file_gives_whole_structures_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    whole = read(path, WHOLE)
    assert whole is not None
    for data in truncations(WHOLE):
        got = read(path, data)
        assert got is None or (got == whole[: len(got)] and data in {WHOLE[: len(WHOLE) * k // 3] for k in (1, 2)})


@fuzzed
@given(damaged(WHOLE))
def test_a_damaged_file_is_refused_or_makes_sense(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for structure, label in read(place(tmp_path_factory) / "x.extxyz", data) or ():
        assert structure.numbers
        assert len(structure.numbers) == len(structure.positions)
        assert np.isfinite([*structure.positions, *structure.cell]).all()
        assert label is None or (np.isfinite(label.energy) and len(label.forces) == len(structure.numbers))


@fuzzed
@given(damaged(POSCAR))
def test_a_damaged_poscar(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for structure, _ in read(place(tmp_path_factory) / "POSCAR", data) or ():
        assert np.isfinite([*structure.positions, *structure.cell]).all()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.extxyz", WHOLE.replace(b"2\nLattice", b"2000000000\nLattice", 1)),
        ("x.extxyz", WHOLE.replace(b"2\nLattice", b"-2\nLattice", 1)),
        ("x.extxyz", WHOLE.replace(b"2\nLattice", b"\n2\nLattice")),
        ("x.extxyz", WHOLE.replace(b"0.125", b"nan", 1)),
        ("x.extxyz", WHOLE.replace(b"5.25", b"1e400", 1)),
        ("x.extxyz", WHOLE.replace(b"5.25", b"0", 1)),
        ("x.extxyz", WHOLE.replace(b"-1.5", b"inf", 1)),
        ("x.extxyz", WHOLE.replace(b"forces:R:3", b"forces:R:1", 1)),
        ("x.extxyz", WHOLE.replace(b"Li 0.0", b"X 0.0", 1)),
        ("x.json", b"[" * 100_000),
        ("x.db", b"SQLite format 3\0" + b"\0" * 4000),
        ("x.traj", b"- of UlmASE-Trajectory" + b"\xff" * 400),
        ("x.py", b"raise SystemExit('executed')\n"),
        ("POSCAR", POSCAR.replace(b"\n2\n", b"\n4000000000\n")),
        ("POSCAR", b""),
    ],
)
def test_what_would_be_a_wrong_number_or_fill_the_memory_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    assert read(tmp_path / name, data) is None


def test_names_of_files_are_names(tmp_path: Path) -> None:
    for name in ("a@0.extxyz", "a b.extxyz", "-rf.extxyz", "$(touch PWNED).extxyz", "a;b.extxyz", "*.extxyz"):
        got = read(tmp_path / name, WHOLE)
        assert got is not None
        assert len(got) == 3
    assert not list(tmp_path.glob("PWNED*"))


def test_what_is_exported_is_read_again(tmp_path: Path) -> None:
    rows: list[Row] = [
        (
            Structure(
                (3, 3), ((0.0, 0.0, 0.125), (1.5, 1.5, 1.625)), ((4.0, 0.0, 0.0), (0.5, 4.0, 0.0), (0.0, 0.0, a))
            ),
            Label(-a, ((0.5, 0.25, 0.125), (-0.5, -0.25, -0.125)), (0.5, 0.25, 0.125, 0.0, 0.0, 0.0)),
        )
        for a in (5.25, 6.25)
    ]
    for name in ("x.extxyz", "x.cfg", "x.db"):
        assert export_structures(tmp_path / name, rows, ["Li"]) == 2
        got = read_structures(tmp_path / name, ["Li"])
        for (structure, label), (wanted, given_label) in zip(got, rows, strict=True):
            np.testing.assert_allclose(structure.positions, wanted.positions, atol=1e-8)
            assert label is not None
            assert label.energy == pytest.approx(given_label.energy if given_label else None)
