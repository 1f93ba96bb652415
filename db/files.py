"""Files that appear whole: written beside, flushed to the disk, renamed.

A file is safe from a loss of power when its content *and* the folder that names it were flushed, and so up to a folder
that is known to be safe. What a commit in the database presupposes must be safe before that commit.
"""

import contextlib
import errno
import os
from pathlib import Path

from db.errors import StorageError

#: what a file system says that knows no flushing of folders
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS})


def write_whole(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: the file to make or replace.
        content: text (UTF-8) or bytes.
        durable: flush the content before the rename and the folder after it; False only for what can be made again
            at any time, and whose reader bears that it is empty after a loss of power.

    Raises:
        StorageError: the disk or the quota is full, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(beside, "wb", opener=_no_link) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise storage_error(error, path) from error


def _no_link(path: str, flags: int) -> int:
    # in a folder of several users somebody could lay a link there, to a file of ours elsewhere
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder: what was made, renamed or removed there stays so after a loss of power.

    A file system that cannot do that, or a folder that we may not read, is passed over.

    Raises:
        OSError: the disk fails, or there is no such folder.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(fd)


def settle(folder: Path, root: Path) -> None:
    """Flush the names in ``folder`` and in all above it, up to ``root``: so far they may have been new.

    Raises:
        StorageError: the disk fails.
    """
    here = folder
    try:
        while True:
            sync_folder(here)
            if here == root or root not in here.parents:
                return
            here = here.parent
    except OSError as error:
        raise storage_error(error, here) from error


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
            next_step="free some room, then type it again: nothing that was recorded is lost",
        )
    return StorageError(
        f"cannot write: {error.strerror}",
        where=str(path),
        next_step="check the permissions of the folder and that the file system is not read-only",
    )
