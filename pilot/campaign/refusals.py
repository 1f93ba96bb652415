"""What a campaign refuses before it begins or goes on: better one word now than numbers that mean nothing."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db import dataset
from db.errors import InputError
from db.records import Structure
from db.states import Role
from pilot.campaign import cells
from pilot.campaign.protocol import Protocol
from pilot.folder import Folder
from pilot.tables import CrystalTable
from pilot.train_tables import TrainTable

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


def refuse_pool(pool: Sequence[Structure], species: Sequence[str], where: str) -> None:
    """Structures of a stage that cannot be explored.

    Raises:
        InputError: there is none, or one is not periodic or has a species that is not trained.
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
                next_step="leave it out, or add to campaign.species what is missing",
            )


def refuse_other_campaign(
    connection: Connection, folder: Folder, protocol: Protocol, history: Sequence[dataset.Generation]
) -> None:
    """What is recorded must still be what pilot.toml speaks of.

    Raises:
        InputError: a stage that has begun is there no longer, or all labels were made with other settings.
    """
    where, stages = str(folder.config), len(protocol.config.stages)
    if history and history[-1].stage >= max(stages, 1):
        raise InputError(
            f"stage {history[-1].stage + 1} has begun, but pilot.toml has {stages}",
            where=where,
            next_step="put the [[stages]] back: they can be added at the end, not taken away",
        )
    stage = history[-1].stage if history else 0
    # what was imported with settings of its own is no campaign
    if dataset.count_labels(connection, made_here=True) and not any(
        dataset.count_labels(connection, protocol.label_settings(number)) for number in range(stage + 1)
    ):
        # without this word the next fit would see the newest few structures only, and no holdout
        raise InputError(
            "all labels of this campaign were made with other settings of [label]: they cannot be mixed",
            where=where,
            next_step="put the settings back, or begin a campaign with the new ones in another folder",
        )


def refuse_nothing_to_learn(
    connection: Connection, folder: Folder, protocol: Protocol, history: Sequence[dataset.Generation]
) -> None:
    """A campaign that has not begun needs something to train its first potential on.

    Raises:
        InputError: pilot.toml asks for fewer than two initial cells, and no labels were imported in their place.
    """
    if history:
        return
    imported = dataset.count_labels(connection, protocol.label_settings()).get(Role.TRAIN, 0)
    if protocol.config.initial.train + imported >= _FEWEST:
        return
    raise InputError(
        "there is nothing to train the first potential on: initial.train is "
        f"{protocol.config.initial.train}, and {imported} labels were imported with these settings",
        where=str(folder.config),
        next_step="`pilot import FILE … --settings this` brings your own labels; or set initial.train to 20",
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
