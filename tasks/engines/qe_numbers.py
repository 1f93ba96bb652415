"""The numbers of a label, as pw.x prints them. Pure. The tests compare them with those of ASE's reader.

A number counts only if it is there once: two energies, two tables of forces are two runs in one file, or one that
was torn and mended. And it counts only if it agrees with what pw.x prints beside it: the energy with the sum of its
terms, the forces with the total force, the stress with its columns in kbar and with the pressure.

Units: ASE's reader converts with CODATA 2006, so we do too, and a label is the same by either way. QE 6.7
itself has a later set; the two Rydbergs differ by 9·10⁻⁸ of the value, for all labels alike.
"""

import math
import re
from collections.abc import Iterator, Sequence

from ase.units import create_units

from db.records import Label, Vector

_UNITS = create_units("2006")
RY: float = _UNITS["Ry"]
RY_PER_BOHR: float = _UNITS["Ry"] / _UNITS["Bohr"]
RY_PER_BOHR3: float = _UNITS["Ry"] / _UNITS["Bohr"] ** 3
_KBAR_PER_RY_BOHR3 = 147105.08

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
#: "!!": the last word of a run with a hybrid functional, which has an "!" for each of its inner loops
_ENERGY = re.compile(rf"^(!!?)[ \t]+total energy[ \t]+=[ \t]*({NUMBER})[ \t]+Ry", re.MULTILINE)
_TERM = re.compile(rf"^[ \t]*(?P<name>\S[^=\n]*?)[ \t]*[=<][ \t]*(?P<value>{NUMBER})[ \t]+Ry[ \t]*$")
_TERMS = frozenset(
    {"one-electron contribution", "hartree contribution", "xc contribution", "ewald contribution"}
    | {"one-center paw contrib.", "smearing contrib. (-TS)"}
)
_NOT_TERMS = ("estimated scf accuracy", "Harris-Foulkes estimate", "internal energy", "total all-electron energy")
_BLOCK_LINES = 20
_TOTAL_FORCE = re.compile(rf"^[ \t]*Total force[ \t]*=[ \t]*({NUMBER})(?![\d.])", re.MULTILINE)
_PRESSURE = re.compile(rf"P=[ \t]*({NUMBER})[ \t]*$")
_FORCE_HEAD = re.compile(r"^[ \t]*Forces acting on atoms[^\n]*$", re.MULTILINE)
# columns may touch, but only where the sign of the next one parts them
_GAP = r"(?:\s+|(?=-))"
_FORCE = re.compile(rf"^\s*atom\s+(\d+)\s+type\s+\d+\s+force\s*=\s*({NUMBER}){_GAP}({NUMBER}){_GAP}({NUMBER})\s*$")
# the three columns in kbar behind these may be full of stars
_STRESS = re.compile(rf"^\s*({NUMBER}){_GAP}({NUMBER}){_GAP}({NUMBER})\s+(\S.*)$")
_STRESS_HEAD = re.compile(r"^[ \t]*total[ \t]+stress\b[^\n]*$", re.MULTILINE)
_KBAR = re.compile(rf"^({NUMBER}){_GAP}({NUMBER}){_GAP}({NUMBER})\s*$")
#: how far the printed digits of two numbers that are the same may be apart
_ENERGY_SLACK, _FORCE_SLACK, _KBAR_SLACK, _STRESS_SLACK = 2e-6, 2e-6, 0.02, 2e-8


def label_of(out: str, atoms: int) -> tuple[Label | None, str]:
    """Energy, forces and stress; or, for people, what is not there or contradicts itself.

    Args:
        out: standard output.
        atoms: how many atoms the structure has.
    """
    if out.count("Program PWSCF") > 1:
        return None, "the output of more than one run"
    energy, wrong = _energy(out)
    if energy is None:
        return None, wrong
    forces, wrong = _forces(out, atoms)
    if forces is None:
        return None, wrong
    stress, wrong = _stress(out)
    if stress is None:
        return None, wrong
    label = Label(
        energy=energy * RY,
        forces=tuple((x * RY_PER_BOHR, y * RY_PER_BOHR, z * RY_PER_BOHR) for x, y, z in forces),
        stress=stress,
    )
    if not all(math.isfinite(x) for row in (*label.forces, stress, (label.energy,)) for x in row):
        return None, "a number that is not finite"
    return label, ""


def _energy(out: str) -> tuple[float | None, str]:
    """In Ry."""
    found = list(_ENERGY.finditer(out))
    last = [match for match in found if match.group(1) == "!!"]
    found = last or found
    if len(found) != 1:
        return None, f"{len(found)} total energies instead of one" if found else "no total energy"
    energy = number(found[0].group(2))
    total = _sum_of_terms(out[found[0].end() :])
    if total is not None and not abs(total - energy) <= _ENERGY_SLACK:
        return None, f"a total energy of {energy} Ry whose terms add up to {total:.8f}"
    return energy, ""


