"""VASP as a label engine, with a program that behaves like it; its physics are ASE's EMT."""

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from vasp_runs import SPECIES, judged, library, program, run, strained, work

from db.errors import InputError
from db.states import Verdict
from tasks.engines.vasp import ENGINE
from tasks.engines.vasp_settings import check_settings
from tasks.formats.atoms import from_atoms
from tasks.formats.cfg import from_structure, read_cfg, to_label, write_cfg
from tasks.protocol import Work

KEPT = ["INCAR", "KPOINTS", "OSZICAR", "OUTCAR", "POSCAR", "POTCAR.titles", "vasp.err", "vasp.out", "vasprun.xml"]


def reference(atoms: Atoms) -> Atoms:
    """The same with EMT's own numbers, periodic as all is in VASP."""
    known = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    known.calc = EMT()
    return known


def text(task: Work, name: str) -> str:
    return (task.directory / name).read_text()


# --- signs, units and order -----------------------------------------------------------------------------------


def test_energy_forces_and_stress_come_back_as_they_were_through_every_format(tmp_path: Path) -> None:
    """EMT → VASP's files → our label, ASE's two readers, MLIP's .cfg and back: one structure, one set of numbers."""
    task = work(tmp_path, strained())
    judgement = judged(task)
    assert judgement.verdict is Verdict.DONE, judgement.reason
    label, known = judgement.label, reference(strained())
    assert label is not None
    assert label.energy == pytest.approx(known.get_potential_energy(), abs=1e-6)
    assert np.array(label.forces) == pytest.approx(known.get_forces(), abs=1e-6)
    assert label.stress is not None
    assert np.array(label.stress) == pytest.approx(known.get_stress(), abs=1e-6)
    assert np.abs(label.forces).max() > 0.1
    assert min(abs(x) for x in label.stress) > 1e-4

    species_by_species = [1, 0, 2, 3]
    for name, form in (("OUTCAR", "vasp-out"), ("vasprun.xml", "vasp-xml")):
        read = ase.io.read(task.directory / name, format=form)
        assert read.get_potential_energy(force_consistent=True) == pytest.approx(label.energy, abs=1e-6)
        assert read.get_forces() == pytest.approx(np.array(label.forces)[species_by_species], abs=1e-6)
        assert read.get_stress() == pytest.approx(np.array(label.stress), abs=1e-6)

    structure, _ = from_atoms(strained())
    write_cfg(tmp_path / "x.cfg", [from_structure(structure, label, SPECIES)])
    (again,) = [to_label(configuration) for configuration in read_cfg(tmp_path / "x.cfg")]
    assert again is not None
    assert again.energy == pytest.approx(label.energy, abs=1e-6)
    assert np.array(again.forces) == pytest.approx(np.array(label.forces), abs=1e-6)
    assert again.stress == pytest.approx(label.stress, abs=1e-6)
    # PlusStress of MLIP is VASP's line "Total", in another order
    total = [float(word) for word in text(task, "OUTCAR").split("  Total  ")[1].split("\n")[0].split()]
    plus = [float(word) for word in (tmp_path / "x.cfg").read_text().split("PlusStress")[1].split("\n")[1].split()]
    assert plus == pytest.approx([total[i] for i in (0, 1, 2, 4, 5, 3)], abs=1e-4)


def test_forces_are_derivatives_of_the_energy(tmp_path: Path) -> None:
    labels = []
    for number, step in enumerate((-1e-3, 0.0, 1e-3)):
        atoms = strained()
        atoms.positions[3, 1] += step
        labels.append(judged(work(tmp_path / str(number), atoms, ediff=1e-8)).label)
    slope = (labels[2].energy - labels[0].energy) / 2e-3
    assert abs(slope) > 0.1
    assert labels[1].forces[3][1] == pytest.approx(-slope, abs=1e-4)


def test_the_pressure_is_the_one_in_kilobar_that_vasp_prints(tmp_path: Path) -> None:
    task = work(tmp_path, strained())
    judgement = judged(task)
    printed = float(text(task, "OUTCAR").split("external pressure =")[1].split()[0])
    assert judgement.facts["pressure"] == pytest.approx(0.1 * printed, abs=1e-3)


def again(task: Work) -> Path:
    folder = task.directory.with_name("again")
    folder.mkdir()
    return folder


def test_a_left_handed_cell_is_given_to_vasp_right_handed_and_means_the_same(tmp_path: Path) -> None:
    atoms = strained()
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    assert np.linalg.det(atoms.cell[:]) < 0
    task = work(tmp_path, atoms, kpoints=[2, 3, 4])
    judgement = judged(task)
    assert judgement.verdict is Verdict.DONE, judgement.reason
    assert text(task, "KPOINTS").splitlines()[2:4] == ["Gamma", "2 4 3"]
    known = reference(strained())
    assert np.array(judgement.label.forces) == pytest.approx(known.get_forces(), abs=1e-6)
    assert np.array(judgement.label.stress) == pytest.approx(known.get_stress(), abs=1e-6)
    assert judgement.facts["kpoints"] == [2, 3, 4]


