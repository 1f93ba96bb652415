"""What to change in INCAR after a run of VASP has failed.

The failures and their cures are those that the package *custodian* knows (Comput. Mater. Sci. 68 (2013) 314).
Its handlers look at a copy of the run and propose. They are never let near a process, and what they propose is applied
only where it changes the way to the result and not the result: another algorithm, other mixing, more bands, less use of
symmetry. What would change what a label means (cutoff, smearing, precision, real-space projection, k-points, the
structure) is left out, and said.

Without the package a run that did not converge is tried with simple remedies of our own.
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.records import Json
from db.states import Verdict
from tasks.engines.vasp_output import STDERR, STDOUT
from tasks.engines.vasp_settings import table
from tasks.texts import head_and_tail, in_one_line

#: tags that change the way to the result only
HARMLESS = frozenset(
    {"ISEARCH", "TIME", "NELM", "NELMIN", "NELMDL", "AMIX", "BMIX", "AMIX_MAG", "BMIX_MAG", "AMIN", "IMIX", "INIMIX"}
    | {"MAXMIX", "MIXPRE", "WC", "SYMPREC", "NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALU", "LSUBROT"}
)
_ALGORITHMS = frozenset({"normal", "fast", "veryfast", "all", "damped", "conjugate"})
#: tags that mean nothing to a single point from nothing, and files that it has not
_MEANINGLESS = frozenset({"ISTART", "POTIM", "IBRION", "IOPT", "NSW", "LWAVE", "LCHARG"})
_NEEDED = ("custodian", "pymatgen")
_COPIED = ("INCAR", "KPOINTS", "POSCAR", STDOUT, STDERR, "OUTCAR", "OSZICAR")
_BANDS = ("eigenvalues", "projected", "dos")
_PART_BYTES = 500_000
_MOST_STEPS = 5
#: an agent is not heard for so long when custodian is first needed; then it loads on, and the next failure has it
_PATIENCE_S = 8.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the handlers propose for the next attempt.

    Attributes:
        errors: as they call them.
        corrections: tags of INCAR and values that are applied.
        left_out: what is not, as it would change what the label means; for people.
        met: how often each error was met: the next step of its cure depends on it.
    """

    errors: tuple[str, ...] = ()
    corrections: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    met: Mapping[str, int] = field(default_factory=dict)

    def said(self) -> str:
        """One clause for people; empty when nothing was recognised."""
        if not self.errors:
            return ""
        applied = _listed(self.corrections) or "nothing that could be applied"
        text = f"custodian: {', '.join(self.errors)}; proposes {applied}"
        if self.left_out:
            text += f"; left out, as the label would mean something else: {', '.join(self.left_out)}"
        return text


def is_installed() -> bool:
    """Whether custodian is there, with what it needs for VASP; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


def propose(directory: Path, beside: Path, spec: Json, in_effect: Mapping[str, Any], verdict: Verdict) -> Proposal:
    """Ask custodian's handlers what to change; never raises.

    Args:
        directory: of the attempt, which stays as it is.
        beside: an empty folder to be made for a copy of it, which is removed.
        spec: of the task, with what earlier attempts have met.
        in_effect: the tags of INCAR of this attempt.
        verdict: of this attempt.
    """
    if not is_installed() or not _is_loaded():
        return Proposal()
    met = dict(spec.get("met") or {})
    errors: set[str] = set()
    corrections: dict[str, Any] = {}
    left_out: list[str] = []
    try:
        # a step of a cure that means nothing here (to go on from the wave functions) is followed by the next
        for _ in range(_MOST_STEPS):
            before = dict(met)
            found, actions = _ask_about(directory, beside, met, verdict)
            errors |= found
            corrections, more = sift(actions, in_effect)
            left_out += [change for change in more if change not in left_out]
            if corrections or met == before:
                break
    except Exception as error:
        # another's code may stumble over anything in the output of a failed run
        logging.getLogger(__name__).info("custodian has stumbled: %s: %s", type(error).__name__, error)
        return Proposal()
    return Proposal(tuple(sorted(errors)), corrections, tuple(left_out), met)


def sift(actions: Iterable[Mapping[str, Any]], in_effect: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Which of custodian's actions are applied, and which are left out as they change the result.

    Args:
        actions: ``{"dict": "INCAR", "action": {"_set": {tag: value}}}``, ``{"file": …}`` and so on.
        in_effect: the tags of INCAR of the attempt that failed; what is so already is no correction.
    """
    corrections: dict[str, Any] = {}
    left_out: list[str] = []
    for action in actions:
        changes = action.get("action", {}).get("_set", {})
        if action.get("dict") == "INCAR":
            for tag, value in changes.items():
                if tag in _MEANINGLESS or _is_same(in_effect.get(tag), value):
                    continue
                if _keeps_the_result(tag, value, in_effect):
                    corrections[tag] = value
                else:
                    left_out.append(_listed({tag: value}))
        elif action.get("dict"):
            left_out.append(f"a change of {action['dict']}")
    return corrections, left_out


