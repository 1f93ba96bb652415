"""What a campaign refuses before it begins or goes on: better one word now than numbers that mean nothing."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db import dataset, progress
from db.errors import InputError
from db.records import Structure
from db.states import Role
from pilot.campaign import cells
from pilot.campaign.protocol import Protocol, settings_of
from pilot.folder import Folder
from pilot.stage_tables import SelectTable
from pilot.tables import CrystalTable
from pilot.train_tables import TrainTable
from tasks.formats.atoms import to_atoms

#: one configuration says nothing of how its energy changes
_FEWEST = 2


def refuse_crystal(
    unit: Structure, species: Sequence[str], crystal: CrystalTable, train: TrainTable, folder: Folder
) -> None:
    """A crystal that cannot be explored, or of which this potential would see nothing.

    Raises:
        InputError: it is not periodic, has a species that is not trained, or its atoms are nearer than the radial
            basis begins or farther than it reaches.
    """
    present = {*(cells.symbol(number) for number in unit.numbers), *(crystal.composition or ())}
    strangers = sorted(present - set(species))
    distance = cells.nearest_distance(unit) if all(unit.pbc) else 0.0
    if not all(unit.pbc):
        wrong, cure = "the crystal is not periodic in three directions", "give its file a cell and pbc"
    elif strangers:
        wrong, cure = f"the crystal has {', '.join(strangers)}", "add to campaign.species what is missing"
    elif not train.min_dist < distance < train.max_dist:
        wrong = f"atoms of the crystal are {distance:.3f} Å apart, which is not between train.min_dist and max_dist"
        cure = "choose min_dist below any distance to come, max_dist beyond some shells of neighbours; mind crystal.a"
    else:
        return
    raise InputError(wrong, where=f"[crystal] in {folder.config}", next_step=cure)


def refuse_selection(unit: Structure, select: SelectTable, folder: Folder) -> None:
    """Bounds that leave out the crystal itself: nothing would ever be selected.

    Raises:
        InputError: select.min_distance is not below the crystal's own nearest distance.
    """
    distance = cells.nearest_distance(unit)
    if select.min_distance is not None and select.min_distance >= distance:
        raise InputError(
            f"select.min_distance is {select.min_distance:g} Å, and atoms of the crystal are {distance:.3f} Å apart: "
            "all configurations would be nonsense",
            where=str(folder.config),
            next_step=f"leave it out, which is 0.6 of that ({0.6 * distance:.2f} Å), or choose a smaller one",
        )


def refuse_template(train: TrainTable, folder: Folder) -> None:
    """The untrained potential from which MLIP is to begin must be there before anything is labelled.

    Raises:
        InputError: train.mlip.template is no file.
    """
    template = train.mlip.template
    if template is not None and not (folder.root / template).is_file():
        raise InputError(
            "train.mlip.template is no file",
            where=str(folder.root / template),
            next_step="give the path of an untrained potential, or leave it out: one of train.level is written",
        )


def refuse_pool(pool: Sequence[Structure], species: Sequence[str], min_dist: float, where: str) -> None:
    """Structures of a stage that cannot be explored.

    Args:
        pool: they.
        species: chemical symbols that are trained.
        min_dist: Å, where the radial basis begins.
        where: for the message.

    Raises:
        InputError: there is none, or one is not periodic, has a species that is not trained, or atoms so near that the
            potential knows nothing of them.
    """
    if not pool:
        raise InputError("there is no structure in this file", where=where, next_step="give a file that holds some")
    for number, structure in enumerate(pool, 1):
        strangers = sorted({cells.symbol(z) for z in structure.numbers} - set(species))
        if strangers or not all(structure.pbc):
            wrong = f"has {', '.join(strangers)}" if strangers else "is not periodic in three directions"
            raise InputError(
                f"structure {number} {wrong}",
                where=where,
                next_step=(
                    "add to campaign.species what is missing, or leave it out"
                    if strangers
                    else "give it a cell, with room around it where it has none, and pbc; or leave it out"
                ),
            )
        nearest = _nearest_below(structure, min_dist)
        if nearest is not None:
            raise InputError(
                f"structure {number} has atoms {nearest:.3f} Å apart, which is below train.min_dist, {min_dist:g} Å",
                where=where,
                next_step="leave it out, or choose train.min_dist below any distance to come",
            )


def _nearest_below(structure: Structure, limit: float) -> float | None:
    """The shortest distance between atoms, Å, if it is below a limit; in time that grows with their number."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", to_atoms(structure), limit)
    return float(distances.min()) if len(distances) else None


