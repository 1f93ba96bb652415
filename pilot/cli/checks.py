"""What `pilot doctor` looks at: one line a finding, in sections."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

import pilot
from db.errors import PilotError
from db.states import TaskKind
from pilot import host
from pilot.cli.checks_campaign import check_campaign, settings_to_find
from pilot.cli.checks_folder import check_folder
from pilot.cli.output import ERROR, GOOD, show
from pilot.config import Config, read_config
from pilot.folder import Folder
from pilot.mpi.choose import Chooser
from pilot.mpi.scrub import scrubbed
from tasks.protocol import Finding
from tasks.registry import MODULES, engine

Section = tuple[str, list[Finding]]


def check_all(folder: Folder | None) -> Iterator[Section]:
    """Look at everything; each section is ready as soon as it is asked for."""
    yield "pilot", list(_pilot())
    config, mistakes = _config(folder)
    yield "machine", list(_machine(config))
    yield "programs", [_mpi(config), *_engines(folder, config)]
    if folder is not None:
        yield "folder", [*check_folder(folder), *mistakes]
        if config is not None and config.campaign is not None:
            yield "campaign", list(check_campaign(folder, config))


def print_checks(sections: Iterator[Section]) -> bool:
    """Print the sections; whether all that is needed is there."""
    healthy = True
    for title, findings in sections:
        table = Table.grid(padding=(0, 1))
        for finding in findings:
            healthy = healthy and finding.ok
            mark = Text("ok", style=GOOD) if finding.ok else Text("!!", style=ERROR)
            table.add_row("", mark, finding.what, Text(finding.found, style="" if finding.ok else ERROR))
            if finding.cure:
                table.add_row("", "", "", Text(f"cure: {finding.cure}"))
        show(Text(title, style="bold"), table)
    verdict = (
        Text("all that is needed is here", style=GOOD)
        if healthy
        else Text("something is missing or wrong", style=ERROR)
    )
    show(verdict)
    return healthy


def _config(folder: Folder | None) -> tuple[Config | None, list[Finding]]:
    if folder is None:
        return None, []
    try:
        config = read_config(folder.config)
    except PilotError as error:
        return None, [Finding("pilot.toml", error.what, ok=False, cure=error.next_step)]
    what = "no campaign: it runs what `pilot add` puts in" if config.campaign is None else "no mistake found"
    return config, [Finding("pilot.toml", what, ok=True)]


def _pilot() -> Iterator[Finding]:
    yield Finding("pilot", f"{version('pilot-mtp')} in {Path(pilot.__file__).parent.parent}", ok=True)
    python = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("Python", f"{python} at {sys.executable}", ok=True)


def _machine(config: Config | None) -> Iterator[Finding]:
    cores, wanted = len(host.usable_cores()), None if config is None else config.run.cores
    limited = "" if wanted is None else f"; run.cores = {wanted}"
    yield Finding("cores", f"{cores} that we may use on {host.hostname()}{limited}", ok=True)
    yield Finding("memory", f"{host.memory_mb() / 1000:.1f} GB", ok=True)
    gpus = host.gpus()
    if gpus:
        yield Finding("GPUs", ", ".join(str(gpu) for gpu in gpus), ok=True)


def _mpi(config: Config | None) -> Finding:
    """The launcher that would start a task of several ranks; needed only if some task has several."""
    settings = Config() if config is None else config
    needed = any(settings.resources.of(kind).ranks > 1 for kind in TaskKind if kind is not TaskKind.COMMAND)
    environ = scrubbed(os.environ) | settings.run.env
    try:
        launcher = Chooser(settings.run.mpi, environ).choose(2)
    except PilotError as error:
        needless = "" if needed else "; nothing here needs it"
        return Finding("MPI", f"{error.what}{needless}", ok=not needed, cure=error.next_step if needed else "")
    return Finding("MPI", f"{launcher.name} {launcher.found() or ''}".strip(), ok=True)


def _engines(folder: Folder | None, config: Config | None) -> Iterator[Finding]:
    """The engines that the campaign uses; without one all, and then none is needed."""
    if folder and config and config.campaign and config.label and config.train:
        settings: dict[str, dict[str, Any]] = {
            config.explore.engine: config.explore.plugin.model_dump(),
            config.train.engine: config.train.mlip.model_dump(),
            config.label.engine: settings_to_find(folder, config),
        }
        for name in ("command", config.explore.engine, "maxvol", config.label.engine, config.train.engine, "evaluate"):
            yield engine(name).find(settings.get(name, {}))
        return
    for name in MODULES:
        if name == "ase":
            # without settings there is no calculator to look for
            continue
        found = engine(name).find({})
        yield found if found.ok else Finding(found.what, f"{found.found}; needed for campaigns only", True, found.cure)
