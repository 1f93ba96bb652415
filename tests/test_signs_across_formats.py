"""Energy, forces and stress keep sign and unit on every way in and out; numerical derivatives are the judge."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa
from qe_runs import ALONE, needs_pw

from db.records import Label, Structure
from tasks.formats.atoms import export_structures, from_atoms, to_atoms
from tasks.formats.cfg import from_structure
from tasks.formats.labelled_files import read_frames

SAMPLE = Path(__file__).parents[2] / "shared" / "samples" / "vasp" / "OUTCAR_example_1"
SPECIES = ["Al", "Cu"]
#: rows and columns of xx, yy, zz, yz, xz, xy
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
PW_INPUT = """
&control
 prefix = 'al', outdir = 'out', pseudo_dir = '/usr/share/espresso/pseudo', tprnfor = .true., tstress = .true.
/
&system
 ibrav = 0, nat = 2, ntyp = 1, ecutwfc = 12, occupations = 'smearing', smearing = 'mv', degauss = 0.05, nosym = .true.
/
&electrons
 conv_thr = 1e-10
/
ATOMIC_SPECIES
Al 26.98 Al.pz-vbc.UPF
CELL_PARAMETERS angstrom
2.5 0.1 0.0
0.0 2.6 0.2
0.0 0.1 3.5
ATOMIC_POSITIONS angstrom
Al 0 0 0
Al MOVED 1.3 1.9
K_POINTS automatic
2 2 2 0 0 0
"""


def skewed() -> Atoms:
    """A cell without symmetry and under compression: no two components of its stress are the same."""
    atoms = bulk("Cu", "fcc", a=3.5).repeat((1, 1, 2))
    atoms.numbers[0] = 13
    strain = np.array([[0.02, 0.03, -0.01], [0.0, -0.03, 0.04], [0.0, 0.0, -0.05]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.1, seed=5)
    atoms.calc = EMT()
    return atoms


def labelled(atoms: Atoms) -> tuple[Structure, Label]:
    atoms.get_stress()
    structure, label = from_atoms(atoms)
    assert label is not None
    return structure, label


def energy_of(structure: Structure, cell: np.ndarray | None = None, positions: np.ndarray | None = None) -> float:
    atoms = to_atoms(structure)
    if cell is not None:
        atoms.set_cell(cell, scale_atoms=True)
    if positions is not None:
        atoms.positions = positions
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def judge(structure: Structure, label: Label) -> None:
    """Forces are −dE/dx, and the stress is (1/V)·dE/dε: negative under compression."""
    assert label.stress is not None
    h = 1e-5
    positions, cell = np.array(structure.positions), np.array(structure.cell)
    for atom, axis in ((0, 0), (1, 1), (1, 2)):
        moved = np.zeros_like(positions)
        moved[atom, axis] = h
        slope = (energy_of(structure, None, positions + moved) - energy_of(structure, None, positions - moved)) / (
            2 * h
        )
        assert label.forces[atom][axis] == pytest.approx(-slope, abs=1e-5)
    volume = abs(np.linalg.det(cell))
    for component, (i, j) in enumerate(VOIGT):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        up, down = (energy_of(structure, cell @ (np.eye(3) + sign * strain)) for sign in (1, -1))
        assert label.stress[component] == pytest.approx((up - down) / (2 * h * volume), abs=1e-6)
    assert energy_of(structure) == pytest.approx(label.energy, abs=1e-6)


def only(path: Path) -> tuple[Structure, Label]:
    (frame,) = read_frames(path, SPECIES)
    assert frame.structure is not None
    assert frame.label is not None
    return frame.structure, frame.label


@pytest.mark.parametrize("suffix", ["extxyz", "xyz", "db", "cfg"])
def test_what_is_written_and_read_again_is_what_the_derivatives_say(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"set.{suffix}"
    structure, label = labelled(skewed())
    assert label.stress is not None
    assert max(label.stress[:3]) < -0.01
    assert len({round(x, 4) for x in label.stress}) == 6
    export_structures(path, [(structure, label)], SPECIES)
    judge(*only(path))


def test_the_virial_of_an_extxyz_is_minus_volume_times_stress(tmp_path: Path) -> None:
    atoms = skewed()
    structure, label = labelled(atoms)
    path = tmp_path / "virial.extxyz"
    export_structures(path, [(structure, Label(label.energy, label.forces))], SPECIES)
    virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    head = path.read_text()
    text = " ".join(f"{x:.10f}" for x in virial.T.ravel())
    path.write_text(head.replace("pbc=", f'virial="{text}" pbc=', 1))
    judge(*only(path))


def test_a_vasprun_in_kilobar_is_positive_under_compression(tmp_path: Path) -> None:
    atoms = skewed()
    structure, label = labelled(atoms)
    path = tmp_path / "vasprun.xml"
    # as VASP prints: kB, with the opposite sign; energies with and without smearing differ
    path.write_text(vasprun(atoms, label, kilobar=-atoms.get_stress(voigt=False) / (0.1 * GPa)))
    found, again = only(path)
    assert again.energy == pytest.approx(label.energy)
    assert np.allclose(found.positions, structure.positions, atol=1e-6)
    judge(found, again)


def vasprun(atoms: Atoms, label: Label, kilobar: np.ndarray) -> str:
    def rows(name: str, values: np.ndarray) -> str:
        lines = "".join(f"<v> {x:.12f} {y:.12f} {z:.12f} </v>" for x, y, z in np.array(values))
        return f'<varray name="{name}">{lines}</varray>'

    basis = f"<crystal>{rows('basis', atoms.cell.array)}</crystal>"
    where = rows("positions", atoms.get_scaled_positions(wrap=False))
    energy = f'<energy><i name="e_fr_energy">{label.energy:.10f}</i><i name="e_wo_entrp">{label.energy + 0.2:.10f}</i>'
    energy += f'<i name="e_0_energy">{label.energy + 0.1:.10f}</i></energy>'
    species = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in atoms.get_chemical_symbols())
    return (
        f'<?xml version="1.0"?><modeling><generator><i name="version">6.3.0</i></generator><incar></incar>'
        f'<parameters><i name="ENMAX">400</i><i name="NELM">60</i><i name="EDIFF">0.0001</i></parameters>'
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>'
        f'<atominfo><atoms>{len(atoms)}</atoms><array name="atoms"><set>{species}</set></array></atominfo>'
        f'<structure name="initialpos">{basis}{where}</structure>'
        f"<calculation><scstep>{energy}</scstep><structure>{basis}{where}</structure>"
        f"{rows('forces', np.array(label.forces))}{rows('stress', kilobar)}{energy}</calculation></modeling>"
    )


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample files are not here")
def test_the_total_row_of_a_real_outcar_is_the_plus_stress_of_a_cfg() -> None:
    structure, label = only_of_nickel(SAMPLE)
    row = next(line for line in SAMPLE.read_text().splitlines() if line.startswith("  Total   "))
    xx, yy, zz, xy, yz, zx = (float(word) for word in row.split()[1:])
    configuration = from_structure(structure, label, ["Ni"])
    assert configuration.plus_stress is not None
    # its kB have five digits behind the point
    assert np.allclose(configuration.plus_stress, [xx, yy, zz, yz, zx, xy], atol=2e-4)
    # "external pressure = -4.46 kB": stretched, so that its stress is positive
    assert label.stress is not None
    assert sum(label.stress[:3]) > 0


def only_of_nickel(path: Path) -> tuple[Structure, Label]:
    (frame,) = read_frames(path)
    assert frame.structure is not None
    assert frame.label is not None
    return frame.structure, frame.label


@needs_pw
def test_pw_x_a_cfg_and_ase_tell_the_same(tmp_path: Path) -> None:
    h = 0.01
    middle, up, down = (pw_x(tmp_path / f"{n}", shift) for n, shift in enumerate((0.0, h, -h)))
    structure, label = middle
    assert label.stress is not None
    # compressed: the pressure that pw.x prints is positive, and the stress of ASE's sign negative
    text = (tmp_path / "0" / "pw.out").read_text()
    pressure = float(text.split("P=", 1)[1].split()[0])
    assert pressure > 100.0
    assert sum(label.stress[:3]) / 3 == pytest.approx(-pressure * 0.1 * GPa, rel=1e-3)
    # the total energy is the one of the forces
    assert label.forces[1][0] == pytest.approx(-(up[1].energy - down[1].energy) / (2 * h), abs=5e-3)
    for suffix in ("cfg", "extxyz", "db"):
        export_structures(tmp_path / f"set.{suffix}", [(structure, label)], ["Al"])
        (frame,) = read_frames(tmp_path / f"set.{suffix}", ["Al"])
        assert frame.label is not None
        assert frame.label.energy == pytest.approx(label.energy, abs=1e-9)
        assert np.allclose(frame.label.forces, label.forces, atol=1e-7)
        assert np.allclose(frame.label.stress or (), label.stress, atol=1e-9)


def pw_x(place: Path, shift: float) -> tuple[Structure, Label]:
    """A real run with an atom moved along x, Å."""
    place.mkdir()
    (place / "pw.in").write_text(PW_INPUT.replace("MOVED", f"{1.4 + shift}"))
    with (place / "pw.out").open("wb") as out:
        subprocess.run(["pw.x", "-in", "pw.in"], cwd=place, stdout=out, env={**os.environ, **ALONE}, check=True)
    (frame,) = read_frames(place / "pw.out", ["Al"])
    assert frame.structure is not None
    assert frame.label is not None
    return frame.structure, frame.label