def test_a_cluster_sits_in_its_box_at_one_k_point_without_a_stress(tmp_path: Path) -> None:
    atoms = Atoms("AlCuAl", [[-1.0, 5, 5], [1.4, 5.2, 5], [1.2, 7.4, 4.9]], cell=[11, 12, 13], pbc=False)
    task = work(tmp_path, atoms, kpoints=[4, 4, 4])
    judgement = judged(task)
    assert judgement.verdict is Verdict.DONE, judgement.reason
    assert text(task, "KPOINTS").splitlines()[3] == "1 1 1"
    assert judgement.label.stress is None
    assert "pressure" not in judgement.facts
    assert np.array(judgement.label.forces) == pytest.approx(reference(atoms).get_forces(), abs=1e-6)


# --- what is written ------------------------------------------------------------------------------------------


def test_what_is_kept_is_what_proves_the_label(tmp_path: Path) -> None:
    task = work(tmp_path)
    run(task)
    held = {path.name for path in task.directory.iterdir()}
    assert {"POTCAR", "CONTCAR", "vaspout.h5"} <= held
    judgement = ENGINE.judge(task, run(task))
    assert sorted(path.name for path in task.directory.iterdir()) == KEPT
    facts = judgement.facts
    assert facts["potcars"] == ["PAW_PBE Al 01Jan2000"]
    assert facts["vasp_version"] == "vasp.6.4.3"
    assert 2 <= facts["scf_steps"] < 100
    assert facts["kpoints"] == [7, 7, 4]
    assert "corrections" not in facts


def test_what_a_user_asks_for_is_kept(tmp_path: Path) -> None:
    task = work(tmp_path, incar={"LCHARG": True})
    assert judged(task).verdict is Verdict.DONE
    assert (task.directory / "CHGCAR").is_file()


def test_the_potcar_is_for_our_eyes_only_and_gone_when_the_run_is_judged(tmp_path: Path) -> None:
    task = work(tmp_path, strained())
    ENGINE.prepare(task)
    potcar = task.directory / "POTCAR"
    assert potcar.is_symlink()
    assert potcar.resolve().parent == task.directory / "scratch"
    assert potcar.stat().st_mode & 0o077 == 0
    # species by species, each once
    content = potcar.read_text()
    assert [line.split()[-1] for line in content.splitlines() if "secret" in line] == ["Cu", "Al", "Ag"]
    run(task)
    ENGINE.judge(task, run(task))
    everything = "".join(path.read_text(errors="replace") for path in task.directory.rglob("*") if path.is_file())
    assert "secret numbers" not in everything
    assert text(task, "POTCAR.titles").count("sha256") == 3


def test_a_run_that_failed_leaves_no_potcar_either(tmp_path: Path) -> None:
    task = work(tmp_path)
    assert judged(task, VASP_FAILS="NAMELESS").verdict is Verdict.CRASHED
    assert not any("POTCAR" in path.name and path.name != "POTCAR.titles" for path in task.directory.rglob("*"))


def test_stale_files_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    task = work(tmp_path)
    for name in ("STOPCAR", "WAVECAR", "CHGCAR"):
        (task.directory / name).write_text("LABORT = .TRUE.\n")
    assert judged(task).verdict is Verdict.DONE


def test_incar_has_the_settings_and_what_else_is_asked_for(tmp_path: Path) -> None:
    moments = {"Cu": 0.5, "Al": 1, "Ag": 0}
    incar = {"MAGMOM": moments, "LDAUU": {"Cu": 4.0, "Al": 0, "Ag": 0}, "ispin": 2, "LASPH": True, "NCORE": 4}
    task = work(tmp_path, strained(), encut=321.0, algo="Fast", incar=incar)
    ENGINE.prepare(task)
    tags = dict(line.split(" = ") for line in text(task, "INCAR").splitlines())
    assert tags["SYSTEM"] == "pilot attempt 17"
    assert (tags["ENCUT"], tags["ALGO"], tags["PREC"]) == ("321.0", "Fast", "Accurate")
    assert (tags["ISPIN"], tags["LASPH"], tags["NCORE"]) == ("2", ".TRUE.", "4")
    assert tags["MAGMOM"] == "1*0.5 2*1 1*0"
    assert tags["LDAUU"] == "4.0 0 0"
    assert (tags["NSW"], tags["LWAVE"], tags["LREAL"]) == ("0", ".FALSE.", ".FALSE.")
    # only the species that are there
    pure = work(tmp_path / "pure", incar=incar)
    ENGINE.prepare(pure)
    assert "MAGMOM = 2*1\n" in text(pure, "INCAR")
    assert "LDAUU = 0\n" in text(pure, "INCAR")


# --- what a user can get wrong ----------------------------------------------------------------------------------


def test_a_potcar_that_is_missing_is_told_with_what_is_there(tmp_path: Path) -> None:
    task = work(tmp_path, potcars={"Al": "Al_GW"})
    library(tmp_path / "library", "Al_sv")
    with pytest.raises(InputError) as caught:
        ENGINE.prepare(task)
    assert caught.value.what == "the POTCAR Al_GW of Al does not exist"
    assert caught.value.where == str(tmp_path / "library")
    assert caught.value.next_step == "set label.vasp.potcars.Al to one of those there: Al, Al_sv"
    assert not (task.directory / "POTCAR").exists()


