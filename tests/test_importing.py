"""`pilot import`: what a user has already, taken in as what it is."""

import csv
import gzip
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from command_line import Typist, living_pilot
from folders import make_folder
from qe_runs import ALONE, needs_pw
from sqlalchemy import Connection

from db import dataset
from db.dataset import Candidate
from db.engine import open_reader, open_writer
from db.errors import InputError
from db.records import Label, Structure
from db.states import Role, TaskKind
from pilot.campaign.driver import Driver
from pilot.campaign.from_config import protocol_of
from pilot.campaign.importing import import_labels, item_of
from pilot.cli.import_checks import contradictions
from pilot.cli.import_files import files_of
from pilot.config import read_config
from pilot.folder import Folder
from tasks.formats.atoms import from_atoms
from tasks.formats.cfg import from_structure, write_cfg
from tasks.formats.frames import Frame, Telling
from tasks.formats.labelled_files import kind_of, read_frames, tell

CONFIG = """
[campaign]
name = "test"
species = ["Al", "Ni"]
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 0
holdout = 0
eos_points = 0
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
"""
QE = (
    CONFIG.replace(', "Ni"', "").split("[label]", maxsplit=1)[0]
    + """
[label]
engine = "qe"
[label.qe]
pseudopotentials = { Al = "Al.pz-vbc.UPF" }
ecutwfc = 12
degauss = 0.05
[train]
min_dist = 1.8
"""
)
PW_INPUT = """
&control
 prefix = 'al', outdir = 'out', pseudo_dir = '/usr/share/espresso/pseudo', tprnfor = .true., tstress = .true.
/
&system
 ibrav = 0, nat = 2, ntyp = 1, ecutwfc = 12, occupations = 'smearing', smearing = 'mv', degauss = 0.05
/
&electrons
 conv_thr = 1e-9
/
ATOMIC_SPECIES
Al 26.98 Al.pz-vbc.UPF
CELL_PARAMETERS angstrom
2.9 0.1 0.0
0.0 2.8 0.2
0.0 0.1 4.2
ATOMIC_POSITIONS angstrom
Al 0 0 0
Al 1.3 1.5 2.2
K_POINTS automatic
2 2 2 0 0 0
"""
VASP_FILES = Path(ase.__file__).parent / "test/testdata/vasp"
needs_vasp_files = pytest.mark.skipif(not VASP_FILES.is_dir(), reason="this ASE comes without its sample files")
REACHED = "aborting loop because EDIFF is reached"


def labelled(seed: int, energy: float | None = None, symbol: str = "Al") -> Atoms:
    """Two atoms with the label of EMT, or the one of EMT with another energy."""
    atoms = bulk(symbol, "fcc", a=4.0, cubic=False).repeat((1, 1, 2))
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    results = {"forces": atoms.get_forces(), "stress": atoms.get_stress(), "energy": atoms.get_potential_energy()}
    atoms.calc = SinglePointCalculator(atoms, **results | ({} if energy is None else {"energy": energy}))
    return atoms


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    make_folder(tmp_path, CONFIG)
    ase.io.write(tmp_path / "two.extxyz", [labelled(1), labelled(2)])
    return Typist(tmp_path, capsys, monkeypatch)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def recorded(folder: Folder, role: str = "train", settings: str | None = None) -> list[tuple[Label, dict[str, object]]]:
    with open_reader(folder.copy) as connection:
        return [(label, about) for _, label, about in dataset.read_labelled(connection, role, settings)]


def own_settings(folder: Folder) -> str:
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    return protocol.label_settings()


def test_without_a_word_on_the_settings_nothing_is_imported(typed: Typist) -> None:
    said = typed.fails("import", "two.extxyz", code=2)
    assert "`pilot import two.extxyz --settings this`" in said
    assert "`pilot import two.extxyz --settings NAME`" in said
    assert not typed.folder.copy.exists()


