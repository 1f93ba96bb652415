"""From what pw.x printed and how it ended to a verdict. Pure.

A complete result of this very attempt, converged, with all its numbers in agreement, is a result, also where the
process was killed or gave another exit code after JOB DONE: MPI likes to fail while it finalises, and the numbers were
all there before. Only the exit codes by which pw.x itself says that something is wrong contradict it.
"""

import re

from db.states import Verdict
from tasks import endings
from tasks.engines import qe_remedies
from tasks.engines.qe_output import Report
from tasks.protocol import Cause, Exit

INSTALL = "install quantum-espresso or set label.qe.command"
#: pw.x's own: SCF not converged, steps at an end, stopped
_OWN_CODES = frozenset({2, 3, 255})
_NOT_INPUT = re.compile(r"error (while )?writing|problems writing|error while closing|cannot write", re.IGNORECASE)
_SETTINGS = re.compile(r"smearing is needed", re.IGNORECASE)
#: routines whose complaints are about files and not about what the user wrote
_OF_FILES = ("davcio", "diropn", "mp_", "wfcrec", "write_rhog", "read_rhog", "create_directory")


def of(report: Report, end: Exit, program: str, err: str, *, restarted: bool = False) -> tuple[Verdict, str]:
    """The verdict and, unless it is DONE, one line that says why.

    An exit code counts only where the run ended by itself: where we ended it, or nobody saw its end, the
    output decides alone.

    Args:
        report: what the outputs say.
        end: how it ended.
        program: what was started, for the message.
        err: standard error.
        restarted: it was to go on from where an earlier attempt had stopped.
    """
    if end.cause is Cause.CANCEL:
        return endings.BY_US[end.cause]
    if end.cause is Cause.NOT_STARTED:
        return endings.not_started(end, program, INSTALL)
    if report.complete and (end.cause is not None or end.code not in _OWN_CODES):
        return Verdict.DONE, ""
    if end.cause is not None:
        return endings.BY_US[end.cause]
    if report.stopped:
        return Verdict.INTERRUPTED, "it stopped before its end, as asked or because its time was over"
    verdict, reason = _by_itself(report, end, program, err)
    if restarted and not report.stepped and verdict in {Verdict.CRASHED, Verdict.BAD_INPUT}:
        # what it was given to go on from is gone by now, so this cannot happen to the next attempt
        return Verdict.INTERRUPTED, f"it could not go on from where it had stopped, and starts afresh: {reason}"
    return verdict, reason


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
    if report.complaint:
        return _of_complaint(report), report.complaint
    missing = endings.NOT_THERE.search(err)
    if not report.began and (missing or end.code == 127):
        said = missing.group(0) if missing else "there is no such program"
        return Verdict.BAD_INPUT, f"{program}: {said}; {INSTALL}"
    if report.job_done and not report.converged:
        return Verdict.NOT_CONVERGED, "the SCF is not converged"
    what = report.missing or ("not to its end" if not report.job_done else "complete")
    return Verdict.CRASHED, f"{ended}; output: {what}"


def _of_complaint(report: Report) -> Verdict:
    if _NOT_INPUT.search(report.complaint):
        return Verdict.INFRASTRUCTURE
    if _SETTINGS.search(report.complaint):
        return Verdict.BAD_INPUT
    # before the first SCF step it has only read its input, and perhaps diagonalised once
    files = any(f"in routine {name}" in report.complaint for name in _OF_FILES)
    early = not report.scf_began and not files and not qe_remedies.is_of_diagonalisation(report.complaint)
    return Verdict.BAD_INPUT if early else Verdict.CRASHED
