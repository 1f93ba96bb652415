"""Printing where things stand. Light: no typer, no pydantic, no database, so that the answer comes at once."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from db.errors import InputError
from pilot import host
from pilot.cli.presence import look
from pilot.folder import Folder, find_folder
from pilot.snapshot import SCHEMA, Snapshot, read_snapshot

_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """What was typed behind `pilot status`, as far as it is not about single tasks."""

    watch: bool = False
    as_json: bool = False
    everything: bool = False
    folder: Path | None = None


def print_status(options: StatusOptions) -> None:
    """Print it as wished.

    Raises:
        MissingError: there is no campaign folder.
        StorageError: what was published cannot be read.
        InputError: --watch without a terminal.
    """
    folder = find_folder(options.folder)
    if options.as_json:
        print(json.dumps(as_data(folder)))
    elif options.watch:
        _watch(folder, everything=options.everything)
    else:
        # rich is not imported for --json
        from pilot.cli.output import show
        from pilot.cli.view import status_blocks

        show(*(block.body for block in status_blocks(folder, everything=options.everything)))


def as_data(folder: Folder) -> dict[str, Any]:
    """The snapshot for programs, with ``alive`` and ``age_s`` (s; None if nothing was published yet)."""
    snapshot = read_snapshot(folder)
    now = host.now()
    age_s = None if snapshot is None else max(0.0, now - snapshot.at)
    shown = snapshot or Snapshot(at=now, folder=str(folder.root), pilot=None)
    return {"schema": SCHEMA, "alive": look(folder).alive, "age_s": age_s} | asdict(shown)


def _watch(folder: Folder, *, everything: bool) -> None:
    from rich.live import Live

    from pilot.cli.output import console
    from pilot.cli.view import fitted, status_blocks

    if not sys.stdout.isatty():
        raise InputError("--watch needs a terminal", next_step="`pilot status`, as often as you like; or --json")
    output = console()
    try:
        with Live(console=output, screen=True, auto_refresh=False) as live:
            while True:
                live.update(fitted(output, status_blocks(folder, everything=everything)), refresh=True)
                host.pause(_EVERY_S)
    except KeyboardInterrupt:
        return
