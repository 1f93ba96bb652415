"""Potentials and active sets that are cut, mixed up or hostile: refused, or the same numbers."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

import functools
from pathlib import Path

import numpy as np
import pytest
from hostile import damaged, fuzzed, place, truncations, with_a_line_twice, without_a_line
from hypothesis import given
from hypothesis import strategies as st
from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from tasks.formats.almtp import ActiveSet, read_active_set
from tasks.formats.mtp import format_potential, parse_potential
from tasks.mtp import active_set
from tasks.mtp.basis import untrained

POSITION = "BEGIN_CFG\n Size\n 1\n AtomData: id type cartes_x cartes_y cartes_z\n 1 0 {} 0 0\nEND_CFG\n"


def potential() -> MTPData:
    data = untrained(4, 1, 2.25, 5.0, 3)
    data.initialize(np.random.default_rng(1))
    return data


@functools.cache
def text() -> bytes:
    return format_potential(potential()).encode()


@functools.cache
def almtp() -> bytes:
    """As MLIP-3 lays it out (tasks/formats/almtp.py): 3 radial, 1 species and 2 moment coefficients."""
    rng = np.random.default_rng(2)
    matrix = np.eye(6) + 0.1 * rng.random((6, 6))
    weights = "".join(
        f"{name} 1\n" for name in ("energy_weight", "force_weight", "stress_weight", "site_en_weight", "weight_scaling")
    )
    rows = "".join(f"{index} 0\n" for index in (0, 1, 2, -1, -1, -1)).replace("-1 0", "-1 -1")
    head = text() + f"#MVS_v1.1\n{weights}#".encode()
    numbers = matrix.astype("<f8").tobytes() + np.linalg.inv(matrix).T.astype("<f8").tobytes()
    return head + numbers + f"\n#\n{rows}#\n{''.join(POSITION.format(x) for x in (0.5, 1.5, 2.5))}".encode()


def numbers_of(data: MTPData) -> list[object]:
    basis = data.radial_basis
    arrays = (data.radial_coeffs, data.species_coeffs, data.moment_coeffs, data.alpha_index_basic)
    more = (data.alpha_index_times, data.alpha_moment_mapping)
    return [
        (data.scaling, data.species_count, data.alpha_moments_count, basis.min, basis.max, basis.size),
        *(None if a is None else np.asarray(a).tolist() for a in (*arrays, *more)),
    ]


def test_the_example_is_an_active_set(tmp_path: Path) -> None:
    path = tmp_path / "pot.almtp"
    path.write_bytes(almtp())
    found = read_active_set(path)
    assert found.rows == (0, 1, 2, -1, -1, -1)
    assert [c.positions[0][0] for c in found.configurations] == [0.5, 1.5, 2.5]
    np.testing.assert_allclose(found.matrix @ found.inverse, np.eye(6), atol=1e-12)


def test_a_cut_potential_is_refused() -> None:
    for data in truncations(text().rstrip()):
        with pytest.raises(InputError):
            parse_potential(data, "pot.mtp")


def test_a_lost_line_or_one_that_stands_twice_is_noticed_or_changes_no_number() -> None:
    whole = numbers_of(parse_potential(text(), "pot.mtp"))
    for data in without_a_line(text()) + with_a_line_twice(text()):
        try:
            got = parse_potential(data, "pot.mtp")
        except InputError:
            continue
        assert numbers_of(got) == whole, data


@fuzzed
@given(st.one_of(damaged(text()), damaged(format_potential(untrained(4, 2, 2.0, 5.0, 8)).encode())))
def test_a_damaged_potential_is_refused_or_makes_sense(data: bytes) -> None:
    try:
        got = parse_potential(data, "pot.mtp")
    except InputError as error:
        assert error.where == "pot.mtp"
        return
    for coefficients in (got.radial_coeffs, got.species_coeffs, got.moment_coeffs):
        assert coefficients is None or np.isfinite(coefficients).all()
    assert np.isfinite([got.scaling, got.radial_basis.min, got.radial_basis.max]).all()
    assert got.alpha_moments_count <= len(got.alpha_index_basic) + len(got.alpha_index_times)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"species_count = 1", b"species_count = 999999999"),
        (b"radial_basis_size = 3", b"radial_basis_size = 4000000000"),
        (b"radial_funcs_count = 1", b"radial_funcs_count = 999999999"),
        (b"alpha_moments_count = 2", b"alpha_moments_count = 999999999"),
        (b"alpha_moment_mapping = {0, 1}", b"alpha_moment_mapping = {0, 4294967297}"),
        (b"alpha_moment_mapping = {0, 1}", b"alpha_moment_mapping = {0, 1" + b" " * 300_000 + b"!}"),
        (b"scaling = ", b"scaling = 1e400"),
        (b"scaling = ", b"scaling = nan"),
        (b"scaling = 1", b"scaling = 1_1"),
        (b"potential_tag", b"stray words\npotential_tag"),
        (b"\t\t0-0\n", b"\t\t0-0\n\t\t0-0\n"),
    ],
)
def test_what_would_be_a_wrong_number_or_fill_the_memory_is_refused(old: bytes, new: bytes) -> None:
    assert old in text()
    with pytest.raises(InputError):
        parse_potential(text().replace(old, new, 1), "pot.mtp")


def read(tmp_path: Path, data: bytes) -> ActiveSet | None:
    path = tmp_path / "pot.almtp"
    path.write_bytes(data)
    try:
        return read_active_set(path)
    except InputError as error:
        assert error.where.startswith(str(path))
        return None


def test_a_cut_active_set_is_refused(tmp_path: Path) -> None:
    for data in truncations(almtp().rstrip())[len(text()) :]:
        assert read(tmp_path, data) is None


@fuzzed
@given(damaged(almtp()))
def test_a_damaged_active_set_is_refused_or_consistent(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    got = read(place(tmp_path_factory), data)
    if got is not None:
        assert np.abs(got.matrix @ got.inverse - np.eye(len(got.matrix))).max() <= 1e-3
        assert all(-1 <= row < len(got.configurations) for row in got.rows)


def test_matrices_whose_product_overflows_are_refused(tmp_path: Path) -> None:
    at = almtp().index(b"weight_scaling 1\n#") + len(b"weight_scaling 1\n#")
    huge = np.full((6, 6), 1e300) * np.array([1, -1] * 3)
    data = almtp()[:at] + huge.tobytes() + huge.T.tobytes() + almtp()[at + 2 * 8 * 36 :]
    assert read(tmp_path, data) is None
    assert read(tmp_path, almtp().replace(b"\n2 0\n", b"\n-2 0\n")) is None


@functools.cache
def saved(folder: Path) -> bytes:
    rows = np.random.default_rng(3).random((9, 6))
    active_set.save_active_set(folder / "whole.npz", active_set.build(rows, potential()))
    return (folder / "whole.npz").read_bytes()


@fuzzed
@given(st.data())
def test_a_damaged_file_of_our_own_active_set_is_refused_or_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = place(tmp_path_factory)
    whole = saved(folder)
    path = folder / "active.npz"
    path.write_bytes(data.draw(damaged(whole)))
    try:
        got = active_set.load_active_set(path, potential())
    except InputError as error:
        assert error.where == str(path)
        return
    same = active_set.load_active_set(folder / "whole.npz", potential())
    np.testing.assert_array_equal(got.matrix, same.matrix)
    np.testing.assert_array_equal(got.inverse, same.inverse)
    np.testing.assert_array_equal(got.indices, same.indices)


def test_an_active_set_that_promises_billions_of_numbers_is_refused(tmp_path: Path) -> None:
    import zipfile

    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "active.npz", "w") as file:
        for name in ("matrix", "inverse", "indices", "potential"):
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError):
        active_set.load_active_set(tmp_path / "active.npz", potential())
