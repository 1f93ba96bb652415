"""VASP: the energy, forces and stress of a structure by one SCF run.

What counts as a result: :mod:`tasks.engines.vasp_output`. What is done about known failures:
:mod:`tasks.engines.vasp_remedies`. A run that was stopped starts over, since a single point has nothing to go on from.

The POTCAR is of the user's licence. It lies in the scratch folder of the attempt, which is removed when the attempt is
judged, or by the pilot where it never is; POTCAR in the attempt's folder is a link to it. POTCAR.titles stays, with the
titles and digests.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import InputError, PilotError
from db.files import storage_error, write_whole
from db.records import Json, Label, Structure
from db.states import Verdict
from tasks import endings, scratch
from tasks.engines import vasp_potcar, vasp_remedies, vasp_verdict
from tasks.engines.vasp_input import (
    arrange,
    incar,
    incar_text,
    kpoints,
    kpoints_text,
    names_of_potcars,
    poscar,
)
from tasks.engines.vasp_output import STDERR, STDOUT, Report, read
from tasks.engines.vasp_settings import check_settings, command_of, potcar_names, table
from tasks.programs import locate
from tasks.protocol import Command, Exit, Finding, Judgement, Work
from tasks.texts import head_and_tail

TITLES = "POTCAR.titles"
_WHAT = "VASP"
_EV_PER_A3_IN_GPA = 160.21766208
#: files that are not kept, each with the tag by which a user asks for it; vasp*.h5 hold the POTCAR
_NOT_KEPT = {
    "WAVECAR": "LWAVE",
    "CHGCAR": "LCHARG",
    "CHG": "LCHARG",
    "LOCPOT": "LVTOT",
    "PROCAR": "LORBIT",
    "DOSCAR": "LORBIT",
} | dict.fromkeys(
    ("vaspwave.h5", "vaspout.h5", "TMPCAR", "EIGENVAL", "IBZKPT", "PCDAT", "XDATCAR", "CONTCAR", "REPORT", "STOPCAR"),
    "",
)
_REMEDIED = frozenset({Verdict.CRASHED, Verdict.NOT_CONVERGED})


@dataclass(frozen=True, slots=True)
class Vasp:
    """``{"structure", "species", "kpoints": [k1, k2, k3] or null, "settings"}`` to a label.

    ``"corrections"`` (tags of INCAR) and ``"met"`` (custodian's errors and how often) come with later attempts.
    """

    name: str = "vasp"
    writes_input: bool = True

    def prepare(self, work: Work) -> Command:
        """Write POSCAR, INCAR, KPOINTS and POTCAR.

        Raises:
            InputError: an element or its POTCAR is not there, or the settings or the cell are wrong.
            StorageError: the disk refuses.
        """
        structure, spec = Structure.from_json(work.spec["structure"]), work.spec
        arrangement = arrange(structure, spec["species"])
        numbers = kpoints(structure, spec)
        # the potentials first: their errors say the most
        full = table(spec["settings"])
        potcars = vasp_potcar.find(full["potcar_dir"], work.root, names_of_potcars(spec, arrangement)).values()
        problems = check_settings(spec["settings"], spec["species"], work.root)
        if problems:
            raise InputError(problems[0], where="[label.vasp] in pilot.toml", next_step="mend it, then: pilot retry")
        title = _title(work)
        texts = {
            "POSCAR": poscar(structure, arrangement),
            "INCAR": incar_text(incar(spec, arrangement, title)),
            "KPOINTS": kpoints_text(numbers, arrangement, title),
            TITLES: vasp_potcar.titles(potcars),
        }
        _remove(work.directory, _NOT_KEPT)
        try:
            for name, text in texts.items():
                write_whole(work.directory / name, text, durable=False)
            _put_potcar(work.directory, vasp_potcar.joined(potcars))
        except PilotError:
            _drop_potcar(work.directory)
            raise
        return Command(
            argv=command_of(spec["settings"]),
            mpi=True,
            env={"OMP_NUM_THREADS": str(work.resources.threads)},
            stdout=STDOUT,
            stderr=STDERR,
        )

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By the end and the convergence in OUTCAR, vasprun.xml, and whether all of it fits together."""
        structure, spec = Structure.from_json(work.spec["structure"]), work.spec
        _drop_potcar(work.directory)
        try:
            arrangement = arrange(structure, spec["species"])
        except PilotError as error:
            return Judgement(Verdict.BAD_INPUT, f"{error.what}; {error.next_step}")
        tags = incar(spec, arrangement, _title(work))
        report = read(work.directory, structure, arrangement, _title(work))
        err = head_and_tail(work.directory / STDERR)
        verdict, reason = vasp_verdict.of(report, end, command_of(spec["settings"])[0], err)
        proposal = vasp_remedies.Proposal()
        if verdict in _REMEDIED and (report.looped or report.complaint):
            beside = work.directory / scratch.FOLDER / "custodian"
            proposal = vasp_remedies.propose(work.directory, beside, spec, tags, verdict)
        scratch.drop(work.directory)
        _remove(work.directory, [name for name, tag in _NOT_KEPT.items() if not (tag and tags.get(tag))])
        facts = _facts(work, report, end)
        if verdict is Verdict.DONE and report.label is not None:
            with contextlib.suppress(PilotError):
                facts["kpoints"] = list(kpoints(structure, spec))
            return Judgement(verdict, "", facts | _numbers(report.label), report.label)
        said = "; ".join(part for part in (reason, proposal.said()) if part)
        return Judgement(verdict, said, facts, remedy=_remedy(spec, proposal))

    def stop_softly(self, work: Work) -> bool:
        """STOPCAR with LABORT: it ends with the SCF step under way."""
        try:
            write_whole(work.directory / "STOPCAR", "LABORT = .TRUE.\n", durable=False)
        except PilotError:
            return False
        return True

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """Where custodian had nothing to propose: other algorithms and mixing for what did not converge."""
        return vasp_remedies.soften(spec, verdict, tries)

    def find(self, settings: Json) -> Finding:
        """The program, the POTCAR files that the settings name, and whether custodian is there."""
        program = command_of(settings)[0]
        path = locate(program)
        if path is None:
            return Finding(_WHAT, f"{program} is not on the PATH", False, vasp_verdict.INSTALL)
        here = str(path)
        names = potcar_names(settings, list(table(settings)["potcars"]))
        try:
            potcars = vasp_potcar.find(table(settings)["potcar_dir"], None, names) if names else {}
        except PilotError as error:
            return Finding(_WHAT, f"{here}; {error.what} in {error.where}", False, error.next_step)
        titles = ", ".join(potcar.titel for potcar in potcars.values()) or "none named"
        notes = "".join(_cutoff_note(settings, symbol, potcar) for symbol, potcar in potcars.items())
        if vasp_remedies.is_installed():
            return Finding(_WHAT, f"{here}; POTCAR: {titles}{notes}; custodian is here", True)
        without = "; without custodian its known failures are not mended, but for an SCF that does not converge"
        return Finding(_WHAT, f"{here}; POTCAR: {titles}{notes}{without}", True, 'pip install "pilot-mtp[vasp]"')


def _title(work: Work) -> str:
    return f"pilot attempt {work.attempt_id}"


def _put_potcar(directory: Path, data: bytes) -> None:
    """The POTCAR in the scratch folder, for our eyes only, and a link to it."""
    hidden, link = directory / scratch.FOLDER / "POTCAR", directory / "POTCAR"
    try:
        hidden.parent.mkdir(mode=0o700, exist_ok=True)
        with open(hidden, "wb", opener=_for_us) as file:
            file.write(data)
        link.unlink(missing_ok=True)
        link.symlink_to(hidden.relative_to(directory))
    except OSError as error:
        raise storage_error(error, hidden) from error


def _for_us(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _drop_potcar(directory: Path) -> None:
    _remove(directory, ("POTCAR",))
    scratch.drop(directory)


def _remove(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            (directory / name).unlink()


def _remedy(spec: Json, proposal: vasp_remedies.Proposal) -> Json | None:
    if not proposal.corrections:
        return None
    return {"corrections": {**(spec.get("corrections") or {}), **proposal.corrections}, "met": dict(proposal.met)}


def _facts(work: Work, report: Report, end: Exit) -> dict[str, Any]:
    facts: dict[str, Any] = {"vasp_version": report.version, "scf_steps": report.scf_steps}
    facts["seconds"] = end.wall_s if report.seconds is None else report.seconds
    titles = head_and_tail(work.directory / TITLES).splitlines()
    if titles:
        facts["potcars"] = [line.partition("  sha256 ")[0] for line in titles]
    if work.spec.get("corrections"):
        facts["corrections"] = dict(work.spec["corrections"])
    if report.label is not None and end.cause is None and end.code != 0:
        facts["ended_with"] = endings.how(end)
    return facts


def _numbers(label: Label) -> dict[str, float]:
    squares = [sum(x * x for x in row) for row in label.forces]
    numbers = {"energy": label.energy, "max_force": max(squares, default=0.0) ** 0.5}
    if label.stress is not None:
        numbers["pressure"] = -sum(label.stress[:3]) / 3.0 * _EV_PER_A3_IN_GPA
    return numbers


def _cutoff_note(settings: Json, symbol: str, potcar: vasp_potcar.Potcar) -> str:
    given = table(settings)["encut"]
    if potcar.enmax is None or given is None or given >= potcar.enmax:
        return ""
    return f" (note: the one for {symbol} wants at least ENMAX = {potcar.enmax:g} eV, encut is {given:g})"


ENGINE = Vasp()
