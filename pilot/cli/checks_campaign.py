"""What `pilot doctor` says of the campaign that pilot.toml describes."""

import math
from collections.abc import Iterator
from typing import Any

from db.errors import PilotError
from db.states import TaskKind
from pilot import host
from pilot.campaign.cells import atomic_number, nearest_distance, volume_per_atom
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol
from pilot.cli.output import plural
from pilot.config import Config
from pilot.folder import Folder
from tasks.engines import qe_settings
from tasks.protocol import Finding


def settings_to_find(folder: Folder, config: Config) -> dict[str, Any]:
    """The settings of the reference engine as its ``find`` wants them: what is wrong in them is said elsewhere."""
    assert config.label is not None
    settings = config.label.settings()
    if config.label.engine == "qe":
        settings["pseudo_dir"] = str(qe_settings.pseudo_folder(settings, folder.root))
        species = [] if config.campaign is None else config.campaign.species
        if qe_settings.check_settings(settings, species, folder.root):
            settings["pseudopotentials"] = {}
    return settings


def check_campaign(folder: Folder, config: Config) -> Iterator[Finding]:
    """Species, crystal, reference calculations, and whether every kind of task fits this machine."""
    assert config.campaign is not None
    try:
        protocol = protocol_of(config, folder)
    except PilotError as error:
        yield Finding("campaign", f"{error.what} ({error.where})", ok=False, cure=error.next_step)
        return
    assert protocol is not None
    yield Finding("species", ", ".join(config.campaign.species), ok=True)
    yield _crystal(protocol)
    yield _radii(protocol)
    yield from _stages(protocol)
    yield from _labels(folder, protocol)
    yield from _fits(config)


def _crystal(protocol: Protocol) -> Finding:
    cell = protocol.cells["primitive"]
    known = {atomic_number(symbol) for symbol in protocol.campaign.species}
    strangers = set(cell.numbers) - known
    said = (
        f"{plural(len(cell.numbers), 'atom')} in its cell, {volume_per_atom(cell):.2f} Å³ an atom, "
        f"neighbours at {nearest_distance(cell):.3f} Å"
    )
    if strangers:
        return Finding("crystal", f"{said}; it has elements that are not in campaign.species", False, "add them there")
    return Finding("crystal", said, ok=True)


def _radii(protocol: Protocol) -> Finding:
    """The radial basis must reach from below the nearest neighbours to beyond them."""
    train, nearest = protocol.train, nearest_distance(protocol.cells["primitive"])
    said = f"level {train.level}, from {train.min_dist:g} to {train.max_dist:g} Å"
    if train.min_dist >= nearest:
        cure = f"train.min_dist below {nearest:.2f} Å, better {0.7 * nearest:.2f}"
        return Finding("potential", f"{said}: min_dist is not below the crystal's own nearest distance", False, cure)
    if train.max_dist <= nearest:
        cure = f"train.max_dist well above {nearest:.2f} Å, say {2 * nearest:.1f}"
        return Finding("potential", f"{said}: max_dist does not reach the nearest neighbours", False, cure)
    return Finding("potential", said, ok=True)


def _stages(protocol: Protocol) -> Iterator[Finding]:
    for number, stage in enumerate(protocol.config.stages, 1):
        atoms = len(protocol.cells[stage.cell].numbers) * math.prod(stage.repeat or [1])
        pressures = len(stage.pressures) if protocol.config.explore.ensemble == "npt" else 1
        runs = len(stage.temperatures) * pressures * stage.replicas
        yield Finding(
            f"stage {number}", f"{plural(atoms, 'atom')}, {plural(runs, 'exploration')} a generation", ok=True
        )


def _labels(folder: Folder, protocol: Protocol) -> Iterator[Finding]:
    if protocol.label.engine != "qe":
        return
    settings = protocol.label.settings()
    problems = qe_settings.check_settings(settings, protocol.campaign.species, folder.root)
    for problem in problems:
        what, _, cure = problem.rpartition("; ")
        yield Finding("label.qe", what or problem, ok=False, cure=cure if what else "mend it in pilot.toml")
    if not problems:
        yield Finding("label.qe", f"pseudopotentials in {qe_settings.pseudo_folder(settings, folder.root)}", ok=True)


def _fits(config: Config) -> Iterator[Finding]:
    """Tasks larger than this machine can run elsewhere, but not here."""
    here = config.run.cores or len(host.usable_cores())
    for kind in TaskKind:
        if kind is TaskKind.COMMAND:
            continue
        cores = config.resources.of(kind).resources().cores
        if cores > here:
            yield Finding(
                kind,
                f"needs {cores} cores, and here are {here}",
                ok=False,
                cure=f"fewer ranks or threads in [resources.{kind}], or run it on a larger machine",
            )
