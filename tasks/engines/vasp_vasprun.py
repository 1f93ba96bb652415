"""What vasprun.xml says: more digits than OUTCAR, and the structure that VASP has computed.

It is read as a stream, since the bands of many k-points are hundreds of megabytes. It is whole only when it parses to
its end; what a broken one says before that is given as well.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

from db.records import Vector

Element = ElementTree.Element


@dataclass(slots=True)
class Vasprun:
    """What was read; None and empty where it was not there, or is no number.

    Attributes:
        whole: it parses to its end.
        version: of VASP.
        title: SYSTEM in INCAR.
        nelm: SCF steps at most.
        steps: SCF steps done.
        ionic_steps: structures that it has computed.
        symbols: element of each atom.
        cell: rows, Å.
        positions: in units of the cell's vectors.
        energy: free energy, eV.
        forces: eV/Å.
        kilobar: the stress matrix, VASP's sign.
    """

    whole: bool = False
    version: str = ""
    title: str = ""
    nelm: int | None = None
    steps: int = 0
    ionic_steps: int = 0
    symbols: tuple[str, ...] = ()
    cell: tuple[Vector, ...] = ()
    positions: tuple[Vector, ...] = ()
    energy: float | None = None
    forces: tuple[Vector, ...] = ()
    kilobar: tuple[Vector, ...] = field(default=())


def read_vasprun(path: Path) -> Vasprun:
    """Read as much as there is; a file that is not there is empty. Never raises for what is in it."""
    found = Vasprun()
    try:
        for _, element in ElementTree.iterparse(path):
            take = _TAKERS.get(element.tag)
            if take is not None:
                take(found, element)
    except (ElementTree.ParseError, OSError, ValueError, LookupError):
        found.whole = False
    return found


def _generator(found: Vasprun, element: Element) -> None:
    found.version = (element.findtext("i[@name='version']") or "").strip()


def _incar(found: Vasprun, element: Element) -> None:
    found.title = (element.findtext("i[@name='SYSTEM']") or "").strip()


def _parameters(found: Vasprun, element: Element) -> None:
    for item in element.iter("i"):
        if item.get("name") == "NELM" and (item.text or "").strip().isdecimal():
            found.nelm = int((item.text or "").strip()[:9])


def _atoms(found: Vasprun, element: Element) -> None:
    rows = element.findall("array[@name='atoms']/set/rc")
    found.symbols = tuple((row.findtext("c") or "").strip() for row in rows)


def _structure(found: Vasprun, element: Element) -> None:
    if element.get("name") == "initialpos":
        found.cell = _matrix(element.find("crystal/varray[@name='basis']"))
        found.positions = _matrix(element.find("varray[@name='positions']"))


def _scf_step(found: Vasprun, element: Element) -> None:
    found.steps += 1
    element.clear()


def _calculation(found: Vasprun, element: Element) -> None:
    found.ionic_steps += 1
    energy = _floats(element.findtext("energy/i[@name='e_fr_energy']") or "")
    found.energy = energy[0] if len(energy) == 1 else None
    found.forces = _matrix(element.find("varray[@name='forces']"))
    found.kilobar = _matrix(element.find("varray[@name='stress']"))


def _bulk(_: Vasprun, element: Element) -> None:
    """Bands and densities of states: not needed, and large."""
    if element.tag != "set" or element.get("comment"):
        element.clear()


def _end(found: Vasprun, _: Element) -> None:
    found.whole = True


_TAKERS: Mapping[str, Callable[[Vasprun, Element], None]] = MappingProxyType(
    {
        "generator": _generator,
        "incar": _incar,
        "parameters": _parameters,
        "atominfo": _atoms,
        "structure": _structure,
        "scstep": _scf_step,
        "calculation": _calculation,
        "set": _bulk,
        "eigenvalues": _bulk,
        "projected": _bulk,
        "dos": _bulk,
        "modeling": _end,
    }
)


def _matrix(element: Any) -> tuple[Vector, ...]:
    """The rows of three numbers; none if one of them is not that."""
    rows: list[Vector] = []
    for row in () if element is None else element.findall("v"):
        numbers = _floats(row.text or "")
        if len(numbers) != 3:
            return ()
        rows.append((numbers[0], numbers[1], numbers[2]))
    return tuple(rows)


def _floats(text: str) -> list[float]:
    """The finite numbers of a text; none if a word of it is not one, as Fortran's stars."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return []
    return numbers if all(math.isfinite(x) for x in numbers) else []
