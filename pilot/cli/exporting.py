"""Writing the labelled sets and the potential of a campaign for others, one configuration after the other."""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from db import dataset
from db.dataset import Generation, Potential
from db.errors import PilotError, StateError
from db.files import storage_error, write_whole
from db.records import Label, Structure
from db.schema import attempts, labels
from db.states import Role
from pilot.campaign.from_config import protocol_of
from pilot.campaign.importing import present_stage
from pilot.campaign.protocol import Protocol
from pilot.cli.export_readme import Content, readme
from pilot.cli.output import say
from pilot.cli.records import published
from pilot.config import read_config
from pilot.folder import Folder, keep_mode
from tasks.formats.atoms import export_described
from tasks.formats.whole import beside
from tasks.registry import POTENTIALS

#: where labels of other settings go, in a folder of the name of those
OTHERS = "other-settings"
_FORMATS = {Role.TRAIN: (".extxyz", ".db", ".cfg")}
_USUAL = (".extxyz", ".cfg")
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
    "engine",
    "version",
    "imported_from",
    "index",
)


@dataclass(slots=True)
class _Read:
    """What the database holds for an export.

    Attributes:
        counts: labels by settings and role.
        places: number of the stage, from 1, and of the generation, by its id.
        attempts: task and place of the files of each attempt that has made a label.
        names: what names of settings stand for.
    """

    settings: str
    counts: dict[str, dict[str, int]]
    generations: list[Generation]
    potential: Potential | None
    names: dict[str, dict[str, Any]]
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    attempts: dict[int, tuple[int, str]] = field(default_factory=dict)


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
        if not read.counts:
            raise StateError(
                "nothing has been labelled yet", where=str(folder.root), next_step="`pilot status` shows how far it is"
            )
        _make(to, folder.root)
        written = _write_sets(connection, read, to, protocol)
    write_whole(to / "settings.json", json.dumps(_settings(read, protocol), indent=1, ensure_ascii=False) + "\n")
    written += ["settings.json", *_write_potential(folder, protocol, read.potential, to)]
    content = Content(folder, protocol, read.settings, read.counts, read.generations, tuple(written))
    write_whole(to / "README.txt", readme(content, read.potential))
    for name in ("README.txt", *written):
        say(f"{to / name}")


def _make(place: Path, like: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        # what is for few here must not be for many there, nor the other way round
        keep_mode(like, place)
    except OSError as error:
        raise storage_error(error, place) from error


def _read(connection: Connection, protocol: Protocol) -> _Read:
    generations = dataset.read_generations(connection)
    places = {generation.id: (generation.stage + 1, generation.number) for generation in generations}
    read = _Read(
        settings=protocol.label_settings(min(present_stage(connection), max(len(protocol.config.stages) - 1, 0))),
        counts=dataset.count_by_settings(connection),
        generations=generations,
        # of the latest generation, as the campaign has it: one of an earlier fidelity may have been trained after it
        potential=max(
            dataset.read_potentials(connection), key=lambda potential: places[potential.generation], default=None
        ),
        names=dataset.read_settings(connection),
        places=places,
    )
    columns = (attempts.c.id, attempts.c.task_id, attempts.c.directory, attempts.c.archive)
    for row in connection.execute(select(*columns).join(labels, labels.c.attempt_id == attempts.c.id)):
        read.attempts[row.id] = (row.task_id, _place(row.directory, row.archive))
    return read


def _place(directory: str, archive: str) -> str:
    """Where the files of an attempt lie, relative to the campaign folder; in an archive, as if that were a folder."""
    return f"{archive}/{Path(directory).name}" if archive else directory


def _write_sets(connection: Connection, read: _Read, to: Path, protocol: Protocol) -> list[str]:
    """A file for each role and format, labels of other settings apart, and a line in provenance.csv for each label."""
    written: list[str] = []
    with beside(to / "provenance.csv") as new, new.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_COLUMNS)
        for settings in sorted(read.counts, key=lambda name: (name != read.settings, name)):
            place = "" if settings == read.settings else f"{OTHERS}/{settings}/"
            if place:
                _make(to / place, to)
            for role in (role for role in Role if read.counts[settings].get(role)):
                for suffix in _FORMATS.get(role, _USUAL):
                    rows = (
                        (structure, label, _about(read, about))
                        for structure, label, about in dataset.read_labelled(connection, role, settings)
                    )
                    export_described(to / f"{place}{role}{suffix}", rows, protocol.campaign.species)
                    written.append(f"{place}{role}{suffix}")
                _note_origins(lines, read, f"{place}{role}", dataset.read_labelled(connection, role, settings))
    return [*written, "provenance.csv"]


def _about(read: _Read, about: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What is written beside a configuration."""
    stage, generation = read.places.get(about["generation"], (None, None))
    origin: Mapping[str, Any] = about["provenance"] or {}
    found = {
        "pilot_id": about["structure_id"],
        "role": str(about["role"]),
        "source": about["source"],
        "settings": about["settings"],
        "generation": None if stage is None else f"s{stage}g{generation:02d}",
        "grade": about["grade"],
        "engine": " ".join(str(origin[name]) for name in ("engine", "version") if origin.get(name)) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _note_origins(lines: Any, read: _Read, name: str, rows: Iterator[tuple[Structure, Label, dict[str, Any]]]) -> None:
    """A line for each structure, in the order of the files of its set."""
    for number, (structure, label, about) in enumerate(rows, 1):
        stage, generation = read.places.get(about["generation"], ("", ""))
        task, directory = read.attempts.get(about["attempt"], ("", ""))
        grade = "" if about["grade"] is None else f"{about['grade']:.4f}"
        origin: Mapping[str, Any] = about["provenance"] or {}
        what = (name, number, len(structure.numbers), f"{label.energy:.8f}")
        whence = (stage, generation, grade, about["source"], task, about["attempt"], directory)
        made = (origin.get(key, "") for key in ("engine", "version", "file", "index"))
        lines.writerow((*what, *whence, about["settings"], about["structure_id"], *made))


def _settings(read: _Read, protocol: Protocol) -> dict[str, Any]:
    """What each name of settings stands for, and how many labels have it."""
    known = dict(read.names)
    for stage in range(len(protocol.config.stages)):
        fidelity = protocol.fidelity(stage)
        table = {"engine": protocol.label.engine, "table": protocol.label.settings(fidelity)}
        known.setdefault(protocol.label_settings(stage), table | ({"fidelity": fidelity} if fidelity else {}))
    return {
        name: known.get(name, {}) | {"labels": read.counts[name], "present": name == read.settings}
        for name in sorted(read.counts)
    }


def _write_potential(folder: Folder, protocol: Protocol, potential: Potential | None, to: Path) -> list[str]:
    if potential is None:
        return []
    written = []
    for source, name in _potential_files(folder.root / potential.path, protocol):
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


def _potential_files(place: Path, protocol: Protocol) -> list[tuple[str, str]]:
    """The files of a potential, each with its name for others."""
    files = POTENTIALS[protocol.train.engine]
    present = [*files.files, *(name for name in files.optional if (place / name).exists())]
    stem = Path(files.file).stem
    return [(name, f"potential{Path(name).suffix}" if Path(name).stem == stem else name) for name in present]
