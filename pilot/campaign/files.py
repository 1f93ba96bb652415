"""The files of a campaign: sets for the next fit and its evaluation, what was selected, published potentials."""

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from db import dataset
from db.dataset import Candidate
from db.files import settle, storage_error, write_whole
from db.records import Attempt, Label, Structure
from db.states import Role
from pilot.campaign.cells import symbol
from pilot.campaign.protocol import Protocol
from pilot.folder import Folder
from tasks.formats.cfg import read_cfg, write_cfg
from tasks.formats.configuration import Configuration, from_structure, to_structure
from tasks.registry import PotentialFiles

#: for each file of a set the settings of its labels, the newest label that there was when it was written, and its size
Written = dict[str, tuple[str | None, int, int]]


def write_set(
    connection: Connection,
    folder: Folder,
    protocol: Protocol,
    role: Role,
    now: dataset.Generation,
    written: Written,
    *,
    of_this_generation: bool = False,
) -> str | None:
    """Write the labelled structures of a role for the tasks of a generation.

    Args:
        now: the generation; its folder takes the file, its stage decides whose labels count.
        written: what is in the files that this pilot has written; grows. A set of 20 000 takes many seconds, in which
            the manager hears nobody: what all members of an ensemble begin with is written once.
        of_this_generation: only the structures that belong to it.

    Returns:
        The file, relative to the campaign folder; None if nothing has that role.
    """
    # what the user brought to measure errors on may be of other settings: that is said where it was imported
    settings = None if role is Role.TEST else protocol.label_settings(now.stage)
    place = folder.generation(now.stage, now.number)
    path = folder.root / place / f"{role}.cfg"
    newest = dataset.newest_label(connection)
    if path.exists() and written.get(str(path)) == (settings, newest, path.stat().st_size):
        return f"{place}/{role}.cfg"
    rows = dataset.read_labelled(connection, role, settings)
    only = now.id if of_this_generation else None
    configurations = _configurations(protocol, rows, only)
    first = next(configurations, None)
    if first is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path.parent) from error
    write_cfg(path, itertools.chain([first], configurations))
    settle(path.parent, folder.root)
    written[str(path)] = (settings, newest, path.stat().st_size)
    return f"{place}/{role}.cfg"


def _configurations(
    protocol: Protocol, rows: Iterator[tuple[Structure, Label, dict[str, Any]]], generation: int | None
) -> Iterator[Configuration]:
    for structure, label, about in rows:
        if generation is not None and about["generation"] != generation:
            continue
        features = [("structure", str(about["structure_id"]))]
        if about["grade"] is not None:
            features.append(("MV_grade", f"{about['grade']:.6f}"))
        if not any(structure.pbc):
            # without it a .cfg forgets the room that the cluster was labelled in, and the structure would be another
            features.append(("box", " ".join(repr(structure.cell[k][k]) for k in range(3))))
        shifted = referred(label, structure, protocol.label.atom_energies)
        yield from_structure(structure, shifted, protocol.campaign.species, features)


def referred(label: Label, structure: Structure, atom_energies: Mapping[str, float]) -> Label:
    """The label with its energy relative to those of its atoms (eV); without any, as it is."""
    if not atom_energies:
        return label
    atoms = sum(atom_energies.get(symbol(number), 0.0) for number in structure.numbers)
    return replace(label, energy=label.energy - atoms)


def read_selected(attempt: Attempt, folder: Folder, protocol: Protocol, generation: str) -> list[Candidate]:
    """What a selection has kept, each with its grade."""
    path = folder.root / attempt.directory / "selected.cfg"
    return list(_read_candidates(path, protocol, Role.TRAIN, generation))


def read_samples(
    explorations: Sequence[Attempt], folder: Folder, protocol: Protocol, generation: str
) -> list[Candidate]:
    """What the explorations of a sweep have drawn to compare γ and error."""
    paths = [folder.root / attempt.directory / "sample.cfg" for attempt in explorations]
    return [
        candidate
        for path in paths
        if path.exists()
        for candidate in _read_candidates(path, protocol, Role.SAMPLE, f"{generation} sample")
    ]


def _read_candidates(path: Path, protocol: Protocol, role: Role, source: str) -> Iterator[Candidate]:
    for number, configuration in enumerate(read_cfg(path), 1):
        grade = float(dict(configuration.features).get("MV_grade", "nan"))
        structure = to_structure(configuration, protocol.campaign.species)
        yield Candidate(structure, role, f"{source} #{number}", grade=grade)


def publish_potential(made: Path, published: Path, files: PotentialFiles) -> None:
    """Put a potential where the next tasks look for it; doing it twice does no harm.

    It is on the disk when this returns: the commit that follows says that it is there.

    Raises:
        OSError: a part of it was not made.
        StorageError: the disk refuses.
    """
    content = {name: (made / name).read_bytes() for name in files.files}
    content |= {name: (made / name).read_bytes() for name in files.optional if (made / name).exists()}
    beside = published.with_name(f".{published.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, data in content.items():
            write_whole(beside / name, data)
        if published.is_symlink():
            # it may lead anywhere: only the link is ours
            published.unlink()
        shutil.rmtree(published, ignore_errors=True)
        beside.rename(published)
    except OSError as error:
        raise storage_error(error, published) from error
    settle(published.parent, published.parent.parent)
