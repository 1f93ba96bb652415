"""What packing does to the files of a campaign folder. No database; nothing outside the folder is read or removed."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count as numbers
from pathlib import Path

from db.files import sync_folder
from pilot import contents
from pilot.folder import Folder
from pilot.packing.archive import BROKEN, Archive, StoppedError, UnreadableError, write
from pilot.packing.choice import Lot, archive_name
from pilot.packing.errand import Pace
from tasks import scratch

#: so many folders may turn out to be unreadable while they are packed; then the lot is given up
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies there when a pilot begins.

    Attributes:
        folders: the attempts that have folders.
        strays: whole archives that no attempt names, each with its bytes and the attempts in it whose folders are gone
            or hold nothing that it lacks.
        beside: files and bytes of what else pilots wrote.
    """

    folders: tuple[int, ...] = ()
    strays: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    beside: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Made:
    """An archive that was made.

    Attributes:
        archive: its name, relative to the campaign folder; "": there was nothing that could be packed.
        size: its bytes.
        ids: the attempts in it.
        left: the attempts that are left alone, each with the reason; "" where that is no news to anybody.
    """

    archive: str = ""
    size: int = 0
    ids: tuple[int, ...] = ()
    left: Mapping[int, str] = field(default_factory=dict)


def survey(folder: Folder, named: Iterable[str], pace: Pace) -> Survey:
    """Look what lies there; half-written archives of dead pilots are removed.

    Args:
        folder: of the campaign.
        named: the archives that attempts name.
        pace: when to stop, and how fast to go.

    Raises:
        StoppedError: as asked.
    """
    known = set(named)
    strays: dict[str, tuple[int, tuple[int, ...]]] = {}
    for path in _listed(folder.packed):
        name = path.relative_to(folder.root).as_posix()
        if path.name.startswith(".") and path.name.endswith(".new"):
            with contextlib.suppress(OSError):
                path.unlink()
        elif path.suffix == ".zip" and name not in known:
            with contextlib.suppress(*BROKEN):
                strays[name] = (path.stat().st_size, _of_a_stray(folder, path, pace))
        pace.rest()
    ids = [int(path.name) for group in _numbered(folder.runs) for path in _numbered(group)]
    return Survey(tuple(ids), strays, count_beside(folder))


def _of_a_stray(folder: Folder, path: Path, pace: Pace) -> tuple[int, ...]:
    """The attempts of which it holds all that there is; none if it is not whole."""
    found: list[int] = []
    with Archive(path) as archive:
        if not archive.is_whole(pace.stopped):
            return ()
        for name in archive.names():
            place = folder.root / folder.attempt(int(name)) if _is_number(name) else None
            with contextlib.suppress(OSError):
                if place is not None and (not os.path.lexists(place) or not archive.what_it_lacks(name, place)):
                    found.append(int(name))
            _go_on(pace)
    return tuple(found)


def make(folder: Folder, lot: Lot, largest: int, pace: Pace) -> Made:
    """Pack the folders of a lot; they stay until they are removed.

    Args:
        folder: of the campaign.
        lot: the attempts.
        largest: what holds more bytes than this is left alone.
        pace: when to stop, and how fast to go.

    Raises:
        StoppedError: as asked; nothing was made.
        OSError: the disk refuses; nothing was made.
    """
    left: dict[int, str] = {}
    folders: dict[str, Path] = {}
    ids: dict[str, int] = {}
    for attempt in lot.attempts:
        place = folder.root / attempt.directory
        reason = _why_not(folder, place, largest)
        if reason is None:
            # what was never judged may still have it, and in it what must not be handed on
            scratch.drop(place)
            folders[place.name], ids[place.name] = place, attempt.id
        else:
            left[attempt.id] = reason
        _go_on(pace)
    if not folder.packed.is_dir():
        folder.packed.mkdir(parents=True)
        sync_folder(folder.runs)
    for _ in range(_TRIES):
        if not folders:
            break
        target = _free_name(folder, lot.group)
        try:
            write(target, folders, pace.stopped, pace.rest)
        except UnreadableError as error:
            del folders[error.name]
            left[ids.pop(error.name)] = str(error)
        else:
            name = target.relative_to(folder.root).as_posix()
            return Made(name, target.stat().st_size, tuple(ids.values()), left)
    return Made(left=left | dict.fromkeys(ids.values(), "others of its generation cannot be read"))


