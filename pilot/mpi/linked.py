"""Which MPI a program was built with. Only a launcher of that MPI makes one world of its ranks."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pilot.mpi.elf import libraries

OPENMPI, OPENMPI4, OPENMPI5, INTELMPI, MPICH, CRAY = "openmpi", "openmpi4", "openmpi5", "intelmpi", "mpich", "cray"

#: as people know them
NAMES = {
    OPENMPI: "Open MPI",
    OPENMPI4: "Open MPI 4",
    OPENMPI5: "Open MPI 5",
    INTELMPI: "Intel MPI",
    MPICH: "MPICH",
    CRAY: "Cray MPICH",
}
#: libmpi.so.12 is MPICH's and everything's that keeps its ABI
_MPICH = re.compile(r"libmpi(ch|cxx|fort)?(_ilp64)?\.so\.12|libmpich.*\.so.*|libmpichcxx.*\.so.*|libmpicxx\.so.*")
_CRAY = re.compile(r"libmpi(fort)?_(cray|gnu|intel|nvidia|amd|aocc|pgi)\w*\.so.*")
_OPENMPI = re.compile(r"libmpi(_cxx|_mpifh|_usempi\w*)?\.so\.(20|40)|libopen-(rte|pal)\.so\..*")


def library_of(program: str, environ: Mapping[str, str]) -> str | None:
    """One of the names above; None if that cannot be seen: a script, a static program, no MPI, no such program.

    Args:
        program: its path, or its name on the PATH of ``environ``.
        environ: of the tasks: PATH, LD_LIBRARY_PATH and I_MPI_ROOT count.
    """
    path = shutil.which(program, path=environ.get("PATH", os.defpath))
    if path is None:
        return None
    found = libraries(Path(path).absolute(), environ.get("LD_LIBRARY_PATH", ""))
    if any(_OPENMPI.fullmatch(name) for name in found):
        return _version_of_openmpi(found)
    if any(_CRAY.fullmatch(name) for name in found):
        return CRAY
    ours = {name: file for name, file in found.items() if _MPICH.fullmatch(name)}
    if not ours:
        return None
    return INTELMPI if _is_intel(ours, environ.get("I_MPI_ROOT", "")) else MPICH


def _version_of_openmpi(found: Mapping[str, Path | None]) -> str:
    # up to version 4 the run-time had a library of its own
    if any(name.startswith("libopen-rte.") for name in found):
        return OPENMPI4
    if any(name.startswith("libopen-pal.so.80") for name in found):
        return OPENMPI5
    return OPENMPI


def _is_intel(found: Mapping[str, Path | None], root: str) -> bool:
    files = [file for file in found.values() if file is not None]
    if not files:
        # the loader would not find it either, unless a module does more than we see
        return bool(root)
    beside = [folder / "libmpi_ilp64.so" for file in files for folder in file.resolve().parents[:2]]
    return any(root and Path(root) in file.parents for file in files) or any(path.exists() for path in beside)