def refuse_other_campaign(
    connection: Connection, folder: Folder, protocol: Protocol, history: Sequence[dataset.Generation]
) -> None:
    """What is recorded must still be what pilot.toml speaks of.

    Raises:
        InputError: a stage that has begun is there no longer, or all its labels were made with other settings.
    """
    where, stages = str(folder.config), len(protocol.config.stages)
    if history and history[-1].stage >= max(stages, 1):
        raise InputError(
            f"stage {history[-1].stage + 1} has begun, but pilot.toml has {stages}",
            where=where,
            next_step="put the [[stages]] back: they can be added at the end, not taken away",
        )
    # the labels of an earlier fidelity are none of this stage's
    wanted = protocol.label_settings(history[-1].stage if history else 0)
    planned = progress.planned_labels(connection)
    if planned and not dataset.count_labels(connection, wanted) and wanted not in map(settings_of, planned):
        # without this word the next fit would see the newest few structures only, and no holdout
        raise InputError(
            "all labels of this stage were made, or planned, with other settings of [label]: they cannot be mixed",
            where=where,
            next_step="put the settings back, or begin a campaign with the new ones in another folder",
        )


def refuse_nothing_to_learn(
    connection: Connection, folder: Folder, protocol: Protocol, history: Sequence[dataset.Generation]
) -> None:
    """A campaign that has not begun needs something to train its first potential on.

    Raises:
        InputError: pilot.toml asks for fewer than two initial cells, and no labels were imported in their place; or it
            asks for errors on a holdout, and there is none.
    """
    if history:
        return
    counted = dataset.count_labels(connection, protocol.label_settings())
    _refuse_errors_on_nothing(folder, protocol, counted.get(Role.HOLDOUT, 0))
    imported = counted.get(Role.TRAIN, 0)
    if protocol.config.initial.train + imported >= _FEWEST:
        return
    raise InputError(
        "there is nothing to train the first potential on: initial.train is "
        f"{protocol.config.initial.train}, and {imported} labels were imported with these settings",
        where=str(folder.config),
        next_step="`pilot import FILE … --settings this` brings your own labels; or set initial.train to 20",
    )


def _refuse_errors_on_nothing(folder: Folder, protocol: Protocol, imported: int) -> None:
    converge = protocol.config.converge
    asked = [f"converge.{key}" for key in ("force_error", "energy_error") if getattr(converge, key) is not None]
    if asked and not protocol.config.initial.holdout + imported:
        raise InputError(
            f"{' and '.join(asked)} can never be known: there is no holdout",
            where=str(folder.config),
            next_step="set initial.holdout to 10, or bring one: `pilot import FILE … --role holdout --settings this`",
        )


def refuse_other_model(connection: Connection, folder: Folder, protocol: Protocol) -> None:
    """A campaign goes on with the kind of potential that it has: engines may change, as long as they read each other's.

    Raises:
        InputError: the newest potential is of another kind than train.engine trains.
    """
    potentials = dataset.read_potentials(connection)
    if not potentials:
        return
    place = folder.root / potentials[-1].path
    if place.is_dir() and not (place / protocol.potential_file).exists():
        raise InputError(
            f'train.engine = "{protocol.train.engine}" makes another kind of potential than this campaign has',
            where=str(place),
            next_step="put train.engine back, or begin another folder and `pilot import` what was exported here",
        )
