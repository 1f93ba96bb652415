"""Running MLIP's programs, and what can be told from what they print: endings, errors, settings, counts."""

import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.errors import InputError, MissingError, PilotError
from tasks.texts import head_and_tail, in_one_line

#: with these a wrong number of arguments and a command that there is not are told, with exit code 0
USAGE = re.compile(r"Error: command .* does not exist|arguments? (are )?required|argument required")
NUMBER = r"([-+.\deE]+|-?nan|-?inf)"
_REPORT = re.compile(
    rf"Energy per atom:\s+Errors checked for (\d+) configurations.*?RMS\s+absolute difference = {NUMBER}"
    rf".*?Forces:\s+Errors checked for (\d+) atoms.*?RMS\s+absolute difference = {NUMBER}",
    re.DOTALL,
)
_ECHO = re.compile(r"^\t([\w:-]+) = (.*)$", re.MULTILINE)
_NEVER_ECHOED = {"al_mode"}
_ROUNDING = 1e-6
_STEP = re.compile(r"BFGS iter (\d+):")
_ENDED = re.compile(r"step limit reached|BFGS ended due to [^\n]*|BFGS has exceeded the linesearch limit")


class MlipError(PilotError):
    """``mlp`` has not done what it was asked; the text says how that shows."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a run of a program has printed.

    Attributes:
        code: exit code; minus the signal that ended it.
        out: standard output, without its middle if it is long.
        err: standard error.
    """

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Errors:
    """What MLIP prints of a potential's errors, six digits of each.

    Attributes:
        configurations: how many were compared.
        energy_per_atom: eV/atom, RMS.
        force: eV/Å, RMS over the atoms of the *norm* of the force error: √3 times that of a component.
    """

    configurations: int
    energy_per_atom: float
    force: float


def argv_of(command: str) -> tuple[str, ...]:
    """The words of a setting ``command``: a program, or a launcher with a program ("mpirun -n 4 mlp").

    Raises:
        InputError: quotation marks that do not match, or nothing.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        words = ()
        reason = str(error)
    else:
        reason = "it is empty"
    if not words:
        raise InputError(f"the command {command!r} cannot be used: {reason}", next_step="mend it in pilot.toml")
    return words


def run_logged(argv: Sequence[str], where: Path, log: str) -> Said:
    """Run a program in ``where`` to its end, what it prints going to ``log``.out and ``log``.err as it comes.

    It is in our session, and ends with it.

    Raises:
        MissingError: it is not there or may not be executed.
    """
    out, err = where / f"{log}.out", where / f"{log}.err"
    try:
        with out.open("wb") as standard, err.open("wb") as error_stream:
            code = subprocess.Popen(
                list(argv), cwd=where, stdin=subprocess.DEVNULL, stdout=standard, stderr=error_stream
            ).wait()
    except (FileNotFoundError, PermissionError) as error:
        raise MissingError(
            f"cannot run {argv[0]}: {error.strerror}",
            where=" ".join(argv),
            next_step=f"see that `{argv[0]}` is on the PATH (module load?), or give its path in pilot.toml",
        ) from error
    return Said(code, head_and_tail(out), head_and_tail(err))


def how_it_ended(said: Said) -> str:
    """Exit code or signal, and the line in which it says why if there is one."""
    if said.code < 0:
        return f"killed by {signal.Signals(-said.code).name}"
    lines = [line for line in (said.err + said.out).splitlines() if "ERROR" in line or USAGE.search(line)]
    lines = lines or said.err.strip().splitlines()[-1:] or said.out.strip().splitlines()[-1:]
    return f"exit code {said.code}" + (f": {in_one_line(lines[0])}" if lines else "")


def count_configurations(path: Path) -> int:
    """How many whole configurations are in a ``.cfg`` file; 0 for one that is not there."""
    try:
        with path.open("rb") as file:
            return sum(line.strip() == b"END_CFG" for line in file)
    except OSError:
        return 0


def outputs(path: Path) -> list[Path]:
    """The files in which a command has left what it was to write to ``path``: itself, or one for each rank."""
    ranks = [file for file in path.parent.glob(f"{path.name}.*") if file.name[len(path.name) + 1 :].isdigit()]
    ranks.sort(key=lambda file: int(file.name[len(path.name) + 1 :]))
    return ([path] if path.exists() else []) + ranks


def read_report(text: str) -> Errors | None:
    """The last report of errors in what MLIP has printed."""
    found = None
    for block in text.split("Errors report")[1:]:
        match = _REPORT.search(block)
        if match is not None:
            found = Errors(int(match[1]), float(match[2]), float(match[4]))
    return found


def settings_echoed(text: str) -> dict[str, str]:
    """The settings that MLIP says it has taken, each as it said it first."""
    found: dict[str, str] = {}
    for name, value in _ECHO.findall(text):
        found.setdefault(name, value.strip())
    return found


def refuse_other_settings(text: str, wanted: Mapping[str, str]) -> None:
    """Unknown settings are ignored without a word; but those that were taken are printed.

    Args:
        text: what was printed.
        wanted: names and values; those that are never printed may be among them.

    Raises:
        MlipError: one was not taken, or with another value.
    """
    taken = settings_echoed(text)
    for name, value in wanted.items():
        if name not in _NEVER_ECHOED and not _same(taken.get(name, ""), value):
            raise MlipError(f"MLIP has not taken {name} = {value}: it says {taken.get(name, 'nothing')}")


def _same(said: str, wanted: str) -> bool:
    """Whether two settings are the same; MLIP prints six digits after the point."""
    try:
        return abs(float(said) - float(wanted)) <= _ROUNDING * max(1.0, abs(float(wanted)))
    except ValueError:
        return said == wanted


def why_it_ended(text: str) -> tuple[int, str]:
    """The steps of the last minimisation in the log of a training, and why it ended there."""
    steps = [int(number) for number in _STEP.findall(text)]
    why = _ENDED.findall(text)
    return (steps[-1] + 1 if steps else 0), (why[-1] if why else "")
