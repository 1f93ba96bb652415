"""The libraries that a program of Linux is linked with, read from the program itself.

Not by ``ldd``: that is a process more, and whoever asks may be a rank, which must not fork; besides, ``ldd`` may
run the program. What the loader does is followed as far as needed here: RPATH and RUNPATH with $ORIGIN,
LD_LIBRARY_PATH, the folders of /etc/ld.so.conf and the usual ones.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29
_USUAL = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
#: a program that needs more libraries than this is not read further
_MOST = 500


class Linked(NamedTuple):
    """What one file asks the loader for."""

    needed: tuple[str, ...]
    folders: tuple[str, ...]


def linked_with(path: Path) -> Linked | None:
    """What a file asks for; None: it is no program or library of this kind (a script, a static program)."""
    try:
        with path.open("rb") as file:
            return _read(file, path.resolve().parent)
    except (OSError, struct.error, ValueError):
        return None


def libraries(program: Path, library_path: str) -> dict[str, Path | None]:
    """All libraries of a program, those of its libraries too: name → file, or None where it is not found.

    Args:
        program: the file.
        library_path: LD_LIBRARY_PATH.
    """
    given = [folder for folder in library_path.split(":") if folder]
    found: dict[str, Path | None] = {}
    files = [program]
    while files and len(found) < _MOST:
        linked = linked_with(files.pop(0))
        for name in () if linked is None else linked.needed:
            if name not in found:
                file = _where(name, [*(linked.folders if linked else ()), *given, *_configured(), *_USUAL])
                found[name] = file
                files += [] if file is None else [file]
    return found


def _where(name: str, folders: list[str]) -> Path | None:
    if "/" in name:
        folders = [""]
    return next((path for folder in folders if (path := Path(folder, name)).is_file()), None)


def _configured(conf: str = "/etc/ld.so.conf") -> Iterator[str]:
    try:
        lines = Path(conf).read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                base = Path(conf).parent if not pattern.startswith("/") else Path("/")
                for path in sorted(base.glob(pattern.lstrip("/"))):
                    yield from _configured(str(path)) if str(path) != conf else ()
        else:
            yield from words


def _read(file: BinaryIO, origin: Path) -> Linked | None:
    head = file.read(64)
    if not head.startswith(_ELF64_LITTLE):
        return None
    table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    file.seek(table)
    raw = file.read(size * count)
    loads: list[tuple[int, int, int]] = []
    dynamic = b""
    for start in range(0, size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", raw, start)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            file.seek(offset)
            dynamic = file.read(length)
    entries = list(struct.iter_unpack("<QQ", dynamic[: len(dynamic) // 16 * 16]))
    strings = next((_offset(value, loads) for tag, value in entries if tag == _STRTAB), None)
    if strings is None:
        return None
    needed = tuple(_string(file, strings + value) for tag, value in entries if tag == _NEEDED)
    paths = [_string(file, strings + value) for tag, value in entries if tag in (_RPATH, _RUNPATH)]
    folders = [folder for path in paths for folder in path.split(":") if folder]
    put = {"$ORIGIN": str(origin), "${ORIGIN}": str(origin)}
    for word, meaning in put.items():
        folders = [folder.replace(word, meaning) for folder in folders]
    return Linked(needed, tuple(folders))


def _offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    for start, offset, length in loads:
        if start <= address < start + length:
            return offset + address - start
    raise ValueError(f"address {address} is in no segment")


def _string(file: BinaryIO, offset: int) -> str:
    file.seek(offset)
    text = file.read(4096)
    return text[: text.index(b"\0")].decode()
