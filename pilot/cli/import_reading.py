"""Reading the files that were named for `pilot import`: what can be used, a line each, and why the rest cannot."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np

from db.errors import InputError
from db.records import Label, Structure
from pilot.campaign import importing
from pilot.campaign.cells import symbol
from pilot.campaign.protocol import Protocol
from pilot.folder import Folder
from tasks.formats.frames import Frame, Telling
from tasks.formats.labelled_files import read_frames

#: beyond this nothing is a result: eV for each atom (all-electron energies of lead are within), eV/Å
_ABSURD_ENERGY, _ABSURD_FORCE = 1e6, 1e3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed; see `pilot import --help`."""

    files: tuple[Path, ...]
    settings: str | None = None
    role: str = "train"
    glob: tuple[str, ...] = ()
    every: int = 1
    last: bool = False
    limit: int | None = None
    shift: tuple[str, ...] = ()
    dry_run: bool = False
    force: bool = False


@dataclass(slots=True)
class Tally:
    """What was found so far; ``strangers`` and ``species``: atomic numbers with where they were met first."""

    read: int = 0
    added: int = 0
    duplicates: int = 0
    elsewhere: int = 0
    unanswered: int = 0
    alike: int = 0
    refused: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    species: dict[int, str] = field(default_factory=dict)
    energies: set[str] = field(default_factory=set)
    prints: dict[int, str] = field(default_factory=dict)


def shifts_of(given: Iterable[str], species: Sequence[str]) -> dict[str, float]:
    """The energies to take off, eV, by species.

    Raises:
        InputError: one is no energy, or of a species that the campaign has not.
    """
    shifts = {}
    for word in given:
        name, _, text = word.partition("=")
        try:
            shifts[name] = float(text)
        except ValueError:
            shifts[name] = math.nan
        if not math.isfinite(shifts[name]):
            cure = f"write it like --shift {species[0]}=-200.1 (eV)"
            raise InputError(f"{word!r} is no species with an energy", where="--shift", next_step=cure)
        if name not in species:
            cure = "give species of campaign.species only"
            raise InputError(f"this campaign has no species {name!r}", where="--shift", next_step=cure)
    return shifts


def read_file(
    folder: Folder,
    path: Path,
    wanted: Wanted,
    protocol: Protocol,
    shifts: Mapping[str, float],
    telling: Telling,
    tally: Tally,
    spool: IO[str],
) -> None:
    """Read the configurations of a file; those that can be used go to the spool, a line each."""
    name = name_of(folder, path)
    origin = {"file": name, "engine": telling.engine, "version": telling.version}
    if shifts:
        origin["shift"] = " ".join(f"{key}={value:g}" for key, value in shifts.items())
    try:
        for frame in _chosen(read_frames(path, protocol.campaign.species), wanted):
            if wanted.limit is not None and tally.read >= wanted.limit:
                return
            tally.read += 1
            problem = frame.problem or _absurd(frame)
            if problem or frame.structure is None or frame.label is None:
                tally.refused.append(f"{name} #{frame.index}: {problem}")
                continue
            for number in set(frame.structure.numbers):
                tally.species.setdefault(number, f"{name} #{frame.index}")
            tally.energies.add(frame.energy)
            label = _shifted(frame.structure, frame.label, shifts)
            _note_alike(frame.structure, label, tally)
            item = importing.item_of(frame.structure, label, origin | {"index": frame.index, "energy": frame.energy})
            spool.write(json.dumps(item) + "\n")
    except InputError as error:
        tally.refused.append(f"{name}: {error.what}")


def _chosen(frames: Iterator[Frame], wanted: Wanted) -> Iterator[Frame]:
    if not wanted.last:
        yield from (frame for frame in frames if (frame.index - 1) % wanted.every == 0)
        return
    newest = None
    for frame in frames:
        newest = frame
    if newest is not None:
        yield newest


def _absurd(frame: Frame) -> str:
    if frame.structure is None or frame.label is None:
        return "it cannot be read"
    energy = frame.label.energy / len(frame.structure.numbers)
    if abs(energy) > _ABSURD_ENERGY:
        return f"an energy of {energy:.3g} eV for each atom"
    force = float(np.abs(frame.label.forces).max())
    return f"a force of {force:.3g} eV/Å" if force > _ABSURD_FORCE else ""


def _shifted(structure: Structure, label: Label, shifts: Mapping[str, float]) -> Label:
    if not shifts:
        return label
    taken_off = sum(shifts.get(symbol(number), 0.0) for number in structure.numbers)
    return replace(label, energy=label.energy - taken_off)


def _note_alike(structure: Structure, label: Label, tally: Tally) -> None:
    """Count what is the same up to a translation, a rotation, and the order and the images of its atoms."""
    sizes = np.sort(np.linalg.norm(np.array(label.forces).reshape(-1, 3), axis=1))
    content = structure.content_hash()
    volume = abs(float(np.linalg.det(np.array(structure.cell))))
    print_of = hash(
        (tuple(sorted(structure.numbers)), round(label.energy, 5), round(volume, 4), sizes.round(4).tobytes())
    )
    # the very same is a duplicate, which is another count
    tally.alike += tally.prints.setdefault(print_of, content) != content


def name_of(folder: Folder, path: Path) -> str:
    """How a file is called in what is said and kept: as seen from the campaign folder."""
    return os.path.relpath(path, folder.root)
