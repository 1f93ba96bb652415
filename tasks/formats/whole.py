"""Large files that appear whole: written beside as they grow, flushed to the disk, renamed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from db.files import storage_error, sync_folder


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; on leaving, flush that file, rename it to ``path``, flush the folder.

    For what is too large to hold as one string, or is written by a library that wants a name. The name
    keeps the suffix of ``path``. If the block raises, the file beside is removed and ``path`` is untouched.

    Raises:
        StorageError: the disk or the quota is full, or the folder cannot be written.
    """
    new = path.with_name(f".{path.stem}.{os.getpid()}.new{path.suffix}")
    try:
        # a library that opens an existing file appends to it
        new.unlink(missing_ok=True)
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
