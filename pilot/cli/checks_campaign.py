"""What `pilot doctor` says of the campaign that pilot.toml describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db.errors import PilotError
from db.states import TaskKind
from pilot import host
from pilot.campaign.cells import atomic_number, nearest_distance, volume_per_atom
from pilot.campaign.explorations import exploring_generation
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol, Source
from pilot.cli.output import plural
from pilot.config import Config
from pilot.folder import Folder
from tasks import registry
from tasks.engines import qe_settings, vasp_potcar, vasp_settings
from tasks.protocol import Finding
from tasks.validation import FEWEST_POINTS


def settings_to_find(folder: Folder, config: Config) -> dict[str, Any]:
    """The settings of the reference engine as its ``find`` wants them: what is wrong in them is said elsewhere."""
    assert config.label is not None
    settings = config.label.settings()
    species = [] if config.campaign is None else config.campaign.species
    wrong = registry.problems(config.label.engine, settings, species, folder.root)
    if config.label.engine == "qe":
        settings["pseudo_dir"] = str(qe_settings.pseudo_folder(settings, folder.root))
        if wrong:
            settings["pseudopotentials"] = {}
    elif config.label.engine == "vasp":
        settings["potcars"] = {} if wrong else vasp_settings.potcar_names(settings, species)
        if settings["potcar_dir"]:
            settings["potcar_dir"] = str(folder.root / Path(settings["potcar_dir"]).expanduser())
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
    yield _species(protocol)
    yield _crystal(protocol)
    yield from _curve(config.initial.eos_points)
    yield _radii(protocol)
    yield from _neighbourhoods(protocol)
    yield from _stages(protocol)
    yield from _labels(folder, protocol)
    yield from _fits(config)


def _species(protocol: Protocol) -> Finding:
    """What is in no cell is never explored."""
    species = protocol.campaign.species
    explored = {*protocol.cells["primitive"].numbers, *protocol.cells["reference"].numbers}
    explored |= {number for pool in protocol.pools.values() for structure in pool for number in structure.numbers}
    absent = [name for name in species if atomic_number(name) not in explored | _mixed(protocol)]
    if absent:
        said = f"{', '.join(species)}; {', '.join(absent)} is in none of the cells that are explored"
        return Finding("species", said, ok=False, cure="crystal.formula, crystal.composition or crystal.file")
    return Finding("species", ", ".join(species), ok=True)


def _curve(points: int) -> Iterator[Finding]:
    if 0 < points < FEWEST_POINTS:
        said = f"{points} points give no equation of state, and no reference lattice parameter"
        yield Finding("curve", said, ok=False, cure=f"initial.eos_points of at least {FEWEST_POINTS}, or 0")


def _mixed(protocol: Protocol) -> set[int]:
    return {atomic_number(name) for name in protocol.crystal.composition or ()}


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


def _neighbourhoods(protocol: Protocol) -> Iterator[Finding]:
    """What is cut out must hold all that the atom in its middle feels, or something else is learned."""
    radius, reach = protocol.config.explore.neighbourhoods.radius, protocol.train.max_dist
    if "neighbourhood" in protocol.grades() and radius < reach:
        said = f"those of {radius:g} Å do not hold all that their atom feels, up to train.max_dist = {reach:g} Å"
        cure = f"explore.neighbourhoods.radius of at least {reach:g} Å"
        yield Finding("neighbourhoods", said, ok=False, cure=cure)


def _stages(protocol: Protocol) -> Iterator[Finding]:
    for stage in range(len(protocol.config.stages)):
        sweep = exploring_generation(protocol, stage, 1, Source(0, 0, "", ""))
        runs = [task for task in sweep.tasks if task.kind is TaskKind.EXPLORE]
        sizes = {len(cell["numbers"]) for run in runs for cell in run.spec.get("structures") or [run.spec["structure"]]}
        least, most = min(sizes), max(sizes)
        atoms = plural(most, "atom") if least == most else f"{least} to {plural(most, 'atom')}"
        yield Finding(f"stage {stage + 1}", f"{atoms}, {plural(len(runs), 'exploration')} a generation", ok=True)


def _labels(folder: Folder, protocol: Protocol) -> Iterator[Finding]:
    name, settings = protocol.label.engine, protocol.label.settings()
    problems = registry.problems(name, settings, protocol.campaign.species, folder.root)
    for problem in problems:
        what, _, cure = problem.rpartition("; ")
        yield Finding(f"label.{name}", what or problem, ok=False, cure=cure if what else "mend it in pilot.toml")
    if problems:
        return
    if name == "qe":
        yield Finding("label.qe", f"pseudopotentials in {qe_settings.pseudo_folder(settings, folder.root)}", ok=True)
    elif name == "vasp":
        potcars = vasp_potcar.folder_of(settings["potcar_dir"], folder.root)
        yield Finding("label.vasp", f"POTCAR files in {potcars}", ok=True)


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
