"""What tasks write to their standard output and error: how much it is, and how to make it short.

Of the other files in an attempt's folder nothing is watched: scratch may be as large as it needs, and to look through
folders is dear on a shared disk. What they held at the end is counted then.
"""

import contextlib
import os
import stat
from collections.abc import Collection

from pilot import host

#: so much is kept of the beginning and of the end, in bytes
KEPT = host.MB


def written(paths: Collection[str]) -> int:
    """Bytes in these files together; those that are not there hold nothing."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += os.lstat(path).st_size
    return total


def shorten(path: str) -> None:
    """Keep the beginning and the end of a file, with a line between that says how much was there.

    Only of a plain file that has no other name: whatever else a task has put in its place is left alone.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            left_out = found.st_size - 2 * KEPT
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and left_out > 0:
                tail = os.pread(handle, KEPT, found.st_size - KEPT)
                # first the room: on a full disk nothing can be written before
                os.ftruncate(handle, KEPT)
                os.pwrite(handle, b"\n[pilot: %d bytes were left out here]\n" % left_out + tail, KEPT)
        finally:
            os.close(handle)
