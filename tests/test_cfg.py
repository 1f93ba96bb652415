"""MLIP's .cfg files, and the ways in and out of ASE's formats."""

from collections.abc import Iterator
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError, StorageError
from db.records import Label, Structure
from tasks.formats.atoms import export_structures, from_atoms, read_structures, to_atoms
from tasks.formats.cfg import (
    Configuration,
    format_cfg,
    from_structure,
    parse_cfg,
    read_cfg,
    to_label,
    to_structure,
    write_cfg,
)

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")

EVERYTHING = """\
BEGIN_CFG
 Size
    2
 Supercell
    4.0 0 0
    0 +5.0E0 0.
    0 0 .6D1
 AtomData:  id type cartes_x cartes_y cartes_z site_en fx fy fz charge magmom_x magmom_y nbh_grades odd tag
    7 0 0 0 0 -1.5 1e-3 -2E-3 0.003 1 0.1 0.2 1.25 9 up
    3 1 1.0000000000000002 2.5e+00 -1e-17 -2.5 0 -0.0 0 -1 0.3 0.4 inf 8 down
 Energy
    -4.0000000000000001e+00
 PlusStress:  xx yy zz xy yz xz
    1 2 3 6 4 5
 Feature   EFS_by\tVASP  6.3
 Feature   mindist 2.7
 Feature   flag
END_CFG

"""
PLAIN = "BEGIN_CFG\n Size\n 1\n AtomData: id type cartes_x cartes_y cartes_z\n 1 0 0.5 0 0\nEND_CFG\n"


def one(text: str) -> Configuration:
    (configuration,) = parse_cfg(text.splitlines(keepends=True), "x.cfg")
    return configuration


def assert_same(a: Configuration, b: Configuration) -> None:
    for name in ("types", "positions", "cell", "forces", "plus_stress"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.rows, a.energy, a.features) == (b.rows, b.energy, b.features)
    assert list(a.columns) == list(b.columns)
    for name, column in a.columns.items():
        np.testing.assert_array_equal(column, b.columns[name])


def test_all_that_a_configuration_can_have() -> None:
    c = one(EVERYTHING)
    assert c.types.tolist() == [0, 1]
    assert c.positions[1].tolist() == [1.0000000000000002, 2.5, -1e-17]
    assert np.diag(c.cell).tolist() == [4.0, 5.0, 6.0]
    assert c.pbc == (True, True, True)
    assert c.energy == -4.0
    assert c.forces is not None
    assert c.forces[0].tolist() == [1e-3, -2e-3, 3e-3]
    assert c.plus_stress is not None
    assert c.plus_stress.tolist() == [1, 2, 3, 4, 5, 6]
    assert c.site_energies is not None
    assert c.site_energies.tolist() == [-1.5, -2.5]
    assert c.charges is not None
    assert c.charges.tolist() == [1, -1]
    assert c.nbh_grades is not None
    assert c.nbh_grades.tolist() == [1.25, np.inf]
    assert sorted(c.magnetic_moments) == ["magmom_x", "magmom_y"]
    assert c.columns["odd"].tolist() == [9, 8]
    assert c.columns["tag"].tolist() == ["up", "down"]
    assert c.columns["id"].tolist() == [7, 3]
    assert c.features == (("EFS_by", "VASP  6.3"), ("mindist", "2.7"), ("flag", ""))
    assert c.feature("mindist") == "2.7"
    assert_same(one(format_cfg(c)), c)
    assert format_cfg(one(format_cfg(c))) == format_cfg(c)


def test_what_is_missing_is_none() -> None:
    c = one(PLAIN)
    assert (c.energy, c.forces, c.plus_stress, c.site_energies, c.rows) == (None, None, None, None, 0)
    assert (c.pbc, c.features, dict(c.columns)) == ((False, False, False), (), {})
    assert to_label(c) is None
    assert_same(one(format_cfg(c)), c)


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_supercell_of_any_number_of_rows(rows: int) -> None:
    cell = "".join(f" {row}\n" for row in ("3 0 0", "0.5 4 0", "0 0 5")[:rows])
    c = one(PLAIN.replace(" AtomData", f" Supercell\n{cell} AtomData"))
    assert c.rows == rows
    assert c.pbc == tuple(i < rows for i in range(3))
    assert not c.cell[rows:].any()
    assert to_structure(c, ["Li"]).pbc == c.pbc
    assert_same(one(format_cfg(c)), c)


