"""Files that appear whole: written beside, flushed to the disk, renamed."""

import contextlib
import errno
import os
from pathlib import Path

from db.errors import StorageError


def write_whole(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: the file to make or replace.
        content: text (UTF-8) or bytes.
        durable: flush to the disk before the rename; False only for what can be made again at any time.

    Raises:
        StorageError: the disk or the quota is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise storage_error(error, path) from error


def make_folder(path: str) -> None:
    """Make a folder, and those above it where they are missing; one that is there is fine.

    Raises:
        OSError: it cannot be made, or a file is in the way.
    """
    try:
        os.mkdir(path)  # noqa: PTH102
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    except FileExistsError:
        if not os.path.isdir(path):  # noqa: PTH112 — plain calls: this is done for every attempt
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", path) from None


def storage_error(error: OSError, path: Path) -> StorageError:
    """The error of the operating system in words, with what to do about it."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(
            "the disk or the quota is full (space or number of files)",
            where=str(path),
            next_step="free some room, then type `pilot run` again: nothing that was recorded is lost",
        )
    return StorageError(
        f"cannot write: {error.strerror}",
        where=str(path),
        next_step="check the permissions of the folder and that the file system is not read-only",
    )
