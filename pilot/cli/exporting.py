"""Writing the training set and the potential of a campaign for others."""

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from db import dataset
from db.dataset import Generation, Potential
from db.errors import PilotError, StateError
from db.files import storage_error, write_whole
from db.records import Label, Structure
from db.rows import pieces
from db.schema import attempts
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol
from pilot.cli.export_readme import Content, readme
from pilot.cli.output import note, say
from pilot.cli.records import published
from pilot.config import read_config
from pilot.folder import Folder, keep_mode
from tasks.formats.atoms import export_structures

Row = tuple[Structure, Label, dict[str, Any]]
_FORMATS = {"train": (".extxyz", ".db", ".cfg"), "holdout": (".extxyz", ".cfg")}
_COLUMNS = (
    "set",
    "number",
    "atoms",
    "energy_eV",
    "stage",
    "generation",
    "gamma",
    "source",
    "task",
    "attempt",
    "files",
    "settings",
    "structure_id",
)


@dataclass(slots=True)
class _Read:
    """What the database holds for an export; ``others`` counts labels with settings of an older pilot.toml."""

    sets: dict[str, list[Row]] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)
    potential: Potential | None = None
    attempts: dict[int, tuple[int, str]] = field(default_factory=dict)
    others: int = 0


def export_campaign(folder: Folder, to: Path) -> None:
    """Write everything to the folder ``to`` and say what was written.

    Raises:
        StateError: there is nothing to export.
        StorageError: a file cannot be written.
    """
    protocol = protocol_of(read_config(folder.config), folder)
    if protocol is None:
        raise StateError(
            "this folder has no campaign: there is no training set and no potential",
            where=str(folder.config),
            next_step="the output of commands lies under runs/: `pilot log TASK`",
        )
    with published(folder) as connection:
        read = _read(connection, protocol)
    if not any(read.sets.values()):
        raise StateError(
            "nothing has been labelled yet", where=str(folder.root), next_step="`pilot status` shows how far it is"
        )
    try:
        to.mkdir(parents=True, exist_ok=True)
        # what is for few here must not be for many there, nor the other way round
        keep_mode(folder.root, to)
    except OSError as error:
        raise storage_error(error, to) from error
    written = _write_sets(read, to, protocol.campaign.species)
    written += _write_potential(folder, read.potential, to)
    content = Content(folder, protocol, {role: len(rows) for role, rows in read.sets.items()}, read.generations)
    write_whole(to / "README.txt", readme(content, read.potential))
    for name in ("README.txt", *written):
        say(f"{to / name}")
    if read.others:
        note(f"{read.others} labels with other settings than those of pilot.toml are left out")


def _read(connection: Connection, protocol: Protocol) -> _Read:
    settings = protocol.label_settings()
    read = _Read(generations=dataset.read_generations(connection))
    for role in _FORMATS:
        read.sets[role] = list(dataset.read_labelled(connection, role, settings))
    read.others = sum(dataset.count_labels(connection).values()) - sum(
        dataset.count_labels(connection, settings).values()
    )
    read.potential = next(iter(reversed(dataset.read_potentials(connection))), None)
    wanted = [about["attempt"] for rows in read.sets.values() for _, _, about in rows if about["attempt"] is not None]
    for piece in pieces(wanted):
        question = select(attempts).where(attempts.c.id.in_(piece))
        for row in connection.execute(question):
            read.attempts[row.id] = (row.task_id, _place(row.directory, row.archive))
    return read


def _place(directory: str, archive: str) -> str:
    """Where the files of an attempt lie, relative to the campaign folder; in an archive, as if that were a folder."""
    return f"{archive}/{Path(directory).name}" if archive else directory


def _write_sets(read: _Read, to: Path, species: Sequence[str]) -> list[str]:
    written: list[str] = []
    for role, suffixes in _FORMATS.items():
        rows = [(structure, label) for structure, label, _ in read.sets[role]]
        for suffix in suffixes if rows else ():
            export_structures(to / f"{role}{suffix}", rows, species)
            written.append(f"{role}{suffix}")
    write_whole(to / "provenance.csv", _provenance(read))
    return [*written, "provenance.csv"]


def _provenance(read: _Read) -> str:
    """A line for each structure, in the order of the files of its set."""
    places = {generation.id: (generation.stage + 1, generation.number) for generation in read.generations}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for role, rows in read.sets.items():
        for number, (structure, label, about) in enumerate(rows, 1):
            stage, generation = places.get(about["generation"], ("", ""))
            task, directory = read.attempts.get(about["attempt"], ("", ""))
            grade = "" if about["grade"] is None else f"{about['grade']:.4f}"
            what = (role, number, len(structure.numbers), f"{label.energy:.8f}")
            origin = (stage, generation, grade, about["source"], task, about["attempt"], directory)
            lines.writerow((*what, *origin, about["settings"], about["structure_id"]))
    return text.getvalue()


def _write_potential(folder: Folder, potential: Potential | None, to: Path) -> list[str]:
    if potential is None:
        return []
    written = []
    for source, name in (("pot.mtp", "potential.mtp"), ("active.npz", "active.npz")):
        new = to / f".{name}.new"
        try:
            shutil.copyfile(folder.root / potential.path / source, new)
            new.replace(to / name)
        except FileNotFoundError as error:
            raise PilotError(
                "a file of the newest potential is gone",
                where=str(error.filename),
                next_step="the attempt that trained it has one too: `pilot status --tasks --kind train` lists those",
            ) from error
        except OSError as error:
            raise storage_error(error, to / name) from error
        written.append(name)
    return written