def test_direct_coordinates() -> None:
    text = PLAIN.replace("cartes", "direct").replace(" AtomData", " Supercell\n 2 0 0\n 1 2 0\n 0 0 8\n AtomData")
    c = one(text.replace("0.5 0 0", "0.5 0.25 0.5"))
    np.testing.assert_allclose(c.positions, [[1.25, 0.5, 4.0]])
    assert_same(one(format_cfg(c)), c)
    with pytest.raises(InputError):
        one(PLAIN.replace("cartes", "direct"))


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    positions=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4),
    energy=st.none() | numbers,
    stress=st.none() | st.lists(numbers, min_size=6, max_size=6),
    rows=st.integers(0, 3),
    data=st.data(),
)
def test_any_numbers_come_back_exactly(
    positions: list[tuple[float, float, float]],
    energy: float | None,
    stress: list[float] | None,
    rows: int,
    data: st.DataObject,
) -> None:
    n = len(positions)
    cell = np.zeros((3, 3))
    cell[:rows] = np.array(data.draw(st.lists(numbers, min_size=3 * rows, max_size=3 * rows))).reshape(rows, 3)
    c = Configuration(
        types=np.arange(n),
        positions=np.array(positions),
        cell=cell,
        rows=rows,
        energy=energy,
        forces=np.array(positions)[::-1] if data.draw(st.booleans()) else None,
        # stress is of a volume, or of none: with one or two rows of a cell it is a torn file
        plus_stress=None if stress is None or rows in {1, 2} else np.array(stress),
        columns={"nbh_grades": np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))},
    )
    assert_same(one(format_cfg(c)), c)


