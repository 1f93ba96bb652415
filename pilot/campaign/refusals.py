"""What a campaign refuses before it begins or goes on: better one word now than numbers that mean nothing."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db import dataset
from db.errors import InputError
from db.records import Structure
from pilot.campaign import cells
from pilot.campaign.planner import Protocol
from pilot.folder import Folder
from pilot.train_tables import TrainTable


def refuse_crystal(unit: Structure, species: Sequence[str], train: TrainTable, folder: Folder) -> None:
    """A crystal that cannot be explored, or of which this potential would see nothing.

    Raises:
        InputError: it is not periodic, has a species that is not trained, or its atoms are nearer than the radial
            basis begins or farther than it reaches.
    """
    strangers = sorted({cells.symbol(number) for number in unit.numbers} - set(species))
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


def refuse_other_campaign(
    connection: Connection, folder: Folder, protocol: Protocol, history: Sequence[dataset.Generation]
) -> None:
    """What is recorded must still be what pilot.toml speaks of.

    Raises:
        InputError: a stage that has begun is there no longer, or all labels were made with other settings.
    """
    where, stages = str(folder.config), len(protocol.config.stages)
    if history and history[-1].stage >= stages:
        raise InputError(
            f"stage {history[-1].stage + 1} has begun, but pilot.toml has {stages}",
            where=where,
            next_step="put the [[stages]] back: they can be added at the end, not taken away",
        )
    if dataset.count_labels(connection) and not dataset.count_labels(connection, protocol.label_settings()):
        # without this word the next fit would see the newest few structures only, and no holdout
        raise InputError(
            "all labels of this campaign were made with other settings of [label]: they cannot be mixed",
            where=where,
            next_step="put the settings back, or begin a campaign with the new ones in another folder",
        )