def test_a_potcar_of_another_element_is_refused(tmp_path: Path) -> None:
    task = work(tmp_path)
    (tmp_path / "library" / "Al" / "POTCAR").write_text(" TITEL  = PAW_PBE Am 01Jan2000\n")
    with pytest.raises(InputError, match='named for Al is of another element: "PAW_PBE Am 01Jan2000"'):
        ENGINE.prepare(task)


def test_without_a_library_the_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VASP_POTCAR_DIR", raising=False)
    task = work(tmp_path, potcar_dir=None)
    with pytest.raises(InputError) as caught:
        ENGINE.prepare(task)
    assert "VASP_POTCAR_DIR" in caught.value.next_step
    monkeypatch.setenv("VASP_POTCAR_DIR", str(tmp_path / "library"))
    assert judged(task).verdict is Verdict.DONE


def test_compressed_potcars_and_flat_libraries_are_read(tmp_path: Path) -> None:
    import gzip

    task = work(tmp_path)
    inside = tmp_path / "library" / "Al" / "POTCAR"
    (tmp_path / "library" / "POTCAR.Al.gz").write_bytes(gzip.compress(inside.read_bytes()))
    inside.unlink()
    assert judged(task).verdict is Verdict.DONE
    (tmp_path / "library" / "POTCAR.Al.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        ENGINE.prepare(replace(task, directory=again(task)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encut": None}, "label.vasp.encut is missing"),
        ({"encut": -1}, "label.vasp.encut must be a positive number"),
        ({"ecut": 300}, 'label.vasp.ecut is not a setting; did you mean "encut"?'),
        ({"incar": {"ENCUT": 500}}, "set label.vasp.encut"),
        ({"incar": {"ialgo": 48}}, "set label.vasp.algo"),
        ({"incar": {"NSW": 10}}, "since a label rests on it"),
        ({"incar": {"PSTRESS": 10}}, "since a label rests on it"),
        ({"incar": {"MAGMOM": [1, 1]}}, "must be a table from element to value, as { Cu = 2.0 }"),
        ({"incar": {"LDAUU": {"Cu": 2}}}, "must have one number for each of Cu, Al, Ag"),
        ({"incar": {"LASPH": {"Cu": 2}}}, "is no tag with a value for each element"),
        ({"incar": {"GGA": "PS\nNSW = 3"}}, "must be a number, a text of one line"),
        ({"incar": {"GGA": "PS; NSW = 3"}}, "must be a number, a text of one line"),
        ({"incar": {"GGA": None}}, "must be a number, a text of one line"),
        ({"incar": 3}, "label.vasp.incar must be a table"),
        ({"potcars": "Cu"}, "label.vasp.potcars must be a table"),
        ({"potcars": {"Cu": "Cu_h"}}, "the POTCAR Cu_h of Cu does not exist"),
    ],
)
def test_settings_that_are_wrong_are_told_before_anything_is_started(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    good = {"potcar_dir": str(library(tmp_path)), "encut": 300.0, "kspacing": 0.3}
    assert check_settings(good, SPECIES) == []
    problems = check_settings({**good, **settings}, SPECIES)
    assert len(problems) == 1, problems
    assert said in problems[0]


def test_structures_that_cannot_be_computed_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="VASP needs a cell"):
        ENGINE.prepare(work(tmp_path / "a", Atoms("Al")))
    with pytest.raises(InputError, match="the structure has Au"):
        ENGINE.prepare(work(tmp_path / "b", bulk("Au")))
    with pytest.raises(InputError, match="no volume"):
        ENGINE.prepare(work(tmp_path / "c", Atoms("Al", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True)))
    with pytest.raises(InputError, match="neither kpoints nor kspacing"):
        ENGINE.prepare(work(tmp_path / "d", kspacing=None))


# --- doctor -----------------------------------------------------------------------------------------------------


def test_what_is_found_is_told_with_the_cutoff_that_a_potcar_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    settings = {"potcar_dir": str(library(tmp_path, enmax=400.0)), "encut": 300.0, "potcars": {"Al": "Al"}}
    missing = ENGINE.find(settings)
    assert not missing.ok
    assert "label.vasp.command" in missing.cure
    monkeypatch.setenv("PATH", f"{program(tmp_path / 'bin').parent}:/usr/bin:/bin")
    found = ENGINE.find(settings)
    assert found.ok
    assert "POTCAR: PAW_PBE Al 01Jan2000" in found.found
    assert "wants at least ENMAX = 400 eV, encut is 300" in found.found
    monkeypatch.setattr("tasks.engines.vasp_remedies._NEEDED", ("custodian", "no_such_package"))
    without = ENGINE.find(settings)
    assert without.ok
    assert "without custodian" in without.found
    assert without.cure == 'pip install "pilot-mtp[vasp]"'
    assert not ENGINE.find({**settings, "potcars": {"Al": "Al_x"}}).ok
