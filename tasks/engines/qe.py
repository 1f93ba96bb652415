"""Quantum ESPRESSO (``pw.x``): the energy, forces and stress of a structure by one SCF run.

What its exit code and its JOB DONE are worth was tried with QE 6.7. It prints JOB DONE also when the SCF is
not converged or when it was asked to stop (exit code 2, or 255 if that was before the first step), and with
``scf_must_converge=.false.`` even "convergence has been achieved" with exit code 0. So a label counts only
if all of it fits together: see :class:`tasks.engines.qe_output.Report`.
"""

import contextlib
import shutil
from dataclasses import dataclass, replace
from typing import Any

from db.errors import PilotError
from db.files import write_whole
from db.records import Json, Label, Structure
from db.states import Verdict
from tasks.engines import qe_pseudo, qe_verdict
from tasks.engines.qe_input import PREFIX, SCRATCH, Run, kpoints, write_input
from tasks.engines.qe_output import read
from tasks.engines.qe_settings import command_of, pseudo_folder, table
from tasks.programs import first_match, locate
from tasks.protocol import Cause, Command, Exit, Finding, Judgement, Work

_EV_PER_A3_IN_GPA = 160.21766208
_LEAST_MIXING = 0.1
_VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class QuantumEspresso:
    """``{"structure", "species", "kpoints": [k1, k2, k3] or null, "settings"}`` to a label."""

    name: str = "qe"
    writes_input: bool = True

    def prepare(self, work: Work) -> Command:
        """Write pw.in.

        Raises:
            InputError: an element or its pseudopotential is not there, or the settings or the cell are wrong.
        """
        structure = Structure.from_json(work.spec["structure"])
        run = Run(title=_title(work), root=work.root, time_left_s=work.time_left_s)
        text = write_input(structure, work.spec, run)
        write_whole(work.directory / "pw.in", text, durable=False)
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
        err = _text(work, "pw.err")
        report = read(_text(work, "pw.out"), err, len(structure.numbers))
        if report.title != _title(work):
            if report.title:
                # of another attempt: as if it were not there
                report = read("", "", len(structure.numbers))
            report = replace(report, label=None, missing=report.missing or "nothing says which attempt it is of")
        verdict, reason = qe_verdict.of(report, end, command_of(work.spec["settings"])[0], err)
        if end.cause is not Cause.LOST or verdict is Verdict.DONE:
            # it starts afresh in any case; when nobody saw the end, something may still be writing there
            with contextlib.suppress(OSError):
                shutil.rmtree(work.directory / SCRATCH)
        facts: dict[str, Any] = {"qe_version": report.version, "scf_steps": report.scf_steps}
        facts["seconds"] = end.wall_s if report.seconds is None else report.seconds
        if verdict is not Verdict.DONE or report.label is None:
            return Judgement(verdict, reason, facts)
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

    def soften(self, spec: Json, verdict: Verdict, tries: int) -> Json | None:
        """Once, when it did not converge: mix half as much, with twice the steps.

        Where the structure has a surface (not periodic in all directions) the mixing is also screened
        locally (``local-TF``), which keeps charge from sloshing between matter and vacuum.
        """
        if verdict is not Verdict.NOT_CONVERGED or tries != 1:
            return None
        settings = dict(spec["settings"])
        given = {str(key).lower(): dict(value) for key, value in table(settings)["input"].items()}
        # what stands in "input" would win over the settings
        electrons = given.get("electrons", {})
        beta = float(electrons.pop("mixing_beta", table(settings)["mixing_beta"]))
        steps = int(electrons.pop("electron_maxstep", table(settings)["electron_maxstep"]))
        settings["mixing_beta"] = min(beta, max(0.5 * beta, _LEAST_MIXING))
        settings["electron_maxstep"] = 2 * steps
        if not all(spec["structure"]["pbc"]):
            electrons.setdefault("mixing_mode", "local-TF")
        if given or electrons:
            settings["input"] = given | {"electrons": electrons}
        return {**spec, "settings": settings}

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


def _text(work: Work, name: str) -> str:
    try:
        return (work.directory / name).read_text(errors="replace")
    except OSError:
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
