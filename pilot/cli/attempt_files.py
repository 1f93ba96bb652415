"""The files of an attempt, wherever they lie: in its folder, or in the archive into which it was packed."""

import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from db.errors import MissingError, StorageError
from db.records import Attempt
from pilot.contents import Kind, walk
from pilot.folder import Folder
from pilot.packing.archive import BROKEN, Archive

#: so many archives may have been made since the copy of the database was published
_NEWEST = 5


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """Where they lie.

    Attributes:
        directory: the attempt's folder, which may be gone.
        archive: what it was packed into; None while the folder is there, or if it was never packed.
    """

    directory: Path
    archive: Path | None = None

    @property
    def name(self) -> str:
        """What its members in the archive are called after."""
        return self.directory.name

    @property
    def unpacking(self) -> str:
        """What to type to get them out of the archive."""
        where = shlex.quote(str(self.archive))
        return f"unzip {where} '{self.name}/*' -d ."

    def listed(self) -> list[tuple[str, int]]:
        """The files and their sizes in bytes, by name; empty if the folder is gone.

        Raises:
            MissingError: the archive is gone.
            StorageError: it cannot be read.
        """
        if self.archive is not None:
            with _opened(self.archive) as archive:
                return archive.files(self.name)
        try:
            found = walk(self.directory)
        except OSError:
            return []
        return sorted((entry.name, entry.size) for entry in found if entry.kind in {Kind.FILE, Kind.LINK})

    def open(self, file: str) -> BinaryIO:
        """One of them.

        Raises:
            MissingError, StorageError: as above.
        """
        if self.archive is None:
            return (self.directory / file).open("rb")
        # the member keeps the archive's file open as long as it needs it
        with _opened(self.archive) as archive:
            return cast("BinaryIO", archive.open(self.name, file))


def files_of(folder: Folder, attempt: Attempt) -> AttemptFiles:
    """The files of an attempt; the folder counts as long as it is there."""
    directory = folder.root / attempt.directory
    if directory.is_dir() or attempt.ended_at is None:
        return AttemptFiles(directory)
    return AttemptFiles(directory, folder.root / attempt.archive if attempt.archive else _just_packed(folder, attempt))


def _just_packed(folder: Folder, attempt: Attempt) -> Path | None:
    """Where an attempt lies that was packed since the copy of the database was published; None: nowhere."""
    try:
        newest = sorted(folder.packed.glob("*.zip"), key=lambda path: path.stat().st_mtime, reverse=True)[:_NEWEST]
        for path in newest:
            with Archive(path) as archive:
                if Path(attempt.directory).name in archive.names():
                    return path
    except BROKEN:
        pass
    return None


def _opened(path: Path) -> Archive:
    try:
        return Archive(path)
    except FileNotFoundError as error:
        raise MissingError(
            "the archive into which this run was packed is gone",
            where=str(path),
            next_step="put it back from a backup; what was learned from the run is in the database",
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise StorageError(
            f"the archive into which this run was packed cannot be read: {error}",
            where=str(path),
            next_step=f"`unzip -t {shlex.quote(str(path))}` tells more; put it back from a backup",
        ) from error
