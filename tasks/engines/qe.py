"""Quantum ESPRESSO (``pw.x``): the energy, forces and stress of a structure by one SCF run.

What its exit code and its JOB DONE are worth was tried with QE 6.7. It prints JOB DONE also when the SCF is
not converged or when it was asked to stop (exit code 2, or 255 if that was before the first step), and with
``scf_must_converge=.false.`` even "convergence has been achieved" with exit code 0. So a label counts only
if all of it fits together: see :class:`tasks.engines.qe_output.Report`.

A run that was stopped cleanly in its SCF loop keeps its scratch folder, and the next attempt goes on from there
(:mod:`tasks.engines.qe_restart`). In all other cases the folder is removed when the run is judged.
"""

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from db.errors import PilotError, StorageError
from db.files import write_whole
from db.records import Json, Label, Structure
from db.states import Verdict
from tasks import endings
from tasks.engines import qe_pseudo, qe_remedies, qe_restart, qe_verdict
from tasks.engines.qe_input import PREFIX, SCRATCH, Run, kpoints, write_input
from tasks.engines.qe_output import Report, read
from tasks.engines.qe_settings import command_of, pseudo_folder, table
from tasks.programs import first_match, locate
from tasks.protocol import Command, Exit, Finding, Judgement, Work
from tasks.scratch import drop
from tasks.texts import head_and_tail

