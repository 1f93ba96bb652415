"""What a run of VASP has written, put together: OUTCAR, vasprun.xml, its standard output and error.

VASP exits with 0 whatever happened, and prints its timing also when the SCF is not converged or when it was stopped. So
a label counts only if all fits together: OUTCAR has its end and says that EDIFF was reached, in fewer steps than NELM;
vasprun.xml parses to its end; both are of this attempt; their numbers are the same; and the structure in vasprun.xml is
the one that was asked for, atom by atom.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from db.records import Label, Structure
from tasks.endings import NO_MEMORY
from tasks.engines.vasp_input import Arrangement
from tasks.engines.vasp_outcar import Numbers, numbers_of
from tasks.engines.vasp_vasprun import Vasprun, read_vasprun
from tasks.texts import head_and_tail, in_one_line

STDOUT, STDERR = "vasp.out", "vasp.err"
_VERSION = re.compile(r"^[ \t]*(vasp\.\S+)", re.MULTILINE)
_TITLE = re.compile(r"^[ \t]*SYSTEM[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_ELAPSED = re.compile(r"Elapsed time \(sec\):[ \t]*([\d.]+)")
_ENDED = "General timing and accounting informations"
_REACHED = "aborting loop because EDIFF is reached"
_NOT_REACHED = "aborting loop EDIFF was not reached"
_STOPPED = re.compile(r"(hard|soft) stop encountered|because (hard|soft) stop was set", re.IGNORECASE)
_ITERATION = re.compile(r"Iteration[ \t]+\d+\([ \t]*(\d{1,9})\)")
#: what VASP says when it gives up, and a run-time library of Fortran when it does so for it
_COMPLAINT = re.compile(
    r"VERY BAD NEWS!|\bERROR\b|Error (reading item|EDDDAV|code was)|(fatal|internal|Fatal) (error|ERROR|internal)\b"
    r"|LAPACK: Routine \w+ failed|Routine \w+ ZTRTRI failed|call to ZHEGV failed|BRMIX: very serious problems"
    r"|tetrahedron method fails|TOO FEW BANDS|forrtl: |[lL]icen[sc]e.*(expired|invalid)|(does|do) not match"
    r"|are incompatible|nicht konvergent|group operation missing"
)
#: with these a run may go on to its end, and what it gives is wrong all the same
_DISTRUSTED = re.compile(r"BRMIX: very serious problems|TOO FEW BANDS|EDWAV: internal error")
_FRAME = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$")
_FRAMED_LINES, _COMPLAINT_LINES = 40, 3
#: how far the digits that two files print of the same number may be apart: eV, eV/Å, kB; and positions, Å
_ENERGY_SLACK, _FORCE_SLACK, _KILOBAR_SLACK, _PLACE_SLACK = 1e-5, 2e-6, 2e-5, 1e-3


@dataclass(frozen=True, slots=True)
class Report:
    """What was read.

    Attributes:
        began: OUTCAR has its first lines.
        version: of VASP, or empty.
        titles: which attempts the two files say that they are of.
        looped: it has begun the first SCF step.
        ended: OUTCAR has its end.
        reached: the SCF has reached EDIFF before NELM steps.
        stopped: it has stopped as STOPCAR had asked.
        complaint: what it says is wrong, in one line.
        distrusted: the complaint is one with which a run may go on, and be wrong.
        no_memory: it says that memory was short.
        label: in the order of our atoms, where everything fits together.
        missing: what is not there or does not fit, for people; empty when ``label`` is there.
        scf_steps: how many it made.
        seconds: wall time by its own clock.
    """

    began: bool
    version: str
    titles: tuple[str, str]
    looped: bool
    ended: bool
    reached: bool
    stopped: bool
    complaint: str
    distrusted: bool
    no_memory: bool
    label: Label | None
    missing: str
    scf_steps: int | None
    seconds: float | None

    @property
    def complete(self) -> bool:
        """Finished, converged, not stopped, nothing wrong, all numbers."""
        return self.ended and self.reached and not self.stopped and not self.distrusted and self.label is not None


def read(directory: Path, structure: Structure, arrangement: Arrangement, title: str) -> Report:
    """Read what lies in the folder of an attempt; never raises for what is in it.

    Args:
        directory: of the attempt.
        structure: what was to be computed.
        arrangement: how it stands in POSCAR.
        title: what this attempt has called itself.
    """
    outcar = head_and_tail(directory / "OUTCAR")
    out, err = head_and_tail(directory / STDOUT), head_and_tail(directory / STDERR)
    vasprun = read_vasprun(directory / "vasprun.xml")
    titles = (_first(_TITLE, outcar), vasprun.title)
    label, missing = _label(outcar, vasprun, structure, arrangement)
    if label is not None and titles != (title, title):
        label, missing = None, f"the output of another run: {' and '.join(repr(name) for name in titles)}"
    steps = vasprun.steps or _last_step(outcar)
    return Report(
        began=bool(outcar.strip()),
        version=_first(_VERSION, outcar) or vasprun.version,
        titles=titles,
        looped=bool(_ITERATION.search(outcar)) or vasprun.steps > 0,
        ended=_ENDED in outcar,
        reached=_has_converged(outcar, steps, vasprun.nelm),
        stopped=bool(_STOPPED.search(outcar) or _STOPPED.search(out)),
        complaint=complaint_of(out) or complaint_of(err),
        distrusted=bool(_DISTRUSTED.search(out) or _DISTRUSTED.search(outcar)),
        no_memory=bool(NO_MEMORY.search(out) or NO_MEMORY.search(err)),
        label=label,
        missing=missing,
        scf_steps=steps,
        seconds=float(seconds) if (seconds := _first(_ELAPSED, outcar)) and seconds.count(".") < 2 else None,
    )


def complaint_of(text: str) -> str:
    """What VASP says is wrong: the text of its box of error, or the first line that is one; in one line."""
    said = list(_framed(text))
    if not said:
        lines = text.split("\n")
        at = next((i for i, line in enumerate(lines) if _COMPLAINT.search(line) and "WARNING" not in line), None)
        said = [] if at is None else [line.strip(" |") for line in lines[at : at + _COMPLAINT_LINES]]
    return in_one_line(" ".join(said))


def _framed(text: str) -> Iterator[str]:
    """The words in a box below a large ERROR; the letters of that are drawn with E, R and O."""
    at = text.find("EEEEEEE")
    if at < 0:
        return
    for line in text[at:].split("\n", _FRAMED_LINES)[1:_FRAMED_LINES]:
        frame = _FRAME.match(line)
        if frame is None:
            return
        if any(letter.islower() for letter in frame.group(1)):
            yield frame.group(1).strip()


def _has_converged(outcar: str, steps: int | None, nelm: int | None) -> bool:
    """No marker alone: EDIFF is reached, nothing says that it is not, and there were fewer steps than NELM."""
    if _REACHED not in outcar or _NOT_REACHED in outcar:
        return False
    return steps is not None and nelm is not None and 0 < steps < nelm


def _last_step(outcar: str) -> int | None:
    steps = _ITERATION.findall(outcar)
    return int(steps[-1]) if steps else None


def _label(outcar: str, vasprun: Vasprun, structure: Structure, arrangement: Arrangement) -> tuple[Label | None, str]:
    """The label; or, for people, what is not there or does not fit."""
    numbers, wrong = numbers_of(outcar, len(structure.numbers))
    if numbers is None:
        return None, f"OUTCAR: {wrong}"
    wrong = _wrong_in(vasprun, structure, arrangement) or _difference(numbers, vasprun)
    if wrong:
        return None, f"vasprun.xml: {wrong}"
    # the same sign as OUTCAR's, minus ASE's; more digits
    a, b, c = ([-x * 0.1 * GPa + 0.0 for x in row] for row in vasprun.kilobar)
    stress = (a[0], b[1], c[2], b[2], a[2], a[1]) if all(structure.pbc) else None
    return Label(numbers.energy, arrangement.ours(vasprun.forces), stress), ""


def _wrong_in(vasprun: Vasprun, structure: Structure, arrangement: Arrangement) -> str:
    if not vasprun.whole:
        return "it does not parse to its end" if vasprun.title or vasprun.version else "it is not there, or empty"
    if vasprun.ionic_steps != 1:
        return f"{vasprun.ionic_steps} structures were computed instead of one"
    wanted = [chemical_symbols[structure.numbers[index]] for index in arrangement.atoms]
    if list(vasprun.symbols) != wanted:
        return "other elements than were asked for"
    if len(vasprun.forces) != len(wanted) or len(vasprun.kilobar) != 3 or vasprun.energy is None:
        return "no energy, forces or stress, or not as numbers"
    return "" if _is_of(vasprun, structure, arrangement) else "it is of another structure"


def _is_of(vasprun: Vasprun, structure: Structure, arrangement: Arrangement) -> bool:
    """Whether cell and positions are those of POSCAR, but for whole vectors of the cell."""
    if len(vasprun.cell) != 3 or len(vasprun.positions) != len(structure.numbers):
        return False
    cell = np.array(vasprun.cell)
    if not np.allclose(cell, np.array(structure.cell)[list(arrangement.rows)], rtol=0, atol=_PLACE_SLACK):
        return False
    wanted = np.array([structure.positions[index] for index in arrangement.atoms]) @ np.linalg.pinv(cell)
    apart = np.array(vasprun.positions) - wanted
    return bool(np.all(np.abs((apart - np.round(apart)) @ cell) < _PLACE_SLACK))


def _difference(numbers: Numbers, vasprun: Vasprun) -> str:
    """What the two files say differently."""
    assert vasprun.energy is not None
    if abs(numbers.energy - vasprun.energy) > _ENERGY_SLACK:
        return f"an energy of {vasprun.energy} eV, and in OUTCAR of {numbers.energy} eV"
    if not _is_near(numbers.forces, vasprun.forces, _FORCE_SLACK):
        return "other forces than in OUTCAR"
    a, b, c = vasprun.kilobar
    six = (a[0], b[1], c[2], a[1], b[2], c[0])
    return "" if _is_near([numbers.kilobar], [six], _KILOBAR_SLACK) else "another stress than in OUTCAR"


def _is_near(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]], slack: float) -> bool:
    return bool(np.allclose(np.array(one), np.array(other), rtol=1e-6, atol=slack))


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""
