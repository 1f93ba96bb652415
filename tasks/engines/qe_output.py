"""What the text that pw.x prints says. Pure: text in, records out, and no text makes it raise.

ASE has a reader of this text (``ase.io.espresso``); it also reads the structure and all the bands, and
stops with whatever error the first odd line gives. A verdict needs the opposite: few numbers, and a
sentence for each one that is not there. The tests compare the numbers with ASE's.

Units: ASE's reader converts with CODATA 2006, so we do too, and a label is the same by either way. QE 6.7
itself has a later set; the two Rydbergs differ by 9·10⁻⁸ of the value, for all labels alike.
"""

import math
import re
from dataclasses import dataclass

from ase.units import create_units

from db.records import Label, Vector

_UNITS = create_units("2006")
RY: float = _UNITS["Ry"]
RY_PER_BOHR: float = _UNITS["Ry"] / _UNITS["Bohr"]
RY_PER_BOHR3: float = _UNITS["Ry"] / _UNITS["Bohr"] ** 3

#: How a run says that it stopped although it was not finished: at our wish, or at its time.
_STOPPED = ("Maximum CPU time exceeded", "stopped by user", "Signal Received, stopping")
_NOT_CONVERGED = ("convergence NOT achieved", "maximum number of steps has been reached")
_NO_MEMORY = re.compile(
    r"not enough (space|memory)|out of memory|cannot allocate memory|insufficient memory|bad_alloc"
    r"|allocation would exceed memory limit|error allocating|oom.?kill",
    re.IGNORECASE,
)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
_TITLE = re.compile(r"^\s*Title:[ \t]*\n[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_ENERGY = re.compile(rf"^!\s+total energy\s+=\s*({_NUMBER})\s+Ry", re.MULTILINE)
_FORCE_HEAD = re.compile(r"^\s*Forces acting on atoms[^\n]*$", re.MULTILINE)
# columns may touch, but only where the sign of the next one parts them
_GAP = r"(?:\s+|(?=-))"
_FORCE = re.compile(rf"^\s*atom\s+\d+\s+type\s+\d+\s+force\s*=\s*({_NUMBER}){_GAP}({_NUMBER}){_GAP}({_NUMBER})\s*$")
# the three columns in kbar behind these may be full of stars
_STRESS = re.compile(rf"^\s*({_NUMBER}){_GAP}({_NUMBER}){_GAP}({_NUMBER})\s+\S")
_STRESS_HEAD = re.compile(r"^\s*total\s+stress\b[^\n]*$", re.MULTILINE)
_SCF_STEPS = re.compile(r"convergence has been achieved in\s+(\d+)\s+iterations")
_ACCURACY = re.compile(rf"estimated scf accuracy\s+<\s*({_NUMBER})\s+Ry")
_THRESHOLD = re.compile(rf"(?:scf convergence threshold|convergence threshold)\s*=\s*({_NUMBER})")
_WALL = re.compile(r"^\s*PWSCF\s*:.*?CPU\s+(.*?)\s*WALL", re.MULTILINE)
_VERSION = re.compile(r"Program PWSCF v\.?\s*(\S+)")
_COMPLAINT = re.compile(r"%{20,}\s*\n(.*?)\n\s*%{20,}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Report:
    """What was read.

    Attributes:
        began: the program has said who it is.
        version: of QE, or empty.
        title: of the run, or empty.
        scf_began: it had read its input and gone on to the first SCF step.
        job_done: it has printed JOB DONE (which it also does when it has failed).
        stopped: it stopped before its end at our wish or at its time.
        converged: no sign that the SCF is not converged, and its estimated accuracy is within the threshold.
        complaint: what it says between its lines of %, in one line.
        no_memory: some line says that memory was short.
        label: energy, forces and stress, where all three are there and finite.
        missing: what is not there or not finite, for people; empty when ``label`` is there.
        scf_steps: SCF steps to convergence.
        seconds: wall time by its own clock.
    """

    began: bool
    version: str
    title: str
    scf_began: bool
    job_done: bool
    stopped: bool
    converged: bool
    complaint: str
    no_memory: bool
    label: Label | None
    missing: str
    scf_steps: int | None
    seconds: float | None

    @property
    def complete(self) -> bool:
        """Finished, not stopped, converged, without complaint, with all numbers."""
        return self.job_done and not self.stopped and self.converged and not self.complaint and self.label is not None


def read(out: str, err: str, atoms: int) -> Report:
    """Read the two outputs of a run.

    Args:
        out: standard output.
        err: standard error.
        atoms: how many atoms the structure has.
    """
    label, missing = _label(out, atoms)
    return Report(
        began="Program PWSCF" in out,
        version=_first(_VERSION, out),
        title=_first(_TITLE, out),
        scf_began="Self-consistent Calculation" in out,
        job_done="JOB DONE" in out,
        stopped=any(text in out for text in _STOPPED),
        converged=_converged(out),
        complaint=_complaint(out) or _complaint(err),
        no_memory=bool(_NO_MEMORY.search(out) or _NO_MEMORY.search(err)),
        label=label,
        missing=missing,
        scf_steps=int(steps) if (steps := _first(_SCF_STEPS, out)) else None,
        seconds=_seconds(_first(_WALL, out)),
    )


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


def _complaint(text: str) -> str:
    found = _COMPLAINT.search(text)
    return " ".join(found.group(1).split()) if found else ""


def _converged(out: str) -> bool:
    """No marker alone: with ``scf_must_converge=.false.`` the text says "convergence has been achieved"."""
    if any(text in out for text in _NOT_CONVERGED):
        return False
    accuracies = _ACCURACY.findall(out)
    threshold = _first(_THRESHOLD, out)
    if not accuracies or not threshold:
        return False
    # the threshold is printed with two digits, the accuracy with eight places
    return _number(accuracies[-1]) <= 1.1 * _number(threshold) + 1e-8


def _label(out: str, atoms: int) -> tuple[Label | None, str]:
    found = _ENERGY.findall(out)
    if not found:
        return None, "no total energy"
    energy = _number(found[-1]) * RY
    forces = _forces(out, atoms)
    if forces is None:
        return None, f"not the forces of {atoms} atoms"
    stress = _stress(out)
    if stress is None:
        return None, "no stress"
    if not all(math.isfinite(x) for x in (energy, *stress, *(x for row in forces for x in row))):
        return None, "a number that is not finite"
    return Label(energy=energy, forces=forces, stress=stress), ""


def _forces(out: str, atoms: int) -> tuple[Vector, ...] | None:
    """The total forces: the first block under the heading; high verbosity prints its parts after it."""
    heads = list(_FORCE_HEAD.finditer(out))
    if not heads:
        return None
    rows: list[Vector] = []
    for line in out[heads[-1].end() :].splitlines():
        found = _FORCE.match(line)
        if found:
            x, y, z = (_number(text) * RY_PER_BOHR for text in found.groups())
            rows.append((x, y, z))
        elif line.strip() and (rows or "negative rho" not in line):
            break
    return tuple(rows) if len(rows) == atoms else None


def _stress(out: str) -> tuple[float, float, float, float, float, float] | None:
    """From the columns in Ry/bohr³, which have more digits than those in kbar. QE's sign is minus ASE's."""
    heads = list(_STRESS_HEAD.finditer(out))
    if not heads:
        return None
    rows = []
    for line in out[heads[-1].end() :].splitlines()[1:4]:
        found = _STRESS.match(line)
        if found is None:
            return None
        # + 0.0 turns -0.0 into 0.0
        rows.append([-_number(text) * RY_PER_BOHR3 + 0.0 for text in found.groups()])
    if len(rows) != 3:
        return None
    return rows[0][0], rows[1][1], rows[2][2], rows[1][2], rows[0][2], rows[0][1]


def _number(text: str) -> float:
    """A Fortran number; it may have a D for its exponent."""
    return float(text.replace("D", "E").replace("d", "e"))


def _seconds(text: str) -> float | None:
    """``1h 2m``, ``3m 4.56s``, ``0.04s``, ``2d 3h 4m`` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([dhms])", text)
    if not parts:
        return None
    return sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