def _why_not(folder: Folder, place: Path, largest: int) -> str | None:
    """Why a folder cannot be packed ("": it is too large); None: it can."""
    if not _lies_within(folder, place):
        return f"it does not lie in {folder.runs}"
    size = 0
    try:
        for entry in contents.walk(place):
            size += entry.size
            # before anything is written: whoever cannot read one must not make many begin again
            if entry.kind is contents.Kind.FILE and not os.access(place / entry.name, os.R_OK):
                return f"{place / entry.name} cannot be read"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{error.filename or place} cannot be read: {error.strerror}"
    return "" if size > largest else None


def _lies_within(folder: Folder, place: Path) -> bool:
    """Whether it lies where attempts do, and no link below ``runs`` leads there from elsewhere."""
    try:
        below = place.relative_to(folder.runs)
    except ValueError:
        return False
    # runs itself may be a link to a larger disk: that is the user's word
    ways = [folder.runs.joinpath(*below.parts[: depth + 1]) for depth in range(len(below.parts))]
    return bool(ways) and ".." not in below.parts and not any(way.is_symlink() for way in ways)


def _free_name(folder: Folder, group: str) -> Path:
    return next(
        path for path in (folder.packed / archive_name(group, number) for number in numbers(1)) if not path.exists()
    )


def remove(folder: Folder, packed: Sequence[tuple[str, str]], pace: Pace) -> list[str]:
    """Remove the folders of attempts that were packed, and those above them that are empty then.

    Args:
        folder: of the campaign.
        packed: directory and archive of each, as recorded.
        pace: when to stop, and how fast to go.

    Returns:
        What has to be said: of folders that hold something that is not in their archive, and stay.

    Raises:
        StoppedError: as asked; what is left is removed the next time.
    """
    said: list[str] = []
    of_archive: dict[str, list[Path]] = {}
    for directory, archive in packed:
        place = folder.root / directory
        if os.path.lexists(place) and _lies_within(folder, place):
            of_archive.setdefault(archive, []).append(place)
    for name, places in of_archive.items():
        said += _remove_those_in(folder.root / name, places, pace)
    # the highest one stays, and so do ids: they only grow
    for group in _numbered(folder.runs)[1:]:
        with contextlib.suppress(OSError):
            group.rmdir()
    return said


def _remove_those_in(path: Path, places: Sequence[Path], pace: Pace) -> list[str]:
    said: list[str] = []
    try:
        with Archive(path) as archive:
            for place in places:
                try:
                    lacks = archive.replace(place.name, place)
                except OSError as error:
                    said.append(f"{place} was packed and cannot be removed: {error.strerror}")
                else:
                    said += [f"{place} stays: {lacks} in it is not the same in {path}"] if lacks else []
                _go_on(pace)
    except BROKEN as error:
        said.append(f"{path} cannot be read, so the folders that were packed into it stay: {error}")
    return said


def count_beside(folder: Folder) -> tuple[int, int]:
    """Files and bytes of what pilots wrote outside of ``runs``."""
    places = (folder.state, folder.root / "generations", folder.root / "potentials", folder.results)
    counted = [contents.count(place) for place in places]
    return sum(files for files, _ in counted), sum(size for _, size in counted)


def _go_on(pace: Pace) -> None:
    if pace.stopped():
        raise StoppedError
    pace.rest()


def _listed(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _numbered(place: Path) -> list[Path]:
    """The entries of a folder whose names are numbers, the highest first."""
    found = [path for path in _listed(place) if _is_number(path.name)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