def soften(spec: Json, verdict: Verdict, tries: int) -> Json | None:
    """Our own remedies where nothing converges: all bands at once and twice the steps; then slow mixing."""
    if verdict is not Verdict.NOT_CONVERGED or tries not in {1, 2}:
        return None
    try:
        nelm = int(table(spec["settings"])["nelm"])
        corrections = dict(spec.get("corrections") or {})
    except (LookupError, TypeError, ValueError, AttributeError):
        # whoever wrote such a spec is told so by another attempt
        return None
    smeared = table(spec["settings"])["ismear"] >= 0
    # ALGO = All fails with the tetrahedron method
    first = {"NELM": 2 * nelm} | ({"ALGO": "All"} if smeared else {})
    second = {"NELM": 4 * nelm, "ALGO": "Normal", "AMIX": 0.1, "BMIX": 0.01, "AMIX_MAG": 0.4, "BMIX_MAG": 0.01}
    return {**spec, "corrections": corrections | (first if tries == 1 else second)}


def _ask_about(
    directory: Path, beside: Path, met: dict[str, int], verdict: Verdict
) -> tuple[set[str], list[Mapping[str, Any]]]:
    with _quiet():
        try:
            with _copy_of(directory, beside) as folder:
                return _ask(folder, met, verdict)
        except Exception:
            # custodian knows what to do without an OUTCAR, but not with one that ends before the first SCF step does
            with _copy_of(directory, beside) as folder:
                (folder / "OUTCAR").unlink(missing_ok=True)
                return _ask(folder, met, verdict)


def _ask(folder: Path, met: dict[str, int], verdict: Verdict) -> tuple[set[str], list[Mapping[str, Any]]]:
    """The errors and actions of the handlers; ``met`` is brought up to date."""
    from custodian.utils import tracked_lru_cache
    from custodian.vasp.handlers import UnconvergedErrorHandler, VaspErrorHandler

    try:
        handler = VaspErrorHandler(output_filename=STDOUT)
        handler.error_count.update(met)
        errors: set[str] = set()
        actions: list[Mapping[str, Any]] = []
        if handler.check(directory=str(folder)):
            errors |= set(handler.errors)
            actions += handler.correct(directory=str(folder)).get("actions") or []
            met.clear()
            met.update({str(name): int(count) for name, count in handler.error_count.items()})
        if verdict is Verdict.NOT_CONVERGED:
            unconverged = UnconvergedErrorHandler(output_filename="vasprun.xml")
            if unconverged.check(directory=str(folder)):
                errors.add("unconverged")
                actions += unconverged.correct(directory=str(folder)).get("actions") or []
        return errors, actions
    finally:
        tracked_lru_cache.tracked_cache_clear()


def _is_loaded() -> bool:
    """Whether the package is there by now; it goes on loading if it is not."""
    loading = _loading()
    loading.join(_PATIENCE_S)
    return not loading.is_alive()


@functools.cache
def _loading() -> threading.Thread:
    """Loading takes seconds, and on a shared disk that is cold a minute: for so long no agent may be silent."""
    thread = threading.Thread(target=_load, name="custodian", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    with _quiet(), contextlib.suppress(Exception):
        # what is wrong with it is said when it is asked
        importlib.import_module("custodian.vasp.handlers")


@contextlib.contextmanager
def _copy_of(directory: Path, beside: Path) -> Iterator[Path]:
    """What the handlers look at, in a folder where they may write: small enough to be read at once, and no POTCAR."""
    beside.mkdir(parents=True)
    try:
        for name in _COPIED:
            if (directory / name).is_file():
                (beside / name).write_text(head_and_tail(directory / name, _PART_BYTES, _PART_BYTES))
        if (directory / "vasprun.xml").is_file():
            without_bands(directory / "vasprun.xml", beside / "vasprun.xml")
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def without_bands(path: Path, target: Path) -> None:
    """Copy a vasprun.xml without its bands and densities of states, which are most of it.

    Raises:
        OSError: a file cannot be read or written.
    """
    inside = ""
    with path.open(errors="replace") as source, target.open("w") as copy:
        for line in source:
            word = line.strip()
            if not inside:
                inside = next((tag for tag in _BANDS if word.startswith(f"<{tag}>")), "")
            if not inside:
                copy.write(line)
            elif f"</{inside}>" in word:
                inside = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Custodian logs each error that it finds, and pymatgen warns of all that it finds odd."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _keeps_the_result(tag: str, value: Any, in_effect: Mapping[str, Any]) -> bool:
    if tag == "ALGO":
        return str(value).lower() in _ALGORITHMS
    if tag == "ISYM":
        # without symmetry the same k-points are all computed, and not one for many
        return bool(value == 0)
    if tag == "EDIFF":
        return bool(value < in_effect.get(tag, 1e-4))
    if tag == "NBANDS":
        return bool(value > in_effect.get(tag, 0))
    return tag in HARMLESS and isinstance(value, str | int | float)


def _is_same(one: Any, other: Any) -> bool:
    return one == other or str(one).lower() == str(other).lower()


def _listed(tags: Mapping[str, Any]) -> str:
    return in_one_line(", ".join(f"{tag} = {value}" for tag, value in tags.items()))
