"""The numbers in OUTCAR. Pure. The tests compare them with those of ASE's reader and with a real file.

A number counts only if it is there once, and agrees with what VASP prints beside it: the stress in kB with the one in
eV, and with the pressure. Of an ionic step there is only one, as we ask for a single point.
"""

import math
import re
from dataclasses import dataclass

from db.records import Vector

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
#: with two blanks before "energy": the last word; that of each SCF step has one
_ENERGY = re.compile(rf"^[ \t]*free  energy[ \t]+TOTEN[ \t]*=[ \t]*({NUMBER})[ \t]+eV", re.MULTILINE)
_FORCES = re.compile(r"^[ \t]*POSITION[ \t]+TOTAL-FORCE \(eV/Angst\)[^\n]*\n[ \t]*-+[ \t]*\n", re.MULTILINE)
_TOTAL = re.compile(r"^[ \t]*Total[ \t]+([-+\d].*)$", re.MULTILINE)
_KILOBAR = re.compile(r"^[ \t]*in kB[ \t]+(.*)$", re.MULTILINE)
_PRESSURE = re.compile(rf"external pressure =[ \t]*({NUMBER}) kB")
_VOLUME = re.compile(rf"^[ \t]*volume of cell :[ \t]*({NUMBER})", re.MULTILINE)
# Fortran's columns may touch, where the sign of the next one parts them
_TOUCHING = re.compile(r"(?<=\d)-(?=[\d.])")
_STRESS_HEAD = "FORCE on cell =-STRESS"
KILOBAR_PER_EV_A3 = 1602.1766
_EV_SLACK, _PRESSURE_SLACK = 1e-4, 0.02

Six = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What OUTCAR says of the structure.

    Attributes:
        energy: free energy TOTEN, eV.
        forces: eV/Å, in the order of POSCAR.
        kilobar: the line "in kB": xx yy zz xy yz zx, VASP's sign (positive: it wants to expand).
    """

    energy: float
    forces: tuple[Vector, ...]
    kilobar: Six


def numbers_of(text: str, atoms: int) -> tuple[Numbers | None, str]:
    """Energy, forces and stress; or, for people, what is not there or contradicts itself.

    Args:
        text: OUTCAR.
        atoms: how many atoms there are.
    """
    energies = _ENERGY.findall(text)
    if len(energies) != 1:
        return None, f"{len(energies)} total energies instead of one" if energies else "no total energy"
    forces = _forces(text, atoms)
    if forces is None:
        return None, f"not the forces of {atoms} atoms"
    kilobar, wrong = _stress(text)
    if kilobar is None:
        return None, wrong
    numbers = Numbers(number(energies[0]), forces, kilobar)
    if not all(math.isfinite(x) for row in (*forces, kilobar, (numbers.energy,)) for x in row):
        return None, "a number that is not finite"
    return numbers, ""


def _forces(text: str, atoms: int) -> tuple[Vector, ...] | None:
    heads = list(_FORCES.finditer(text))
    if len(heads) != 1:
        return None
    rows: list[Vector] = []
    for line in text[heads[0].end() :].split("\n", atoms + 1)[: atoms + 1]:
        row = _row(line)
        if len(row) != 6:
            break
        rows.append((row[3], row[4], row[5]))
    return tuple(rows) if len(rows) == atoms else None


def _stress(text: str) -> tuple[Six | None, str]:
    if text.count(_STRESS_HEAD) != 1:
        return None, "more than one stress" if _STRESS_HEAD in text else "no stress"
    at = text.index(_STRESS_HEAD)
    below = text[at : at + 4000]
    line, total, pressure = _KILOBAR.search(below), _TOTAL.search(below), _PRESSURE.search(below)
    six = _row(line.group(1)) if line else []
    if len(six) != 6:
        return None, "no stress"
    xx, yy, zz, xy, yz, zx = six
    volumes = _VOLUME.findall(text)
    if total and volumes and not _is_same(_row(total.group(1)), six, number(volumes[-1])):
        return None, "a stress that contradicts itself"
    if pressure and not abs(number(pressure.group(1)) - (xx + yy + zz) / 3.0) <= _PRESSURE_SLACK + 1e-6 * abs(xx):
        return None, "a stress that contradicts its pressure"
    return (xx, yy, zz, xy, yz, zx), ""


def _is_same(total: list[float], kilobar: list[float], volume: float) -> bool:
    """The line "Total" is in eV: the stress times the volume. Stars in it say nothing against it."""
    if len(total) != 6:
        return True
    return all(
        abs(x - y * volume / KILOBAR_PER_EV_A3) <= _EV_SLACK + 1e-5 * abs(x) + 1e-5 * volume / KILOBAR_PER_EV_A3
        for x, y in zip(total, kilobar, strict=True)
    )


def _row(line: str) -> list[float]:
    """The numbers of a line; none if one of its words is no number."""
    words = _TOUCHING.sub(" -", line).split()
    return [number(word) for word in words] if all(re.fullmatch(NUMBER, word) for word in words) else []


def number(text: str) -> float:
    """A Fortran number; it may have a D for its exponent."""
    return float(text.replace("D", "E").replace("d", "e"))
