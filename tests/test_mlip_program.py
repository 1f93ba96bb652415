"""What MLIP's program does to those who trust it, and that we do not."""

from pathlib import Path

import pytest
from fixtures_mtp import labelled
from mlip_programs import put_on_path

from db.errors import InputError, MissingError
from db.records import Structure
from tasks.engines.mlip_output import (
    Errors,
    MlipError,
    argv_of,
    count_configurations,
    outputs,
    read_report,
    refuse_other_settings,
    run_logged,
    why_it_ended,
)
from tasks.engines.mlip_program import MLIP_2, Mlp
from tasks.formats.mtp import read_potential, write_potential
from tasks.mtp.basis import untrained
from tasks.mtp.data_sets import Sample, read_samples, write_samples

REPORT = """
_________________Errors report_________________
Energy:
\tErrors checked for 88 configurations
\tMaximal absolute difference = 0.279588
\tAverage absolute difference = 0.0380437
\tRMS     absolute difference = 0.0656063

Energy per atom:
\tErrors checked for 88 configurations
\tMaximal absolute difference = 0.125201
\tAverage absolute difference = 0.0175206
\tRMS     absolute difference = 0.0273478

Forces:
\tErrors checked for 177 atoms
\tMaximal absolute difference = 0.350468
\tAverage absolute difference = 0.0744261
\tRMS     absolute difference = 1.0272e-01
\tMax(ForceDiff) / Max(Force) = 0.196406
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a potential that has coefficients, and four configurations."""
    put_on_path(tmp_path / "bin", monkeypatch)
    where = tmp_path / "work"
    where.mkdir()
    potential = untrained(2, 1, 1.5, 5.0, 4)
    import numpy as np

    rng = np.random.default_rng(3)
    potential.radial_coeffs = rng.normal(size=(1, 1, 1, 4))
    potential.species_coeffs, potential.moment_coeffs = np.array([0.3]), np.array([0.7])
    write_potential(where / "pot.mtp", potential)
    write_samples(where / "four.cfg", labelled(4, 2), ["Al"])
    return where


def test_a_command_that_there_is_not_ends_with_exit_code_0_and_is_an_error(place: Path) -> None:
    said = run_logged(["mlp-2", "calculate_grade"], place, "log")
    assert said.code == 0
    with pytest.raises(MlipError, match="calculate_grade does not exist"):
        Mlp(("mlp-2",), place).calculate_grade("pot.mtp", "four.cfg", "graded.cfg")


def test_a_wrong_number_of_arguments_ends_with_exit_code_0_and_is_an_error(place: Path) -> None:
    assert run_logged(["mlp", "train", "pot.mtp"], place, "log").code == 0
    with pytest.raises(MlipError, match="2 arguments required"):
        # three of them, as MLIP-2 has it
        Mlp(("mlp", "calculate_efs", "x", "y", "z"), place).calculate_efs("pot.mtp", "four.cfg", "efs.cfg")


def test_every_other_failure_is_exit_code_9_with_a_word(place: Path) -> None:
    with pytest.raises(MlipError, match=r"exit code 9: ERROR: Cannot open nowhere\.mtp"):
        Mlp(("mlp",), place).check_errors("nowhere.mtp", "four.cfg")


def test_a_program_that_is_not_there_is_told_with_a_cure(place: Path) -> None:
    with pytest.raises(MissingError, match="module load") as raised:
        Mlp(("no-such-mlp",), place).check_errors("pot.mtp", "four.cfg")
    assert "no-such-mlp" in str(raised.value)


def test_nothing_that_is_read_is_overwritten(place: Path) -> None:
    mlp, before = Mlp(("mlp",), place), (place / "four.cfg").read_bytes()
    with pytest.raises(MlipError, match="would overwrite"):
        mlp.calculate_efs("pot.mtp", "four.cfg", "four.cfg")
    with pytest.raises(MlipError, match="would overwrite"):
        mlp.train("pot.mtp", "four.cfg", "pot.mtp", {})
    with pytest.raises(MlipError, match="would overwrite"):
        mlp.select("pot.mtp", "four.cfg", "pot.mtp")
    assert mlp.calculate_efs("pot.mtp", "four.cfg", "efs.cfg") == [place / "efs.cfg"]
    assert mlp.nearest("four.cfg") == pytest.approx(nearest_of(place / "four.cfg"), rel=1e-5)
    assert (place / "four.cfg").read_bytes() == before
    # and it would have been, by the command as it stands in the paper
    run_logged(["mlp", "calculate_efs", "pot.mtp", "four.cfg"], place, "log")
    assert (place / "four.cfg").read_bytes() != before


