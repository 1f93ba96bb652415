"""From what VASP has written and how it ended to a verdict. Pure.

A complete result of this very attempt, converged, with all its files in agreement, is a result, also where the process
was killed or gave another exit code afterwards. VASP's own exit code says nothing: older ones end with 0 whatever has
happened, newer ones with 1 where they give up.
"""

import re

from db.states import Verdict
from tasks import endings
from tasks.engines.vasp_output import Report
from tasks.protocol import Cause, Exit

INSTALL = "set label.vasp.command to the VASP of your licence"
#: what no other attempt with the same input can mend
_OF_INPUT = re.compile(
    r"Error reading item|Error code was IERR|POTCAR|number of potentials|triple product|licen[sc]e"
    r"|reading (the )?(file )?(INCAR|KPOINTS|POSCAR)|on line \d+ of POSCAR|syntax error|No initial positions",
    re.IGNORECASE,
)


def of(report: Report, end: Exit, program: str, err: str) -> tuple[Verdict, str]:
    """The verdict and, unless it is DONE, one line that says why.

    Args:
        report: what its files say.
        end: how it ended.
        program: what was started, for the message.
        err: standard error.
    """
    if end.cause is Cause.CANCEL:
        return endings.BY_US[end.cause]
    if end.cause is Cause.NOT_STARTED:
        return endings.not_started(end, program, INSTALL)
    if report.complete:
        return Verdict.DONE, ""
    if end.cause is not None:
        return endings.BY_US[end.cause]
    if report.stopped:
        return Verdict.INTERRUPTED, "it stopped before its end, as STOPCAR had asked"
    return _by_itself(report, end, program, err)


def _by_itself(report: Report, end: Exit, program: str, err: str) -> tuple[Verdict, str]:
    ended = endings.how(end)
    if report.no_memory:
        return Verdict.OUT_OF_MEMORY, f"it says that memory was short ({report.complaint or ended})"
    sent = endings.by_signal(endings.signal_of(end, err))
    if sent is not None:
        return sent
    machine = endings.MACHINE.search(f"{err}\n{report.complaint}")
    if machine:
        return Verdict.INFRASTRUCTURE, machine.group(0)
    if report.complaint and (report.distrusted or not report.ended):
        early = not report.looped and _OF_INPUT.search(report.complaint)
        return (Verdict.BAD_INPUT if early else Verdict.CRASHED), report.complaint
    missing = endings.NOT_THERE.search(err)
    if not report.began and (missing or end.code == 127):
        said = missing.group(0) if missing else "there is no such program"
        return Verdict.BAD_INPUT, f"{program}: {said}; {INSTALL}"
    if report.ended and not report.reached and report.label is not None:
        return Verdict.NOT_CONVERGED, f"the SCF is not converged after {report.scf_steps} steps"
    what = report.missing or ("not to its end" if not report.ended else "complete")
    return Verdict.CRASHED, f"{ended}; output: {what}"
