"""What the text that pw.x prints says. Pure: text in, records out, and no text makes it raise.

ASE has a reader of this text (``ase.io.espresso``); it also reads the structure and all the bands, and
stops with whatever error the first odd line gives. A verdict needs the opposite: few numbers, and a
sentence for each one that is not there.
"""

import re
from dataclasses import dataclass

from db.records import Label
from tasks.endings import NO_MEMORY
from tasks.engines.qe_numbers import NUMBER, label_of, number
from tasks.texts import in_one_line

#: How a run says that it stopped although it was not finished: at our wish, or at its time.
_STOPPED = ("Maximum CPU time exceeded", "stopped by user", "Signal Received, stopping")
_NOT_CONVERGED = ("convergence NOT achieved", "maximum number of steps has been reached")
# never \s at the beginning of a line: it would look across all the empty ones behind it, for each of them
_TITLE = re.compile(r"^[ \t]*Title:[ \t]*\n[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_SCF_STEPS = re.compile(r"convergence has been achieved in\s+(\d+)\s+iterations")
_ACCURACY = re.compile(rf"estimated scf accuracy\s+<\s*({NUMBER})\s+Ry")
_THRESHOLD = re.compile(rf"(?:scf convergence threshold|convergence threshold)\s*=\s*({NUMBER})")
_WALL = re.compile(r"^[ \t]*PWSCF[ \t]*:.*?CPU[ \t]+(.*?)[ \t]*WALL", re.MULTILINE)
_VERSION = re.compile(r"Program PWSCF v\.?\s*(\S+)")
_RULE = re.compile(r"^[ \t]*%{20,}[ \t]*$", re.MULTILINE)
_COMPLAINT_LINES = 12


@dataclass(frozen=True, slots=True)
class Report:
    """What was read.

    Attributes:
        began: the program has said who it is.
        version: of QE, or empty.
        title: of the run, or empty.
        scf_began: it had read its input and gone on to the first SCF step.
        looped: it has begun the first SCF step.
        stepped: it has finished at least one SCF step.
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
    looped: bool
    stepped: bool
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


def read(out: str, err: str, atoms: int, crash: str = "") -> Report:
    """Read the two outputs of a run.

    Args:
        out: standard output.
        err: standard error.
        atoms: how many atoms the structure has.
        crash: the file CRASH, into which pw.x writes its complaint once more.
    """
    label, missing = label_of(out, atoms)
    return Report(
        began="Program PWSCF" in out,
        version=_first(_VERSION, out),
        title=_first(_TITLE, out),
        scf_began="Self-consistent Calculation" in out or "iteration #" in out,
        looped="iteration #" in out,
        stepped="estimated scf accuracy" in out,
        job_done="JOB DONE" in out,
        stopped=any(text in out for text in _STOPPED),
        converged=_converged(out),
        complaint=_complaint(out) or _complaint(err) or _complaint(crash),
        no_memory=any(NO_MEMORY.search(text) for text in (out, err, crash)),
        label=label,
        missing=missing,
        scf_steps=int(steps[-9:]) if (steps := _first(_SCF_STEPS, out)) else None,
        seconds=_seconds(_first(_WALL, out)),
    )


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


def _complaint(text: str) -> str:
    """What stands between the first line of % and the next, or the end, if that was lost."""
    rule = _RULE.search(text)
    if rule is None:
        return ""
    said: list[str] = []
    for line in text[rule.end() : rule.end() + 4000].splitlines()[:_COMPLAINT_LINES]:
        if _RULE.match(line):
            break
        said.append(line)
    return in_one_line(" ".join(said)) or "a complaint without words"


def _converged(out: str) -> bool:
    """No marker alone: with ``scf_must_converge=.false.`` the text says "convergence has been achieved"."""
    if any(text in out for text in _NOT_CONVERGED):
        return False
    accuracies = _ACCURACY.findall(out)
    threshold = _first(_THRESHOLD, out)
    if not accuracies or not threshold:
        return False
    # the threshold is printed with two digits, the accuracy with eight places
    return number(accuracies[-1]) <= 1.1 * number(threshold) + 1e-8


def _seconds(text: str) -> float | None:
    """``1h 2m``, ``3m 4.56s``, ``0.04s``, ``2d 3h 4m`` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([dhms])", text)
    if not parts:
        return None
    return sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