def test_labels_of_these_settings_are_training_data_once(typed: Typist) -> None:
    assert last_line(typed("import", "two.extxyz", "--settings", "this", "--dry-run").out) == (
        "read 2, would be added 2, duplicates 0, conflicts 0, refused 0"
    )
    assert not typed.folder.copy.exists()
    assert last_line(typed("import", "two.extxyz", "--settings", "this").out) == (
        "read 2, added 2, duplicates 0, conflicts 0, refused 0"
    )
    # the same under another name, in another format
    atoms = ase.io.read(typed.folder.root / "two.extxyz", index=":")
    rows = [from_atoms(image) for image in atoms]
    write_cfg(typed.folder.root / "again.cfg", (from_structure(s, label, ["Al", "Ni"]) for s, label in rows))
    with ase.db.connect(typed.folder.root / "again.db") as database:
        for image in atoms:
            database.write(image)
    said = typed("import", "again.cfg", "again.db", "--settings", "this")
    assert last_line(said.out) == "read 4, added 0, duplicates 4, conflicts 0, refused 0"
    assert "their `energy` was taken" in said.err
    (first, about), (second, _) = recorded(typed.folder, settings=own_settings(typed.folder))
    assert first.energy == pytest.approx(labelled(1).get_potential_energy())
    assert np.allclose(second.forces, labelled(2).get_forces(), atol=1e-7)
    assert about["provenance"] == {
        "file": "two.extxyz", "index": 1, "engine": "", "version": "", "energy": "energy"
    }  # fmt: skip
    assert about["source"] == "two.extxyz #1"


def test_two_labels_of_one_structure_are_a_conflict_and_change_nothing(typed: Typist) -> None:
    typed("import", "two.extxyz", "--settings", "this")
    # 1.5 meV/atom above, and a hundredth of that
    energy = labelled(1).get_potential_energy()
    for name, more in (("other.extxyz", 0.003), ("close.extxyz", 0.00003)):
        ase.io.write(typed.folder.root / name, labelled(1, energy + more))
    said = typed("import", "other.extxyz", "close.extxyz", "--settings", "this", code=1)
    assert "conflict: other.extxyz #1 and two.extxyz #1: the same structure, 1.5 meV/atom" in said.out
    assert last_line(said.out) == "read 2, added 0, duplicates 1, conflicts 1, refused 0"
    assert recorded(typed.folder)[0][0].energy == pytest.approx(energy)


def test_a_species_that_is_not_trained_refuses_all(typed: Typist) -> None:
    ase.io.write(typed.folder.root / "cu.extxyz", labelled(3, symbol="Cu"))
    said = typed.fails("import", "two.extxyz", "cu.extxyz", "--settings", "this", code=2)
    assert "this campaign does not know Cu: its species are Al, Ni" in said
    assert "Cu: cu.extxyz #1" in said
    assert not typed.folder.copy.exists()


def test_nonsense_is_refused_one_by_one_with_its_place(typed: Typist) -> None:
    bare, nan, strong = labelled(4), labelled(5), labelled(6)
    bare.info["REF_energy"] = -3.0
    bare.calc = None
    nan.calc.results["energy"] = float("nan")
    strong.calc.results["forces"] = np.full((2, 3), 5000.0)
    images = [labelled(3), bare, nan, labelled(7, energy=-1e9), strong]
    ase.io.write(typed.folder.root / "some.extxyz", images)
    (typed.folder.root / "broken.extxyz").write_text("2\nhalf\nAl 0 0 0\n")
    said = typed("import", "some.extxyz", "broken.extxyz", "--settings", "this", code=1)
    assert "refused: some.extxyz #2: no energy (but REF_energy: call them energy and forces)" in said.out
    assert "refused: some.extxyz #3: an energy, a force or a stress that is not finite" in said.out
    assert "refused: some.extxyz #4: an energy of -5e+08 eV for each atom" in said.out
    assert "refused: some.extxyz #5: a force of 5e+03 eV/Å" in said.out
    assert "refused: broken.extxyz: 2 atoms are promised, and the file ends" in said.out
    assert last_line(said.out) == "read 5, added 1, duplicates 0, conflicts 0, refused 5"


@pytest.mark.parametrize(
    ("shift", "said"), [("Na=3", "this campaign has no species 'Na'"), ("Al", "'Al' is no species with an energy")]
)
def test_energies_are_taken_off_for_species_of_the_campaign_only(typed: Typist, shift: str, said: str) -> None:
    assert said in typed("import", "two.extxyz", "--settings", "this", "--shift", shift, code=2).err


def test_a_structure_that_is_here_keeps_its_role_and_that_is_said_each_time(typed: Typist) -> None:
    typed("import", "two.extxyz", "--settings", "this")
    again = typed("import", "two.extxyz", "--settings", "this", "--role", "holdout")
    assert "2 are of structures that are here in another role" in again.err
    assert last_line(again.out) == "read 2, added 0, duplicates 2, conflicts 0, refused 0"


