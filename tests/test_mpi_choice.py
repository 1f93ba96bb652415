"""Which launcher is chosen, for which program, on which PATH: with launchers and libraries made up."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from db.errors import InputError, MissingError
from db.records import Share
from pilot.mpi import choose
from pilot.mpi.choose import LAUNCHERS, Chooser
from pilot.mpi.mpich import Mpich
from pilot.mpi.protocol import Slot

JOB = {"SLURM_JOB_ID": "17", "SLURM_CONF": "/etc/slurm.conf"}
ANSWERS = {
    "openmpi4": ("mpirun", "mpirun (Open MPI) 4.1.6"),
    "openmpi5": ("mpirun", "mpirun (Open MPI) 5.0.3"),
    "intelmpi": ("mpiexec.hydra", "Intel(R) MPI Library for Linux* OS, Version 2021.12 Build 20240213 (id: 4f55822)"),
    "mpich": ("mpiexec", "HYDRA build details:\n    Version:                                 4.1.2"),
    "srun": ("srun", "slurm 23.11.4"),
}
VERSIONS = {"openmpi4": "4.1.6", "openmpi5": "5.0.3", "intelmpi": "2021.12", "mpich": "4.1.2", "srun": "23.11.4"}

Made = Callable[..., dict[str, str]]
Library = Callable[[str | None], None]


def install(name: str, folder: Path) -> str:
    program, answer = ANSWERS[name]
    folder.mkdir(exist_ok=True)
    file = folder / program
    file.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\n")
    file.chmod(0o755)
    return str(folder)


@pytest.fixture
def path(tmp_path: Path) -> Made:
    """An environment whose PATH has these launchers, in this order, and nothing else."""
    return lambda *names: {"PATH": os.pathsep.join(install(name, tmp_path / name) for name in names)}


@pytest.fixture
def linked_with(monkeypatch: pytest.MonkeyPatch) -> Library:
    return lambda library: monkeypatch.setattr(choose, "library_of", lambda program, environ: library)


def test_each_mpi_is_told_from_the_others(path: Made) -> None:
    assert Chooser("auto", path(*ANSWERS)).findings() == VERSIONS | {"none": "direct start"}
    assert {name for name, found in Chooser("auto", path()).findings().items() if found} == {"none"}
    for name in ANSWERS:
        assert Chooser(name, path(*reversed(ANSWERS)), JOB).choose(2).name == name


@pytest.mark.parametrize(
    ("library", "there", "chosen"),
    [
        ("openmpi4", ("mpich", "openmpi5", "openmpi4"), "openmpi4"),
        ("openmpi5", ("openmpi4", "openmpi5"), "openmpi5"),
        ("openmpi", ("mpich", "openmpi4", "openmpi5"), "openmpi4"),
        ("openmpi", ("openmpi5", "openmpi4"), "openmpi5"),
        ("intelmpi", ("openmpi4", "mpich", "intelmpi"), "intelmpi"),
        ("intelmpi", ("openmpi4", "mpich"), "mpich"),
        ("mpich", ("openmpi4", "intelmpi", "mpich"), "mpich"),
        ("mpich", ("openmpi4", "intelmpi"), "intelmpi"),
        # of a program that does not say it: what the user has put first
        (None, ("intelmpi", "openmpi4"), "intelmpi"),
        (None, ("openmpi4", "openmpi5", "mpich"), "openmpi4"),
        (None, ("mpich", "openmpi4"), "mpich"),
    ],
)
def test_auto_takes_a_launcher_of_the_programs_mpi(
    path: Made, linked_with: Library, library: str | None, there: tuple[str, ...], chosen: str
) -> None:
    linked_with(library)
    for more in ((), ("srun",)):
        assert Chooser("auto", path(*more, *there), JOB).choose(2, "vasp_std").name == chosen


@pytest.mark.parametrize("library", [None, "mpich", "openmpi4"])
def test_the_mpi_of_our_own_environment_comes_last(
    path: Made, linked_with: Library, library: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked_with(library)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "venv").mkdir()
    own = install("mpich", tmp_path / "venv" / "bin")
    site = path("openmpi4", "mpich")["PATH"]
    environ = {"PATH": f"{own}{os.pathsep}{site}"}
    launcher = Chooser("auto", environ).choose(2, "vasp_std")
    assert launcher.name == ("mpich" if library == "mpich" else "openmpi4")
    argv, _ = Mpich(environ).wrap(["a"], Slot(2, 1, ()))
    assert Path(argv[0]).parent == tmp_path / "mpich"
    # but where there is no other it starts what it can
    assert Chooser("auto", {"PATH": own}).choose(2).name == "mpich"


@pytest.mark.parametrize("library", ["openmpi4", "openmpi5", "intelmpi", "mpich", "cray", None])
def test_srun_is_taken_only_if_nothing_else_fits_and_we_are_in_a_job(
    path: Made, linked_with: Library, library: str | None
) -> None:
    linked_with(library)
    assert Chooser("auto", path("srun"), JOB).choose(2, "vasp_std").name == "srun"
    with pytest.raises(MissingError):
        Chooser("auto", path("srun")).choose(2, "vasp_std")
    with pytest.raises(MissingError):
        Chooser("auto", path(), JOB).choose(2, "vasp_std")


def test_a_program_of_cray_is_not_started_by_the_mpich_of_our_environment(path: Made, linked_with: Library) -> None:
    linked_with("cray")
    assert Chooser("auto", path("mpich", "srun"), JOB).choose(2, "vasp_std").name == "srun"
    with pytest.raises(MissingError, match="Cray"):
        Chooser("auto", path("mpich")).choose(2, "vasp_std")


def test_what_is_missing_is_said_with_what_to_load(path: Made, linked_with: Library) -> None:
    linked_with("openmpi4")
    with pytest.raises(MissingError) as raised:
        Chooser("auto", path("openmpi5", "mpich")).choose(4, "vasp_std")
    assert raised.value.what == "vasp_std is linked with Open MPI 4, and no launcher of Open MPI 4 was found"
    assert "openmpi5 5.0.3, mpich 4.1.2" in raised.value.where
    assert "load the module of Open MPI 4" in raised.value.next_step


def test_several_nodes_need_a_job_and_a_launcher(path: Made) -> None:
    with pytest.raises(MissingError, match="no SLURM job"):
        Chooser("auto", path("openmpi4")).choose(2, nodes=2)
    assert Chooser("auto", path("openmpi4"), JOB).choose(2, nodes=2).name == "openmpi4"
    others = (Share("n2", (0,)),)
    for name in ("openmpi4", "openmpi5", "mpich", "intelmpi", "srun"):
        with pytest.raises(MissingError, match="SLURM job"):
            Chooser(name, path(*ANSWERS)).choose(2).wrap(["a"], Slot(2, 1, (0,), "n1", others))
    with pytest.raises(InputError, match="without an MPI launcher"):
        Chooser("none", path(), JOB).choose(2, nodes=2).wrap(["a"], Slot(2, 1, (0,), "n1", others))


def test_a_chooser_of_another_name_looks_for_nothing_again(path: Made, tmp_path: Path) -> None:
    chooser = Chooser("auto", path("openmpi4", "mpich"), JOB)
    chooser.findings()
    (tmp_path / "mpich" / "mpiexec").unlink()
    assert chooser.named("mpich").choose(1).name == "mpich"
    assert chooser.choose(1).name == "none"
    with pytest.raises(InputError, match="exotic"):
        chooser.named("exotic")


def test_the_names_are_the_launchers(path: Made) -> None:
    assert ("auto", *ANSWERS, "none") == LAUNCHERS


@pytest.mark.parametrize("name", ["openmpi4", "openmpi5", "intelmpi", "mpich", "srun"])
def test_a_sites_own_arguments_stand_before_the_program(path: Made, name: str) -> None:
    launcher = Chooser(name, path(*ANSWERS), JOB, ["--site", "x y"]).choose(2)
    for slot in (Slot(2, 1, (4, 5), "n1"), Slot(2, 1, (4,), "n1", (Share("n2", (6,)),)), Slot(2, 1, (), "n1")):
        argv, _ = launcher.wrap(["prog"], slot)
        assert argv.index("--site") < argv.index("prog")
        assert argv[argv.index("--site") + 1] == "x y"


@pytest.mark.parametrize("name", ["openmpi4", "openmpi5", "intelmpi", "mpich", "srun"])
@pytest.mark.parametrize(
    ("slot", "why"),
    [
        (Slot(2, 2, (0, 1, 2)), "do not fit 3 cores"),
        (Slot(0, 1, ()), "0 ranks"),
        (Slot(3, 1, (0, 1, 2), "n1", (Share("n2", (0,)),)), "evenly over 2 nodes"),
        (Slot(4, 1, (0, 1), "n1", (Share("n2", (0,)),)), "do not fit 1 cores"),
        (Slot(2, 1, (0,), "", (Share("n2", (0,)),)), "the name of each"),
    ],
)
def test_a_slot_whose_numbers_do_not_fit_is_refused(path: Made, name: str, slot: Slot, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Chooser(name, path(name), JOB).choose(2).wrap(["a"], slot)


def test_nodes_stand_in_the_order_in_which_slurm_counts_them() -> None:
    others = tuple(Share(name, (0,)) for name in ("n10", "n2", "n1", "a100-2", "a100-1"))
    names = [share.node for share in Slot(6, 1, (0,), "n3", others).shares]
    assert names == ["a100-1", "a100-2", "n1", "n2", "n3", "n10"]
