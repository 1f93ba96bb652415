"""Making requests out of what was typed for `pilot add`."""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import InputError
from pilot import host
from pilot.cli.asking import ask, report
from pilot.cli.options import parse_ids, parse_memory, parse_pairs
from pilot.cli.output import note
from pilot.cli.presence import look
from pilot.cli.view import batch_of
from pilot.durations import parse_duration
from pilot.folder import Folder

_LONGEST_NAME = 60
#: what labels can be given; their resources are those of pilot.toml
_OF_LABELS = frozenset({"--after", "--after-ended", "--priority", "--time-request", "--time-limit"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A command as it was typed; see `pilot add --help`."""

    argv: tuple[str, ...]
    name: str | None = None
    ranks: int = 1
    threads: int = 1
    nodes: int = 1
    gpus: int = 0
    memory: str | None = None
    after: tuple[str, ...] = ()
    after_ended: tuple[str, ...] = ()
    priority: int | None = None
    time_request: str | None = None
    time_limit: str | None = None
    mpi: bool | None = None
    shell: bool = False
    env: tuple[str, ...] = ()
    count: int = 1


def add_commands(folder: Folder, wanted: Wanted) -> None:
    """Ask for a command to be run.

    Raises:
        InputError: something that was typed cannot be.
        RefusedError: the pilot, or the rules of the folder, refuse it.
    """
    if not wanted.argv or not wanted.argv[0]:
        raise InputError("which command?", next_step="pilot add [OPTIONS] -- COMMAND, or pilot add label FILES")
    if wanted.shell and len(wanted.argv) != 1:
        raise InputError(
            "with --shell the command must be one word", next_step=f"put it in quotes: {shlex.join(wanted.argv)!r}"
        )
    if wanted.ranks % wanted.nodes or (wanted.nodes > 1 and wanted.mpi is False):
        raise InputError(
            f"{wanted.ranks} ranks cannot be spread evenly over {wanted.nodes} nodes",
            where="--ranks, --nodes",
            next_step=f"give a multiple of {wanted.nodes} as --ranks, of an MPI program",
        )
    tasks = [_task(wanted, number) for number in range(1, wanted.count + 1)]
    _warn(folder, wanted)
    report(ask(folder, "add", {"tasks": tasks}))


def _task(wanted: Wanted, number: int) -> dict[str, Any]:
    several = wanted.count > 1
    argv = list(wanted.argv)
    name = wanted.name or _short(argv[0] if wanted.shell else shlex.join(argv))
    env = parse_pairs(wanted.env) | ({"PILOT_NUMBER": str(number)} if several else {})
    task: dict[str, Any] = {
        "name": f"{name} #{number}" if several else name,
        "spec": {
            "argv": argv,
            "cwd": str(Path.cwd()),
            "env": env,
            "mpi": wanted.ranks > 1 if wanted.mpi is None else wanted.mpi,
            "shell": wanted.shell,
        },
        "resources": {
            "ranks": wanted.ranks,
            "threads": wanted.threads,
            "nodes": wanted.nodes,
            "gpus": wanted.gpus,
            "memory_mb": 0 if wanted.memory is None else parse_memory(wanted.memory),
        },
    }
    return task | _wishes(wanted)


def _wishes(wanted: Wanted) -> dict[str, Any]:
    """What commands and labels can be given alike."""
    return {
        "after": parse_ids(wanted.after),
        "after_ended": parse_ids(wanted.after_ended),
        "priority": wanted.priority,
        "time_request_s": None if wanted.time_request is None else parse_duration(wanted.time_request),
        "time_limit_s": _limit(wanted.time_limit),
    }


def _limit(text: str | None) -> float | None:
    limit_s = None if text is None else parse_duration(text)
    if limit_s == 0.0:
        raise InputError(
            "a time limit of nothing ends the task at once", where="--time-limit", next_step="leave it out for no limit"
        )
    return limit_s


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 2] + " …"


def _warn(folder: Folder, wanted: Wanted) -> None:
    """What may be a mistake but may also be right elsewhere, as pilots need not run where this is typed."""
    program = wanted.argv[0]
    if not wanted.shell and shutil.which(program) is None:
        note(f"{program} is not a program that is found here; where the pilot runs it must be")
    cores, here = wanted.ranks * wanted.threads // wanted.nodes, len(host.usable_cores())
    # on a login node nobody runs a pilot: the nodes that it will have are not known
    elsewhere = look(folder).alive or batch_of(folder, None).possible
    if (cores > here or wanted.nodes > 1) and not elsewhere:
        on = "one node" if wanted.nodes == 1 else f"each of {wanted.nodes} nodes"
        note(f"it needs {cores} cores on {on}, and this machine has {here}: `pilot run` here cannot run it")


def add_labels(folder: Folder, wanted: Wanted, options: list[str]) -> None:
    """Ask for structures to be labelled: the files are ``wanted.argv``, ``options`` those that were typed.

    Raises:
        InputError: no file, one that cannot be read, or an option that labels do not have.
        RefusedError: the folder has no campaign, or a structure has an element that it does not know.
    """
    files = wanted.argv
    if not files:
        raise InputError("which structures?", next_step="pilot add label FILE …")
    strange = [option for option in options if option not in _OF_LABELS]
    if strange:
        raise InputError(
            f"labels do not take {', '.join(strange)}",
            where="pilot add label",
            next_step="their resources are those of [resources.label] in pilot.toml",
        )
    wishes = _wishes(wanted)
    # reading structures takes ASE, which commands do not wait for
    from pilot.config import read_config
    from tasks.formats.atoms import read_structures

    config = read_config(folder.config)
    species = config.campaign.species if config.campaign is not None else ()
    structures = [
        {"structure": structure.to_json(), "source": f"{os.path.relpath(file, folder.root)} #{number}"}
        for file in files
        for number, (structure, _) in enumerate(read_structures(Path(file), species), 1)
    ]
    report(ask(folder, "add label", {"structures": structures} | wishes))