@needs_samples
def test_a_real_training_set_comes_back_exactly(tmp_path: Path) -> None:
    first = list(read_cfg(SAMPLES / "mlip" / "K_cfg08_train.cfg"))
    assert len(first) == 88
    assert write_cfg(tmp_path / "again.cfg", first) == 88
    for a, b in zip(first, read_cfg(tmp_path / "again.cfg"), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (PLAIN.removesuffix("END_CFG\n"), 5, "ends in the middle"),
        (PLAIN.removesuffix(" 1 0 0.5 0 0\nEND_CFG\n"), 4, "ends in the middle"),
        ("BEGIN_CFG\n Size\n", 2, "ends in the middle"),
        (PLAIN.replace("0.5", "0.5x"), 5, "'0.5x' is not a finite number"),
        (PLAIN.replace("0.5", "nan"), 5, "finite"),
        (PLAIN.replace("0.5 0 0", "0.5 0"), 5, "found 4 columns where AtomData names 5"),
        (PLAIN.replace("END_CFG", " 2 0 1 0 0\nEND_CFG"), 6, "'2' is not a part"),
        (PLAIN.replace("END_CFG", PLAIN), 6, "begins before"),
        (PLAIN.replace(" 1\n", " one\n"), 3, "Size"),
        (PLAIN.replace("cartes_z", "cartes_q"), 4, "cartes_x cartes_y cartes_z"),
        (PLAIN.replace(" 1 0 0.5", " 1 -1 0.5"), 4, "type"),
        (PLAIN.replace("END_CFG", " PlusStress: xx yy zz\n 1 2 3\nEND_CFG"), 7, "six components"),
        (PLAIN.replace("END_CFG", " Energy\n\nEND_CFG"), 7, "Energy"),
        (PLAIN.replace(" AtomData", " Supercell\n 1 0\n AtomData"), 5, "three numbers"),
        ("BEGIN_CFG\nEND_CFG\n", 1, "no Size or no AtomData"),
        ("Number of particles = 4\n", 1, "not a .cfg file"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = tmp_path / "bad.cfg"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        list(read_cfg(path))
    assert what in caught.value.what
    assert caught.value.where == f"{path}, line {line}"
    assert caught.value.next_step


def test_whole_configurations_before_a_cut_are_given_first() -> None:
    stream = parse_cfg((PLAIN + PLAIN[:60]).splitlines(), "cut.cfg")
    assert next(stream).types.tolist() == [0]
    with pytest.raises(InputError):
        next(stream)


def test_an_empty_file_has_no_configurations(tmp_path: Path) -> None:
    assert write_cfg(tmp_path / "none.cfg", []) == 0
    assert list(read_cfg(tmp_path / "none.cfg")) == []
    with pytest.raises(InputError):
        list(read_cfg(tmp_path / "missing.cfg"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.cfg"
    write_cfg(path, [one(PLAIN)])

    def failing() -> Iterator[Configuration]:
        yield one(PLAIN)
        raise InputError("stop")

    with pytest.raises(InputError):
        write_cfg(path, failing())
    assert [c.energy for c in read_cfg(path)] == [None]
    assert [entry.name for entry in tmp_path.iterdir()] == ["train.cfg"]
    with pytest.raises(StorageError):
        write_cfg(tmp_path / "no" / "such.cfg", [])


STRUCTURE = Structure((3, 82), ((0.0, 0.0, 0.0), (1.0, 1.5, 2.0)), ((4.0, 0.0, 0.0), (1.0, 5.0, 0.0), (0.0, 0.0, 6.0)))
LABEL = Label(-3.25, ((0.1, 0.2, 0.3), (-0.1, -0.2, -0.3)), (-0.01, -0.02, -0.03, 0.004, 0.005, 0.006))


def test_stress_changes_sign_and_unit() -> None:
    c = from_structure(STRUCTURE, LABEL, ["Pb", "Li"], [("EFS_by", "qe")])
    assert c.types.tolist() == [1, 0]
    assert c.plus_stress is not None
    # compressed: negative for ASE, positive for MLIP; the volume is 120 Å³
    np.testing.assert_allclose(c.plus_stress, [1.2, 2.4, 3.6, -0.48, -0.6, -0.72])
    assert to_structure(c, ["Pb", "Li"]) == STRUCTURE
    label = to_label(one(format_cfg(c)))
    assert label is not None
    assert (label.energy, label.forces) == (LABEL.energy, LABEL.forces)
    assert label.stress == pytest.approx(LABEL.stress, rel=1e-14)


def test_periodic_rows_come_first() -> None:
    slab = Structure(STRUCTURE.numbers, STRUCTURE.positions, STRUCTURE.cell, (True, False, True))
    c = from_structure(slab, LABEL, ["Li", "Pb"])
    assert c.rows == 2
    assert c.cell.tolist() == [[4, 0, 0], [0, 0, 6], [0, 0, 0]]
    assert c.plus_stress is None


def test_elements_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"Pb, which is not among the species Li, Na"):
        from_structure(STRUCTURE, None, ["Li", "Na"])
    with pytest.raises(InputError, match="only 1 species: Pb"):
        to_structure(from_structure(STRUCTURE, None, ["Pb", "Li"]), ["Pb"])
    with pytest.raises(InputError, match="Xx is no chemical element"):
        to_structure(one(PLAIN), ["Xx"])


def test_atoms_and_back() -> None:
    assert from_atoms(to_atoms(STRUCTURE, LABEL)) == (STRUCTURE, LABEL)
    assert from_atoms(to_atoms(STRUCTURE)) == (STRUCTURE, None)


@pytest.mark.parametrize("name", ["set.extxyz", "set.xyz", "set.db", "set.cfg"])
def test_training_sets_can_be_handed_over(tmp_path: Path, name: str) -> None:
    bare = Structure(STRUCTURE.numbers, STRUCTURE.positions, STRUCTURE.cell)
    assert export_structures(tmp_path / name, [(STRUCTURE, LABEL), (bare, None)], ["Li", "Pb"]) == 2
    assert export_structures(tmp_path / name, [(STRUCTURE, LABEL), (bare, None)], ["Li", "Pb"]) == 2
    (structure, label), (_, none) = read_structures(tmp_path / name, ["Li", "Pb"])
    assert structure.content_hash() == STRUCTURE.content_hash()
    assert label is not None
    assert label.energy == pytest.approx(LABEL.energy)
    np.testing.assert_allclose(label.forces, LABEL.forces, atol=1e-8)
    assert label.stress == pytest.approx(LABEL.stress)
    assert none is None
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_export_to_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="suffix"):
        export_structures(tmp_path / "set.pdf", [(STRUCTURE, LABEL)], ["Li", "Pb"])


def test_structures_of_others(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    for name, kind in (("a.vasp", "vasp"), ("a.cif", "cif"), ("a.cfg", "cfg")):
        ase.io.write(tmp_path / name, atoms, format=kind)
        ((structure, label),) = read_structures(tmp_path / name)
        assert structure.numbers == (29, 29, 29, 29)
        np.testing.assert_allclose(structure.cell, atoms.cell.array, atol=1e-6)
        assert label is None


def test_a_cfg_needs_its_species(tmp_path: Path) -> None:
    write_cfg(tmp_path / "a.cfg", [one(PLAIN)])
    with pytest.raises(InputError, match="types, not by elements"):
        read_structures(tmp_path / "a.cfg")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("POSCAR", b"garbage\n1.0\n"),
        ("a.cif", b"not a cif"),
        ("a.extxyz", b"3\nLattice\nCu 0 0\n"),
        ("a.db", b"\0\1\2 not a database"),
        ("OUTCAR", b" vasp.6.3\n"),
        ("vasprun.xml", b"<modeling><kpoints>"),
        ("a.unknown", b"what is this"),
        ("a.extxyz", b""),
    ],
)
def test_files_that_are_not_what_they_seem(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_structures(tmp_path / name)
    assert str(tmp_path / name) in caught.value.where


@needs_samples
def test_the_outcar_of_a_real_run() -> None:
    rows = read_structures(SAMPLES / "vasp" / "OUTCAR_example_1")
    label = rows[-1][1]
    assert label is not None
    images = ase.io.read(SAMPLES / "vasp" / "OUTCAR_example_1", index=":")
    assert label.energy == images[-1].get_potential_energy(force_consistent=True)
    assert label.stress == pytest.approx(images[-1].get_stress())
