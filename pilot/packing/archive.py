"""Archives of attempts' folders: zip files that `unzip` understands, written whole, never overwritten.

The members of an attempt are called after its folder: ``000123/``, ``000123/stdout``. Links are stored as links and
never followed; pipes, sockets and devices have no content and are left out.
"""

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from db.files import sync_folder
from pilot.contents import Entry, Kind, walk

#: what is read at a time
_PIECE = 1 << 20
#: what a zip file can say of a time begins here
_FIRST_YEAR, _LAST_YEAR = 1980, 2107
_UNIX = 3

Stopped = Callable[[], bool]
#: what may be wrong with a file that is to be an archive
BROKEN = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)


class UnreadableError(Exception):
    """The folder of an attempt cannot be packed; ``name`` says which."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class StoppedError(Exception):
    """It was to stop on the way: nothing was made."""


def write(target: Path, folders: Mapping[str, Path], stopped: Stopped, done: Callable[[], None] = lambda: None) -> None:
    """Pack folders into a new archive, which appears whole and was read back.

    Args:
        target: the archive; there must be none of that name.
        folders: by the names of their members. One that is not there counts as empty.
        stopped: asked again and again: whether to give up.
        done: called after each folder.

    Raises:
        UnreadableError: a folder or a file in it cannot be read, or named in an archive; nothing was made.
        StoppedError: as asked; nothing was made.
        FileExistsError: there is an archive of that name; it is as it was.
        OSError: the disk refuses, or what was written reads back differently; nothing was made.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        written: dict[str, int] = {}
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, folder in folders.items():
                written |= _add(archive, name, folder, stopped)
                done()
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        _read_back(beside, written, stopped)
        # a rename would put it in the place of another pilot's
        os.link(beside, target)
        sync_folder(target.parent)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f"what was written reads back differently: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _add(archive: zipfile.ZipFile, name: str, folder: Path, stopped: Stopped) -> dict[str, int]:
    """Add a folder; the sizes of its members."""
    written = {f"{name}/": 0}
    with _reading(name):
        try:
            entries = walk(folder)
        except FileNotFoundError:
            entries = []
    archive.writestr(_info(f"{name}/", stat.S_IFDIR | 0o755, None), b"")
    for entry in entries:
        if stopped():
            raise StoppedError
        member = f"{name}/{entry.name}" + ("/" if entry.kind is Kind.FOLDER else "")
        with _reading(name):
            # a name that is no text
            member.encode()
            info = _info(member, entry.mode, entry.changed_at)
        if entry.kind is Kind.FILE:
            written[member] = _copy(archive, info, folder / entry.name, name, stopped)
        elif entry.kind is Kind.LINK:
            with _reading(name):
                content = os.fsencode(os.readlink(folder / entry.name))  # noqa: PTH115 — as it is, not as a path
            archive.writestr(info, content)
            written[member] = len(content)
        elif entry.kind is Kind.FOLDER:
            archive.writestr(info, b"")
            written[member] = 0
    return written


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str, stopped: Stopped) -> int:
    size = 0
    with _reading(name):
        source = _open_file(path)
    with source, archive.open(info, "w", force_zip64=True) as member:
        while True:
            with _reading(name):
                piece = source.read(_PIECE)
            if not piece:
                return size
            if stopped():
                raise StoppedError
            member.write(piece)
            size += len(piece)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """What fails in here is a matter of this folder, not of the archive."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UnreadableError(name, str(error)) from error


def _open_file(path: Path) -> IO[bytes]:
    """Open a plain file; what has taken its place since it was listed, a link or a pipe, is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"no file any more: {path}")
    return os.fdopen(descriptor, "rb")


def _info(member: str, mode: int, changed_at: float | None) -> zipfile.ZipInfo:
    moment = datetime.now(UTC) if changed_at is None else datetime.fromtimestamp(changed_at, UTC)
    local = moment.astimezone()
    year = min(max(local.year, _FIRST_YEAR), _LAST_YEAR)
    info = zipfile.ZipInfo(member, (year, local.month, local.day, local.hour, local.minute, local.second))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = _UNIX
    info.external_attr = (mode & 0xFFFF) << 16
    return info


def _read_back(path: Path, written: Mapping[str, int], stopped: Stopped) -> None:
    with zipfile.ZipFile(path) as archive:
        if {info.filename: info.file_size for info in archive.infolist()} != dict(written):
            raise OSError(f"what was written reads back differently: {path}")
        for info in archive.infolist():
            if stopped():
                raise StoppedError
            with archive.open(info) as member:
                # each piece is compared with the checksum on the way
                while member.read(_PIECE):
                    pass


class Archive:
    """An archive that is there, for reading.

    Raises:
        OSError, BadZipFile: there is none, or it is none.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._infos = {info.filename: info for info in self._zip.infolist()}

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """The names of the folders that were packed."""
        return [name[:-1] for name in self._infos if name.count("/") == 1 and name.endswith("/")]

    def files(self, name: str) -> list[tuple[str, int]]:
        """The files and links of a folder with their sizes, by name."""
        start = f"{name}/"
        return sorted(
            (member[len(start) :], info.file_size)
            for member, info in self._infos.items()
            if member.startswith(start) and not member.endswith("/")
        )

    def open(self, name: str, file: str) -> IO[bytes]:
        """A file of a folder, for reading.

        Raises:
            KeyError: there is none.
        """
        return self._zip.open(f"{name}/{file}")

    def is_whole(self, stopped: Stopped = lambda: False) -> bool:
        """Whether every member reads back as it was written; False, too, when it was to stop."""
        for info in self._infos.values():
            if stopped():
                return False
            try:
                with self._zip.open(info) as member:
                    while member.read(_PIECE):
                        pass
            except BROKEN:
                return False
        return True

    def what_it_lacks(self, name: str, folder: Path) -> str:
        """What of a folder is not in the archive with the same content; "": nothing, the folder can go.

        Raises:
            OSError: the folder cannot be read.
        """
        return next((entry.name for entry in walk(folder) if not self._has(name, folder, entry)), "")

    def _has(self, name: str, folder: Path, entry: Entry) -> bool:
        if entry.kind is Kind.OTHER:
            return True
        info = self._infos.get(f"{name}/{entry.name}" + ("/" if entry.kind is Kind.FOLDER else ""))
        if info is None:
            return False
        if entry.kind is Kind.FOLDER:
            return True
        if entry.kind is Kind.LINK:
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            return is_link and self._zip.read(info) == os.fsencode(os.readlink(folder / entry.name))  # noqa: PTH115
        return info.file_size == entry.size and _checksum(folder / entry.name) == info.CRC

    def replace(self, name: str, folder: Path) -> str:
        """Remove a folder of which all is in the archive; says what it lacks, and then nothing is removed.

        Raises:
            OSError: the folder cannot be read or removed.
        """
        lacks = self.what_it_lacks(name, folder)
        if not lacks:
            remove(folder)
        return lacks


def _checksum(path: Path) -> int:
    value = 0
    with _open_file(path) as file:
        while piece := file.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


def remove(folder: Path) -> None:
    """Remove what a folder holds now, and the folder.

    Raises:
        OSError: something cannot be removed, or has come meanwhile; that stays.
    """
    for entry in reversed(walk(folder)):
        path = folder / entry.name
        if entry.kind is Kind.FOLDER:
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
