"""What a folder holds, found without following a link; and how much that is, in words."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: Where there is more than this, the rest is not counted: counting must not hold a node up.
COUNTED_AT_MOST = 20_000


class Kind(StrEnum):
    """What an entry of a folder is."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"
    OTHER = "other"
    """A pipe, a socket, a device: something without a content of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder, or in a folder below it.

    Attributes:
        name: relative to the folder, with slashes.
        kind: what it is.
        size: of a file, in bytes.
        mode: type and permissions, as the system says them.
        changed_at: when its content changed last, seconds since 1970.
    """

    name: str
    kind: Kind
    size: int
    mode: int
    changed_at: float


def walk(folder: Path) -> list[Entry]:
    """All that lies in a folder and below it, each folder before what is in it.

    Raises:
        OSError: the folder, or one below it, cannot be looked into.
    """
    return list(_walk(str(folder), ""))


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    with os.scandir(folder) as listed:
        found = sorted(listed, key=lambda entry: entry.name)
    for entry in found:
        about = entry.stat(follow_symlinks=False)
        kind = kind_of(about.st_mode)
        size = about.st_size if kind is Kind.FILE else 0
        yield Entry(f"{prefix}{entry.name}", kind, size, about.st_mode, about.st_mtime)
        if kind is Kind.FOLDER:
            yield from _walk(entry.path, f"{prefix}{entry.name}/")


def kind_of(mode: int) -> Kind:
    """The kind that a mode says."""
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.LINK
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER


def count(folder: str | Path, at_most: int = COUNTED_AT_MOST) -> tuple[int, int]:
    """How many files a folder is, as quotas count them (folders and itself too), and their bytes.

    What cannot be looked at is left out, and what is beyond ``at_most``; (0, 0) if it is not there.
    """
    number, size = 0, 0
    waiting = [str(folder)]
    while waiting and number < at_most:
        try:
            with os.scandir(waiting.pop()) as listed:
                number += 1
                for entry in listed:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        number += 1
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return number, size


def say_size(size: float) -> str:
    """Bytes in words: "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
