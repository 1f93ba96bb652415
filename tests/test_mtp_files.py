"""Potential files of MLIP, and the active set that MLIP-3 keeps in them."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from motep.calculator import make_calculator
from motep.io.mlip.mtp import read_mtp
from motep.potentials.mtp.data import MTPData

from db.errors import InputError
from tasks.formats.almtp import ActiveSet, per_atom_row, read_active_set
from tasks.formats.atoms import to_atoms
from tasks.formats.cfg import Configuration, read_cfg, to_structure
from tasks.formats.mtp import format_potential, parse_potential, read_potential, write_potential
from tasks.mtp.basis import untrained

SAMPLES = Path(__file__).parents[2] / "shared" / "samples" / "mlip"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")

Floats = npt.NDArray[np.float64]


def trained() -> bytes:
    data = untrained(4, 1, 2.25, 5.0, 3)
    data.initialize(np.random.default_rng(1))
    return format_potential(data).encode()


def test_both_spellings_and_broken_lines() -> None:
    data = parse_potential(trained(), "pot.mtp")
    older = trained().replace(b"coeffs", b"coefs").replace(b"}, {", b"},\n{").replace(b", ", b",\n   ")
    again = parse_potential(older.replace(b"\n", b"\r\n"), "pot.mtp")
    np.testing.assert_array_equal(again.radial_coeffs, data.radial_coeffs)
    np.testing.assert_array_equal(again.moment_coeffs, data.moment_coeffs)
    np.testing.assert_array_equal(again.alpha_index_times, data.alpha_index_times)
    assert again.alpha_index_times.tolist() == [[0, 0, 1, 1]]
    assert again.radial_basis == data.radial_basis


def test_a_template_has_no_coefficients() -> None:
    data = parse_potential(format_potential(untrained(2, 1, 2.0, 5.0, 8)).encode(), "02.mtp")
    assert (data.radial_coeffs, data.species_coeffs, data.moment_coeffs) == (None, None, None)
    assert data.alpha_index_times.shape == (0, 4)
    assert data.scaling == 1.0


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b"MTP\n", b"", "does not begin with MTP"),
        (b"RBChebyshev", b"RBShapeev", "RBShapeev cannot be used"),
        (b"species_count = 1", b"species_count = one", "line 5: the value of species_count"),
        (b"potential_tag", b"potential_rag", "line 6: the key potential_rag is not known"),
        (b"alpha_moments_count = 2", b"alpha_moments_count = 1", "do not fit together"),
        (b"alpha_index_times_count = 1\n", b"", "alpha_index_times_count missing"),
        (b"alpha_scalar_moments = 2", b"alpha_scalar_moments = 3", "do not fit together"),
        (b"alpha_moment_mapping = {0, 1}", b"alpha_moment_mapping = {0, 9}", "do not fit together"),
        (b"radial_basis_size = 3", b"radial_basis_size = 4", "0-0 are not 1 times 4 numbers"),
        (b"\t\t0-0", b"\t\t1-0", "1-0 are not"),
        (b"max_dist = 5.", b"max_dist = 1.", "radial basis makes no sense"),
        (b"radial_basis_type", b"magnetic_basis_type = B\nradial_basis_type", "magnetic"),
    ],
)
def test_foreign_and_damaged_potentials(old: bytes, new: bytes, what: str) -> None:
    text = trained()
    assert old in text
    with pytest.raises(InputError) as caught:
        parse_potential(text.replace(old, new), "pot.mtp")
    assert what in caught.value.what
    assert caught.value.where == "pot.mtp"


def test_a_potential_cut_anywhere_is_refused_or_the_same() -> None:
    text = trained()
    whole = parse_potential(text, "pot.mtp")
    for end in range(len(text) - 1):
        # only what is white space may go
        if text[end:].strip() == b"":
            assert parse_potential(text[:end], "pot.mtp").scaling == whole.scaling
            continue
        with pytest.raises(InputError):
            parse_potential(text[:end], "pot.mtp")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the potential"):
        read_potential(tmp_path / "pot.mtp")
    with pytest.raises(InputError, match="cannot read the potential"):
        read_active_set(tmp_path / "pot.almtp")


def test_a_potential_without_active_set(tmp_path: Path) -> None:
    (tmp_path / "pot.almtp").write_bytes(trained())
    with pytest.raises(InputError, match="has no active set"):
        read_active_set(tmp_path / "pot.almtp")


@needs_samples
def test_the_potential_of_an_almtp_survives_its_file(tmp_path: Path) -> None:
    data = read_potential(SAMPLES / "K_cfg08.almtp")
    assert data.number_of_parameters_optimized == 26
    assert data.scaling == 1.534756881882097e-02
    write_potential(tmp_path / "K.mtp", data)
    for again in (read_potential(tmp_path / "K.mtp"), read_mtp(tmp_path / "K.mtp")):
        np.testing.assert_array_equal(again.parameters, data.parameters)
        np.testing.assert_array_equal(again.alpha_index_times, data.alpha_index_times)
        assert again.scaling == data.scaling


@needs_samples
def test_our_level_8_is_that_of_mlip() -> None:
    theirs = read_potential(SAMPLES / "K_cfg08.almtp")
    ours = untrained(8, 1, 2.66, 7.0, 8)
    for name in ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@needs_samples
def test_the_active_set_of_a_real_potential() -> None:
    active = read_active_set(SAMPLES / "K_cfg08.almtp")
    assert active.first_line == "#MVS_v1.1"
    assert active.weights["energy_weight"] == 1
    assert active.weights["weight_scaling"] == 2
    assert active.matrix.shape == active.inverse.shape == (26, 26)
    np.testing.assert_allclose(active.matrix @ active.inverse, np.eye(26), atol=1e-8)
    assert len(active.configurations) == 23
    unused = [i for i, row in enumerate(active.rows) if row < 0]
    assert unused == [9, 10, 24]
    np.testing.assert_array_equal(active.matrix[unused], 1e-6 * np.eye(26)[unused])
    potential = read_potential(SAMPLES / "K_cfg08.almtp")
    used = [i for i, row in enumerate(active.rows) if row >= 0]
    rows = [_answer(potential, active.configurations[active.rows[i]]).row for i in used]
    np.testing.assert_allclose(rows, active.matrix[used], rtol=1e-9, atol=1e-9)


@needs_samples
@pytest.mark.parametrize("end", [2000, 2900, 8000, 13000, 13500, 30000])
def test_an_active_set_that_is_cut_short(tmp_path: Path, end: int) -> None:
    content = (SAMPLES / "K_cfg08.almtp").read_bytes()
    (tmp_path / "cut.almtp").write_bytes(content[:end])
    with pytest.raises(InputError):
        read_active_set(tmp_path / "cut.almtp")


@needs_samples
def test_damaged_matrices(tmp_path: Path) -> None:
    content = bytearray((SAMPLES / "K_cfg08.almtp").read_bytes())
    start = content.index(b"weight_scaling 2\n#") + len(b"weight_scaling 2\n#")
    content[start : start + 8] = np.array([77.0]).tobytes()
    (tmp_path / "damaged.almtp").write_bytes(content)
    with pytest.raises(InputError, match="not the inverse"):
        read_active_set(tmp_path / "damaged.almtp")


class _Answer:
    """What motep says of one configuration."""

    def __init__(self, energy: float, forces: Floats, plus_stress: Floats, row: Floats) -> None:
        self.energy = energy
        self.forces = forces
        self.plus_stress = plus_stress
        self.row = row


def _answer(potential: MTPData, configuration: Configuration) -> _Answer:
    potential.species = np.array([19], dtype=np.int32)
    atoms = to_atoms(to_structure(configuration, ["K"]))
    atoms.calc = make_calculator(potential, mode="train")
    energy = atoms.get_potential_energy()
    slopes = atoms.calc.engine.jac_energy(atoms)
    row = per_atom_row(slopes.moment_coeffs, slopes.species_coeffs, slopes.radial_coeffs, len(atoms))
    return _Answer(energy, atoms.get_forces(), -atoms.get_stress() * atoms.get_volume(), row)


@pytest.fixture(scope="module")
def training_set() -> list[Configuration]:
    return list(read_cfg(SAMPLES / "K_cfg08_train.cfg"))


@pytest.fixture(scope="module")
def answers(training_set: list[Configuration]) -> list[_Answer]:
    potential = read_potential(SAMPLES / "K_cfg08.almtp")
    return [_answer(potential, configuration) for configuration in training_set]


@pytest.fixture(scope="module")
def active() -> ActiveSet:
    return read_active_set(SAMPLES / "K_cfg08.almtp")


@needs_samples
def test_energies_stresses_and_grades_are_those_of_mlip(answers: list[_Answer], active: ActiveSet) -> None:
    with (SAMPLES / "K_cfg08_reference.csv").open(encoding="utf-8") as file:
        reference = list(csv.DictReader(file))
    assert len(reference) == len(answers) == 88
    for answer, expected in zip(answers, reference, strict=True):
        # half of the last digit printed
        assert answer.energy == pytest.approx(float(expected["energy_eV"]), abs=1e-12)
        assert answer.plus_stress[0] == pytest.approx(float(expected["plusstress_xx_eV"]), abs=5.1e-6)
        assert answer.plus_stress[3] == pytest.approx(float(expected["plusstress_yz_eV"]), abs=5.1e-6)
        grade = np.abs(answer.row @ active.inverse).max()
        assert grade == pytest.approx(float(expected["grade"]), abs=5.1e-7)


@needs_samples
def test_errors_are_those_of_mlip(training_set: list[Configuration], answers: list[_Answer]) -> None:
    energies, forces = [], []
    for configuration, answer in zip(training_set, answers, strict=True):
        assert configuration.energy is not None
        assert configuration.forces is not None
        energies.append((answer.energy - configuration.energy) / len(configuration.types))
        forces.append(answer.forces - configuration.forces)
    vectors = np.linalg.norm(np.concatenate(forces), axis=1)
    assert 1000 * np.sqrt(np.mean(np.square(energies))) == pytest.approx(1.594, abs=5e-4)
    assert 1000 * np.sqrt(np.mean(np.square(vectors))) == pytest.approx(11.95, abs=5e-3)