_EV_PER_A3_IN_GPA = 160.21766208
_RESTARTS = re.compile(r"^\s*restart_mode\s*=\s*'restart'", re.MULTILINE)
_VERSION_TIMEOUT_S = 20.0
_PROBE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class QuantumEspresso:
    """``{"structure", "species", "kpoints": [k1, k2, k3] or null, "settings"}`` to a label."""

    name: str = "qe"
    writes_input: bool = True

    def prepare(self, work: Work) -> Command:
        """Write pw.in, and take over what an earlier attempt left to go on from.

        Raises:
            InputError: an element or its pseudopotential is not there, or the settings or the cell are wrong.
            StorageError: the disk refuses.
        """
        structure = Structure.from_json(work.spec["structure"])
        run = Run(title=_title(work), root=work.root, time_left_s=work.time_left_s)
        try:
            text = write_input(structure, work.spec, run)
            if qe_restart.take_over(work):
                text = write_input(structure, work.spec, replace(run, restart=True))
            write_whole(work.directory / "pw.in", text, durable=False)
        except PilotError:
            # whatever follows this starts afresh
            for directory in (work.directory, work.previous):
                if directory is not None:
                    drop(directory)
            raise
        return Command(
            argv=(*command_of(work.spec["settings"]), "-in", "pw.in"),
            mpi=True,
            env={"OMP_NUM_THREADS": str(work.resources.threads)},
            stdout="pw.out",
            stderr="pw.err",
        )

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By the exit code, the markers, the convergence, the numbers and the attempt that they belong to."""
        structure = Structure.from_json(work.spec["structure"])
        err = head_and_tail(work.directory / "pw.err")
        report = _read(work, err, len(structure.numbers))
        restarted = bool(_RESTARTS.search(head_and_tail(work.directory / "pw.in")))
        verdict, reason = qe_verdict.of(report, end, command_of(work.spec["settings"])[0], err, restarted=restarted)
        if verdict is Verdict.CRASHED and not report.complaint and (refusal := _refusal(work.directory)):
            verdict, reason = Verdict.INFRASTRUCTURE, f"{reason}; {refusal}"
        # it is told when all is written
        stopped = verdict is Verdict.INTERRUPTED and report.stopped and report.job_done and report.looped
        worth_it = restarted or (end.wall_s or report.seconds or 0.0) >= qe_restart.WORTH_S
        resumable = stopped and worth_it and qe_restart.keep(work)
        if not resumable:
            drop(work.directory)
        facts: dict[str, Any] = {"qe_version": report.version, "scf_steps": report.scf_steps}
        facts["seconds"] = end.wall_s if report.seconds is None else report.seconds
        if restarted:
            facts["restarted"] = True
        if verdict is not Verdict.DONE or report.label is None:
            return Judgement(verdict, reason, facts, resumable=resumable)
        if end.cause is None and end.code != 0:
            facts["ended_with"] = endings.how(end)
        with contextlib.suppress(PilotError):
            facts["kpoints"] = list(kpoints(structure, work.spec))
        label = report.label if all(structure.pbc) else Label(report.label.energy, report.label.forces)
        return Judgement(verdict, "", facts | _numbers(report.label), label)

    def stop_softly(self, work: Work) -> bool:
        """The file scratch/pilot.EXIT; pw.x looks for it between k-points and SCF steps."""
        scratch = work.directory / SCRATCH
        try:
            scratch.mkdir(exist_ok=True)
            (scratch / f"{PREFIX}.EXIT").touch()
        except OSError:
            return False
        return True

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:
        """Gentler mixing in two steps where it did not converge, another diagonalisation where that crashed."""
        return qe_remedies.soften(spec, verdict, tries, reason)

    def find(self, settings: Json) -> Finding:
        """pw.x, its version, and the pseudopotentials that the settings name."""
        program = command_of(settings)[0]
        path = locate(program)
        what = "Quantum ESPRESSO (pw.x)"
        if path is None:
            return Finding(what, f"{program} is not on the PATH", False, qe_verdict.INSTALL)
        version = first_match(
            [str(path)],
            r"Program PWSCF v\.?\s*(\S+)",
            env={"OMPI_MCA_ess_singleton_isolated": "1", "OMP_NUM_THREADS": "1"},
            timeout_s=_VERSION_TIMEOUT_S,
        )
        here = f"{version or 'version unknown'} at {path}"
        folder, named = pseudo_folder(settings), table(settings)["pseudopotentials"]
        try:
            files = qe_pseudo.find(folder, named, list(named))
        except PilotError as error:
            return Finding(what, f"{here}; {error.what} in {folder}", False, error.next_step)
        notes = [_cutoff_note(settings, files[symbol], symbol) for symbol in named]
        there = ", ".join(path.name for path in files.values()) or "none named"
        return Finding(what, f"{here}; pseudopotentials in {folder}: {there}" + "".join(notes), True)


def _title(work: Work) -> str:
    return f"pilot attempt {work.attempt_id}"


def _read(work: Work, err: str, atoms: int) -> Report:
    """What the outputs say of this attempt; those of another attempt are as if they were not there."""
    out, crash = (head_and_tail(work.directory / name) for name in ("pw.out", "CRASH"))
    report = read(out, err, atoms, crash)
    if report.title == _title(work):
        return report
    if report.title:
        report = read("", "", atoms)
    return replace(report, label=None, missing=report.missing or "nothing says which attempt it is of")


def _refusal(directory: Path) -> str:
    """What the disk says to a small file; a run on a full disk may end without a word, as there is no room for it."""
    probe = directory / "room"
    try:
        write_whole(probe, bytes(_PROBE_BYTES), durable=False)
        probe.unlink()
    except (OSError, StorageError) as error:
        return error.what if isinstance(error, StorageError) else str(error)
    return ""


def _numbers(label: Label) -> dict[str, float]:
    squares = [sum(x * x for x in row) for row in label.forces]
    numbers = {"energy": label.energy, "max_force": max(squares, default=0.0) ** 0.5}
    if label.stress is not None:
        numbers["pressure"] = -sum(label.stress[:3]) / 3.0 * _EV_PER_A3_IN_GPA
    return numbers


def _cutoff_note(settings: Json, path: Any, symbol: str) -> str:
    wanted, given = qe_pseudo.suggested_cutoff(path), table(settings)["ecutwfc"]
    if wanted is None or given is None or given >= wanted:
        return ""
    return f" (note: the one for {symbol} suggests at least {wanted:g} Ry, ecutwfc is {given:g})"


ENGINE = QuantumEspresso()