def test_other_settings_are_kept_apart_and_exported_apart(typed: Typist) -> None:
    typed("import", "two.extxyz", "--settings", "this", "--limit", "1")
    typed("import", "two.extxyz", "--settings", "pbe-520eV", "--shift", "Al=-1.5")
    ase.io.write(typed.folder.root / "test.extxyz", labelled(8))
    typed("import", "test.extxyz", "--settings", "pbe-520eV", "--role", "test")
    assert len(recorded(typed.folder, settings=own_settings(typed.folder))) == 1
    apart = recorded(typed.folder, settings="pbe-520eV")
    assert apart[0][0].energy == pytest.approx(labelled(1).get_potential_energy() + 3.0)
    assert len(recorded(typed.folder, role="test")) == 1
    written = typed("export", "--to", "out").out
    assert "out/other-settings/pbe-520eV/train.extxyz" in written
    place = typed.folder.root / "out"
    assert len(ase.io.read(place / "train.extxyz", index=":")) == 1
    assert len(ase.io.read(place / "other-settings/pbe-520eV/train.extxyz", index=":")) == 2
    test = ase.io.read(place / "other-settings/pbe-520eV/test.extxyz")
    assert (test.info["role"], test.info["settings"], test.info["source"]) == ("test", "pbe-520eV", "test.extxyz #1")
    assert set(json.loads((place / "settings.json").read_text())) == {"pbe-520eV", own_settings(typed.folder)}
    with (place / "provenance.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["imported_from"] for line in lines] == ["two.extxyz", "two.extxyz", "two.extxyz", "test.extxyz"]
    assert "pbe-520eV: 2 train, 1 test" in (place / "README.txt").read_text()


@pytest.mark.parametrize("given", ["qe-0123456789ab", "a b", "this/low", ""])
def test_a_name_of_settings_that_cannot_be_one(typed: Typist, given: str) -> None:
    assert "where: --settings" in typed.fails("import", "two.extxyz", "--settings", given, code=2)


def test_every_and_last_and_limit(typed: Typist) -> None:
    ase.io.write(typed.folder.root / "seven.extxyz", [labelled(n) for n in range(7)])
    for options, read in ((["--every", "3"], 3), (["--last"], 1), (["--every", "2", "--limit", "3"], 3)):
        said = typed("import", "seven.extxyz", "--settings", "x", "--dry-run", *options).out
        assert last_line(said).startswith(f"read {read}, would be added {read},")


def test_a_living_pilot_takes_them_in_parts(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilot.cli.importing._PART", 2)
    # a machine that others use too may be slow to answer
    monkeypatch.setattr("pilot.cli.asking.PATIENCE_S", 60.0)
    ase.io.write(typed.folder.root / "five.extxyz", [labelled(n) for n in range(5)])
    typed.folder.config.write_text(CONFIG.replace("train = 0", "train = 2"))
    with living_pilot(typed.folder):
        said = typed("import", "five.extxyz", "--settings", "this")
        assert last_line(said.out) == "read 5, added 5, duplicates 0, conflicts 0, refused 0"


def test_a_request_that_no_command_made_is_refused_in_words(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CONFIG)
    protocol = protocol_of(read_config(folder.config), folder)
    structure, label = from_atoms(labelled(1))
    assert label is not None
    item = item_of(structure, Label(label.energy, label.forces[:1]), {"file": "x", "index": 1})
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        with pytest.raises(ValueError, match="forces of 1 of 2 atoms"):
            import_labels({"role": "train", "settings": "this", "items": [item]}, protocol, connection, 1.0)
        with pytest.raises(InputError, match="cannot be imported as eos"):
            import_labels({"role": "eos", "settings": "this", "items": []}, protocol, connection, 1.0)
        with pytest.raises(InputError, match="no campaign"):
            import_labels({"role": "train", "settings": "this", "items": []}, None, connection, 1.0)
    writer.close()


# what a campaign does with them


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    folder = make_folder(tmp_path, CONFIG)
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    return Driver(folder, protocol)


@pytest.fixture
def connection(driver: Driver) -> Iterator[Connection]:
    writer = open_writer(driver.folder.database)
    with writer.transaction() as opened:
        yield opened
    writer.close()


def take_in(connection: Connection, driver: Driver, seeds: Sequence[int], settings: str = "this") -> list[Structure]:
    rows = [from_atoms(labelled(seed)) for seed in seeds]
    items = [item_of(s, label, {"file": "mine", "index": n}) for n, (s, label) in enumerate(rows, 1) if label]
    arguments = {"role": "train", "settings": settings, "items": items}
    assert import_labels(arguments, driver.protocol, connection, 1.0)["added"] == len(seeds)
    return [structure for structure, _ in rows]


def test_a_campaign_begins_with_labels_alone(driver: Driver, connection: Connection) -> None:
    with pytest.raises(InputError, match="there is nothing to train the first potential on"):
        driver.begin(connection, 1.0)
    take_in(connection, driver, [1, 2], settings="apart")
    with pytest.raises(InputError, match="0 labels were imported with these settings"):
        driver.begin(connection, 1.0)
    take_in(connection, driver, [3, 4])
    tasks = driver.begin(connection, 1.0).tasks
    assert not [task for task in tasks if task.kind is TaskKind.LABEL]
    (fit,) = [task for task in tasks if task.kind is TaskKind.TRAIN]
    assert fit.after == ()


def test_a_structure_that_was_imported_is_never_labelled_again(driver: Driver, connection: Connection) -> None:
    ours, others = take_in(connection, driver, [1, 2]), take_in(connection, driver, [3], settings="apart")
    (fresh, _) = from_atoms(labelled(4))
    driver.begin(connection, 1.0)
    # the user asks for it
    tasks, known = driver.add_labels(connection, [(structure, "again") for structure in ours])
    assert (tasks, known) == ([], 2)
    # an exploration finds it; what has labels of other settings only is as good as new
    selected = [Candidate(s, Role.TRAIN, "found", 3.0) for s in (*ours, *others, fresh)]
    settings = driver.protocol.label_settings()
    known_here = [dataset.is_known(connection, candidate.structure, settings) for candidate in selected]
    assert known_here == [True, True, False, False]
    # and when its stage labels with another fidelity, it is like any other that was labelled with the first
    again = dataset.read_structures(connection, [Role.TRAIN], "ase-of-high-fidelity", [settings])
    assert [candidate.structure for candidate in again] == ours
    assert dataset.read_structures(connection, [Role.TRAIN], settings, [settings]) == []


# the files of VASP


def frames(path: Path) -> list[Frame]:
    return list(read_frames(path, ["Al", "Ni"]))


@needs_vasp_files
def test_an_outcar_gives_its_converged_steps(tmp_path: Path) -> None:
    text = (VASP_FILES / "OUTCAR_example_1").read_text()
    begin = text.index("---------------------------------------- Iteration    1(   1)")
    end = text.index("General timing")
    step = text[begin:end]
    second = step.replace("Iteration    1(", "Iteration    2(")
    given_up = second.replace(REACHED, "aborting loop EDIFF was not reached (unconverged)")
    path = tmp_path / "OUTCAR.gz"
    path.write_bytes(gzip.compress((text[:begin] + step + given_up + second.replace("2(", "3(") + text[end:]).encode()))
    assert kind_of(path) == "outcar"
    first, bad, third = frames(path)
    assert first.label == third.label
    assert first.label is not None
    # TOTEN, not the energy without smearing
    assert f"free  energy   TOTEN  =       {first.label.energy:.8f} eV" in text
    assert (bad.index, bad.label, bad.problem) == (2, None, "the electrons were not converged (EDIFF was not reached)")
    told = tell(path)
    assert (told.engine, told.version, told.settings["encut"]) == ("vasp", "vasp.5.3.3", 300.0)
    assert told.settings["potcars"] == {"Ni": "Ni"}


@needs_vasp_files
def test_an_outcar_that_is_cut_loses_its_last_step_only(tmp_path: Path) -> None:
    text = (VASP_FILES / "OUTCAR_example_1").read_text()
    begin, end = text.index("---------------------------------------- Iteration    1("), text.index("General timing")
    second = text[begin:end].replace("Iteration    1(", "Iteration    2(")
    path = tmp_path / "OUTCAR"
    for cut in (second[:2000], second[: second.index("TOTAL-FORCE") + 400]):
        path.write_text(text[:end] + cut)
        whole, lost = frames(path)
        assert whole.label is not None
        assert (lost.label, lost.problem) == (None, "the file ends in the middle of this step")


@needs_vasp_files
def test_a_vasprun_gives_its_converged_steps(tmp_path: Path) -> None:
    text = (VASP_FILES / "vasprun_pstress.xml").read_text()
    path = tmp_path / "vasprun.xml"
    path.write_text(text)
    (frame,) = frames(path)
    assert frame.label is not None
    # e_fr_energy is an enthalpy here; what the forces belong to is without PV
    assert frame.label.energy == pytest.approx(-20.246959373169393)
    steps = text.count("<scstep>")
    path.write_text(text.replace('name="NELM">    60', f'name="NELM"> {steps}').replace("0.00010000", "0.00000000"))
    assert [f.problem for f in frames(path)] == ["the electrons were not converged (EDIFF was not reached)"]
    path.write_text(text[: text.index("</calculation>") + 14])
    whole, lost = frames(path)
    assert (whole.label is None, lost.problem) == (False, "the file ends in the middle of this step")


# the files of pw.x


@pytest.fixture(scope="module")
def pw_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the input, the output and the XML of a real run."""
    place = tmp_path_factory.mktemp("pw")
    (place / "pw.in").write_text(PW_INPUT)
    with (place / "pw.out").open("wb") as out:
        subprocess.run(["pw.x", "-in", "pw.in"], cwd=place, stdout=out, env={**os.environ, **ALONE}, check=True)
    return place


@needs_pw
def test_output_and_xml_of_pw_agree_and_a_folder_is_read_once(pw_run: Path) -> None:
    found, left_out = files_of([pw_run], [])
    assert found == [pw_run / "pw.out"]
    # out/al.xml and out/al.save/data-file-schema.xml
    assert left_out == 2
    (xml,) = [path for path in pw_run.rglob("*.xml") if path.name == "data-file-schema.xml"]
    (printed,), (exact,) = frames(found[0]), frames(xml)
    assert printed.label is not None
    assert exact.label is not None
    assert printed.label.stress is not None
    assert printed.structure is not None
    assert exact.structure is not None
    assert printed.label.energy == pytest.approx(exact.label.energy, abs=1e-6)
    assert np.allclose(printed.label.forces, exact.label.forces, atol=1e-6)
    assert np.allclose(printed.label.stress, exact.label.stress or (), atol=1e-6)
    assert np.allclose(printed.structure.positions, exact.structure.positions, atol=1e-6)
    for path in (found[0], xml):
        assert tell(path).settings["ecutwfc"] == 12.0
        assert tell(path).settings["pseudopotentials"] == {"Al": "Al.pz-vbc.UPF"}


@needs_pw
def test_an_output_of_pw_that_did_not_converge_or_was_cut_is_refused(pw_run: Path, tmp_path: Path) -> None:
    text = (pw_run / "pw.out").read_text()
    path = tmp_path / "pw.out"
    cases = {
        "the electrons were not converged": text.replace(
            "estimated scf accuracy    <", "estimated scf accuracy    < 9"
        ),
        "the output ends in the middle of this step": text[: text.index("Forces acting")],
    }
    for problem, content in cases.items():
        path.write_text(content)
        assert frames(path)[0].problem == problem
        assert all(frame.label is None for frame in frames(path))
    path.write_text(
        text.split("!    total energy", maxsplit=1)[0] + "convergence NOT achieved after 2 iterations: stopping\n"
    )
    assert [frame.problem for frame in frames(path)] == ["the electrons were not converged"]


def test_what_a_file_says_against_the_settings_is_found(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, QE)
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    table = protocol.label.settings()
    same = {"ecutwfc": 12.0, "ecutrho": 48.0, "degauss": 0.05, "pseudopotentials": {"Al": "Al.pz-vbc.UPF"}}
    assert contradictions(protocol, table, Telling("qe", "6.7", same | {"kpoints": [9, 9, 9]})) == []
    assert contradictions(protocol, table, Telling()) == []
    other = same | {"ecutrho": 96.0, "pseudopotentials": {"Al": "Al.upf"}}
    assert contradictions(protocol, table, Telling("qe", "6.7", other)) == [
        "ecutrho is 96, and label.qe.ecutrho is 48",
        "Al has Al.upf, and label.qe.pseudopotentials.Al is Al.pz-vbc.UPF",
    ]
    assert contradictions(protocol, table, Telling("vasp")) == ["it is of vasp, and [label] engine is qe"]