def nearest_of(path: Path) -> float:
    from tasks.formats.atoms import to_atoms

    found = []
    for sample in read_samples(path, ["Al"]):
        atoms = to_atoms(sample.structure).repeat((3, 3, 3))
        distances = atoms.get_all_distances(mic=True)
        found.append(distances[distances > 0].min())
    return float(min(found))


def test_the_rank_behind_a_name_is_found_and_what_was_there_before_is_not(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLP_RANKS", "1")
    (place / "efs.cfg").write_text("of yesterday")
    (place / "efs.cfg.3").write_text("of yesterday")
    assert Mlp(("mlp",), place).calculate_efs("pot.mtp", "four.cfg", "efs.cfg") == [place / "efs.cfg.0"]
    for name in ("efs.cfg", "efs.cfg.10", "efs.cfg.2", "efs.cfg.old"):
        (place / name).touch()
    assert [file.name for file in outputs(place / "efs.cfg")] == ["efs.cfg", "efs.cfg.0", "efs.cfg.2", "efs.cfg.10"]


def test_a_conversion_that_makes_nothing_is_an_error(place: Path) -> None:
    (place / "OUTCAR").write_text("cut short")
    with pytest.raises(MlipError, match="made 0 configurations of OUTCAR: it may be cut short"):
        Mlp(("mlp",), place).convert("OUTCAR", "new.cfg", "outcar")


def test_grades_and_selection_come_from_mlip_as_from_us(place: Path) -> None:
    mlp = Mlp(("mlp",), place)
    mlp.select("pot.mtp", "four.cfg", "pot.almtp")
    assert read_potential(place / "pot.almtp").moment_coeffs is not None
    write_samples(place / "none.cfg", [], ["Al"])
    (graded,) = mlp.calculate_grade("pot.almtp", "four.cfg", "graded.cfg")
    assert max(float(sample.features["MV_grade"]) for sample in read_samples(graded, ["Al"])) == pytest.approx(1.0)
    assert mlp.select_add("pot.almtp", "four.cfg", "none.cfg", "new.cfg") == [place / "new.cfg"]
    assert count_configurations(place / "new.cfg") == 0
    wide = Structure.from_json(labelled(1, 9)[0].structure.to_json() | {"cell": [[9, 0, 0], [0, 9, 0], [0, 0, 2.2]]})
    write_samples(place / "wide.cfg", [Sample(wide)], ["Al"])
    mlp.select_add("pot.almtp", "four.cfg", "wide.cfg", "new.cfg")
    assert count_configurations(place / "new.cfg") == 1


def test_mlip_2_is_spelled_otherwise(place: Path) -> None:
    mlp = Mlp(("mlp-2",), place, MLIP_2)
    mlp.calculate_grade("pot.mtp", "four.cfg", "graded.cfg", train="four.cfg", state="pot.als")
    assert (place / "pot.als").is_file()
    assert mlp.check_errors("pot.mtp", "four.cfg").configurations == 4


def test_a_report_is_read_as_it_is_printed() -> None:
    assert read_report(REPORT) == Errors(88, 0.0273478, 0.10272)
    assert read_report(REPORT + REPORT.replace("0.0273478", "1e-3")) == Errors(88, 1e-3, 0.10272)
    assert read_report("no report") is None


def test_settings_that_were_not_taken_are_noticed() -> None:
    text = "\tno_mindist_update = true\n\titeration_limit = 50\n\tenergy_weight = 1.000000\n\tenergy_weight = 7.0\n"
    wanted = {"no_mindist_update": "true", "iteration_limit": "50", "energy_weight": "1", "al_mode": "cfg"}
    refuse_other_settings(text, wanted)
    with pytest.raises(MlipError, match=r"has not taken energy_weight = 2: it says 1\.000000"):
        refuse_other_settings(text, wanted | {"energy_weight": "2"})
    with pytest.raises(MlipError, match=r"has not taken threshold_save = 2\.1: it says nothing"):
        refuse_other_settings(text, {"threshold_save": "2.1"})


def test_why_a_fit_has_ended_is_read() -> None:
    log = "BFGS iter 73: f=1\nstep limit reached\nBFGS iter 0: f=1\nBFGS iter 41: f=0.5\n"
    assert why_it_ended(f"{log}BFGS ended due to small decr. in 50 iterations\n") == (
        42,
        "BFGS ended due to small decr. in 50 iterations",
    )
    assert why_it_ended("") == (0, "")


def test_a_command_is_words_and_a_wrong_one_is_refused() -> None:
    assert argv_of("mpirun -n 2 'my mlp'") == ("mpirun", "-n", "2", "my mlp")
    for wrong in ("", "mlp 'x"):
        with pytest.raises(InputError, match="cannot be used"):
            argv_of(wrong)
