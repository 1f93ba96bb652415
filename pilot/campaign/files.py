"""The files of a campaign: training sets for the next fit, selections of the last, published potentials."""

import shutil
from pathlib import Path

from sqlalchemy import Connection

from db import dataset
from db.dataset import Candidate
from db.files import settle, storage_error, write_whole
from db.records import Attempt
from pilot.campaign.planner import Protocol
from pilot.folder import Folder
from tasks.formats.cfg import read_cfg, write_cfg
from tasks.formats.configuration import from_structure, to_structure

#: What a trained potential consists of.
POTENTIAL = ("pot.mtp", "active.npz")


def write_set(connection: Connection, folder: Folder, protocol: Protocol, role: str, place: str) -> str | None:
    """Write the labelled structures of a role for the tasks of a generation.

    Args:
        role: "train", "holdout" or "eos".
        place: the generation's folder, relative to the campaign's.

    Returns:
        The file, relative to the campaign folder; None if nothing has that role.
    """
    species = protocol.campaign.species
    rows = dataset.read_labelled(connection, role, protocol.label_settings())
    configurations = [
        from_structure(structure, label, species, [("structure", str(about["structure_id"]))])
        for structure, label, about in rows
    ]
    if not configurations:
        return None
    path = folder.root / place / f"{role}.cfg"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path.parent) from error
    write_cfg(path, configurations)
    settle(path.parent, folder.root)
    return f"{place}/{role}.cfg"


def read_selected(attempt: Attempt, folder: Folder, protocol: Protocol, generation: str) -> list[Candidate]:
    """What a selection has kept, each with its grade."""
    path = folder.root / attempt.directory / "selected.cfg"
    return [
        Candidate(
            to_structure(configuration, protocol.campaign.species),
            "train",
            f"{generation} #{number}",
            grade=float(dict(configuration.features).get("MV_grade", "nan")),
        )
        for number, configuration in enumerate(read_cfg(path), 1)
    ]


def publish_potential(made: Path, published: Path) -> None:
    """Put a potential where the next tasks look for it; doing it twice does no harm.

    It is on the disk when this returns: the commit that follows says that it is there.

    Raises:
        OSError: a part of it was not made.
        StorageError: the disk refuses.
    """
    content = {name: (made / name).read_bytes() for name in POTENTIAL}
    beside = published.with_name(f".{published.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name in POTENTIAL:
            write_whole(beside / name, content[name])
        if published.is_symlink():
            # it may lead anywhere: only the link is ours
            published.unlink()
        shutil.rmtree(published, ignore_errors=True)
        beside.rename(published)
    except OSError as error:
        raise storage_error(error, published) from error
    settle(published.parent, published.parent.parent)
