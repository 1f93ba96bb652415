"""The batch script of a folder, and the line with which it is handed in to SLURM."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.errors import InputError, MissingError
from pilot.cli.output import note
from pilot.cli.site_files import PLACEHOLDER, SCRIPT, job_name
from pilot.folder import Folder
from pilot.slurm import commands

#: In the environment of a job that belongs to a chain: "1" in the first; then "ENDED:IDLE", how many tasks had ended
#: when it was handed in, and the number of allocations in a row before in which none had.
CHAIN = "PILOT_CHAIN"
#: The options of sbatch that were typed, for the next allocation of the chain.
OPTIONS = "PILOT_CHAIN_OPTIONS"
_ORDER = re.compile(r"#SBATCH\s")
_NAMED = re.compile(r"#SBATCH\s+(?:--job-name[=\s]|-J\s*)\s*[\"']?(?P<name>[^\s\"']+)")
_RUNS = re.compile(r"exec\s+(\S*/)?pilot\s+run\b")
#: `pilot submit` gives these itself, or could not read the answer.
_OURS = re.compile(r"--(job-name|chdir|dependency|parsable|wrap|array|test-only|wait|clusters)(=|$)|-[JDdaWM]")


@dataclass(frozen=True, slots=True)
class Script:
    """The batch script of a folder.

    Attributes:
        names: those that jobs of this folder may have: ours, and the script's own.
        problem: why it cannot be handed in as it is; empty if it can.
    """

    folder: Folder
    text: str
    names: tuple[str, ...]
    problem: str

    @property
    def path(self) -> Path:
        return self.folder.root / SCRIPT


@dataclass(frozen=True, slots=True)
class Order:
    """What is handed in.

    Attributes:
        script: its path.
        options: for sbatch.
        environ: what the job finds in its environment beside ours.
    """

    script: str
    options: tuple[str, ...]
    environ: Mapping[str, str]

    def argv(self, *, test_only: bool = False) -> list[str]:
        """The line for SLURM."""
        return commands.sbatch(self.script, dependency="singleton", test_only=test_only, extra=self.options)

    def typed(self) -> str:
        """As one would type it."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environ.items()]
        return " ".join([*variables, shlex.join(self.argv())])


def read_script(folder: Folder) -> Script:
    """The folder's pilot.sh.

    Raises:
        MissingError: there is none.
        InputError: it is not text.
    """
    path = folder.root / SCRIPT
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise MissingError(
            f"there is no {SCRIPT} in this folder",
            where=str(path),
            next_step=f"`pilot init --list-sites`, then `pilot init --site NAME {shlex.quote(str(folder.root))}`",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{SCRIPT} cannot be read: {error}", where=str(path), next_step="mend or remove it") from error
    own = [match["name"] for line in text.splitlines() if (match := _NAMED.match(line))]
    return Script(folder, text, tuple(dict.fromkeys([job_name(folder.root), *own])), _problem(text))


def _problem(text: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        if _ORDER.match(line) and PLACEHOLDER in line:
            return f"line {number} is still to be filled in: {line}"
    return "" if text.startswith("#!") else "it does not begin with #!/bin/bash"


def check_script(script: Script) -> None:
    """See that it can be handed in; warn of what will not work well.

    Raises:
        InputError: it cannot.
    """
    if script.problem:
        raise InputError(
            f"{SCRIPT} cannot be submitted: {script.problem}",
            where=str(script.path),
            next_step="edit that line, then `pilot submit --dry-run`",
        )
    if not any(_RUNS.match(line.strip()) for line in script.text.splitlines()):
        note(f"{SCRIPT} has no line `exec pilot run`: without exec SLURM's signals do not reach the pilot")


def check_options(options: Sequence[str], *, chain: bool) -> None:
    """See that what was typed for sbatch does not undo what `pilot submit` gives.

    Raises:
        InputError: it does.
    """
    if options and not options[0].startswith("-"):
        raise InputError(
            f"{options[0]!r} is no option of sbatch", next_step="`pilot submit -- --nodes=4 --time=12:00:00`"
        )
    for option in options:
        if _OURS.match(option) or (chain and re.match(r"--export(=|$)", option)):
            raise InputError(
                f"{option} is not for `pilot submit`, which gives name, folder, dependency and environment itself",
                next_step=f"leave it out, or hand the script in by hand: sbatch {option} {SCRIPT}",
            )


def order_of(script: Script, options: Sequence[str], chain: str) -> Order:
    """How it is handed in; ``chain`` is what :data:`CHAIN` is to be, empty outside of a chain."""
    own = [f"--job-name={script.names[0]}", f"--chdir={script.folder.root}"]
    environ: dict[str, str] = {}
    if chain:
        own.append("--export=ALL")
        environ[CHAIN] = chain
        if options:
            environ[OPTIONS] = shlex.join(options)
    return Order(str(script.path), (*own, *options), environ)
