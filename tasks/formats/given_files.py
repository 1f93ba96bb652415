"""Files of structures that others wrote, before ASE reads them: what its readers would not notice, or choke on."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db.errors import InputError

#: what a reader may take beside what is taken already: so much, and so many times the size of the file
_ROOM_BYTES, _ROOM_TIMES = 4_000_000_000, 100
_DIGITS = 9


def check_xyz(path: Path) -> None:
    """See that an xyz file has all lines that its counts promise, and that its last number is whole.

    ASE's reader looks for promised lines one by one behind the end of the file, for as long as it takes, and a number
    that is cut off is a number.

    Raises:
        InputError: it is cut short.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        number, last = 0, b"\n"
        for line in file:
            number += 1
            if not line.strip():
                # here ASE stops reading
                if file.read().strip():
                    raise _cut("a blank line stands where the next structure should begin", path, number)
                return
            if line.lstrip().startswith(b"VEC"):
                last = line
                continue
            count = _count(line)
            if count is None:
                raise _cut(f"{line[:40].decode(errors='replace').strip()!r} is not a number of atoms", path, number)
            for _ in range(count + 1):
                last = file.readline()
                number += 1
                if not last:
                    raise _cut(f"{count} atoms are promised, and the file ends", path, number - 1)
        if not last.endswith((b"\n", b"\r")):
            raise _cut("the last line has no end: it may have been cut", path, number)


def _count(line: bytes) -> int | None:
    word = line.split()[0]
    return int(word) if word.isdigit() and len(word) <= _DIGITS else None


def _cut(what: str, path: Path, line: int) -> InputError:
    return InputError(
        what,
        where=f"{path}, line {line}",
        next_step="copy or write the file again; if it is whole, end its last line",
    )


@contextmanager
def bounded_memory(path: Path) -> Iterator[None]:
    """A file that promises billions of atoms costs a MemoryError, not the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    most = taken + _ROOM_BYTES + _ROOM_TIMES * path.stat().st_size
    tighter = before[0] != resource.RLIM_INFINITY and before[0] <= most
    if not tighter:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        if not tighter:
            resource.setrlimit(resource.RLIMIT_AS, before)