def _sum_of_terms(text: str) -> float | None:
    """What follows the total energy; None where it has terms that we do not know, or not all of the usual ones."""
    terms: dict[str, float] = {}
    for line in text.split("\n", _BLOCK_LINES)[:_BLOCK_LINES]:
        if "convergence" in line:
            break
        found = _TERM.match(line)
        if found is None or found["name"].startswith(_NOT_TERMS):
            continue
        if found["name"] not in _TERMS or found["name"] in terms:
            return None
        terms[found["name"]] = number(found["value"])
    # the smearing's share, the one-center's of PAW: only where there is such a thing
    return sum(terms.values()) if sum(name.endswith("contribution") for name in terms) == len(_TERMS) - 2 else None


def _forces(out: str, atoms: int) -> tuple[tuple[Vector, ...] | None, str]:
    """In Ry/bohr. The total forces: the block under the heading; high verbosity prints its parts after it."""
    wrong = f"not the forces of {atoms} atoms"
    heads = list(_FORCE_HEAD.finditer(out))
    if len(heads) != 1:
        return None, "more than one table of forces" if heads else wrong
    rows: list[Vector] = []
    for line in _lines(out, heads[0].end()):
        found = _FORCE.match(line)
        if found and int(found.group(1)) == len(rows) + 1:
            x, y, z = (number(text) for text in found.groups()[1:])
            rows.append((x, y, z))
        elif line.strip() and (rows or found or "negative rho" not in line):
            break
    if len(rows) != atoms:
        return None, wrong
    total = _TOTAL_FORCE.search(out, heads[0].end())
    size = math.sqrt(sum(x * x for row in rows for x in row))
    # each component may be wrong by half of its last digit
    if total and not abs(number(total.group(1)) - size) <= _FORCE_SLACK + 1e-8 * math.sqrt(3 * atoms):
        return None, f"forces that do not add up to the total force of {total.group(1)} Ry/bohr"
    return tuple(rows), ""


def _stress(out: str) -> tuple[tuple[float, float, float, float, float, float] | None, str]:
    """From the columns in Ry/bohr³, which have more digits than those in kbar. QE's sign is minus ASE's."""
    heads = list(_STRESS_HEAD.finditer(out))
    if len(heads) != 1:
        return None, "more than one stress" if heads else "no stress"
    below = _lines(out, heads[0].end())
    rows: list[list[float]] = []
    kbar: list[list[float] | None] = []
    for line in (next(below, "") for _ in range(3)):
        found = _STRESS.match(line)
        if found is None:
            return None, "no stress"
        rows.append([number(text) for text in found.groups()[:3]])
        columns = _KBAR.match(found.group(4))
        kbar.append([number(text) for text in columns.groups()] if columns else None)
    if not _is_consistent(rows, kbar, _PRESSURE.search(heads[0].group())):
        return None, "a stress that contradicts itself"
    # + 0.0 turns -0.0 into 0.0
    a, b, c = ([-x * RY_PER_BOHR3 + 0.0 for x in row] for row in rows)
    return (a[0], b[1], c[2], b[2], a[2], a[1]), ""


def _is_consistent(
    rows: Sequence[Sequence[float]], kbar: Sequence[Sequence[float] | None], pressure: re.Match[str] | None
) -> bool:
    """Symmetric, the same in both units, and its trace three times the pressure, where these could be read."""
    if any(abs(rows[i][j] - rows[j][i]) > _STRESS_SLACK for i, j in ((0, 1), (0, 2), (1, 2))):
        return False
    for row, again in zip(rows, kbar, strict=True):
        if again and any(abs(x * _KBAR_PER_RY_BOHR3 - y) > _slack(y) for x, y in zip(row, again, strict=True)):
            return False
    if pressure is None:
        return True
    printed = number(pressure.group(1))
    return abs(sum(rows[i][i] for i in range(3)) / 3.0 * _KBAR_PER_RY_BOHR3 - printed) <= _slack(printed)


def _slack(kbar: float) -> float:
    """The factor between the units has a few digits in common between versions, the columns two behind the point."""
    return _KBAR_SLACK + 1e-5 * abs(kbar)


def _lines(out: str, start: int) -> Iterator[str]:
    """The lines behind the one that ends at ``start``."""
    at = out.find("\n", start) + 1
    while at:
        end = out.find("\n", at)
        yield out[at : end if end >= 0 else len(out)]
        at = end + 1


def number(text: str) -> float:
    """A Fortran number; it may have a D for its exponent."""
    return float(text.replace("D", "E").replace("d", "e"))
