"""A disk that loses, when the power goes, all that was not flushed: a model that is fed with a trace of system calls.

Each file has its present content and what was in it at its last fsync; each folder its present names and those at its
last fsync. The trace is that of a real run by strace, with all data that was written. So the folder can be made as a
loss of power at any moment would have left it, by readings of different harshness.
"""

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

#: what is written to the disk in one piece, at least
_BLOCK = 4096
CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fsync,fdatasync,lseek,rename,renameat,"
    "renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sendfile,copy_file_range,sync,syncfs,fallocate"
)
_LINE = re.compile(
    r"(?P<at>\d+\.\d+) (?P<call>\w+)\((?P<args>.*)\) += (?P<result>-?\d+)(?:<(?P<path>.*)>)?.*? <(?P<took>[\d.]+)>$"
)
_FD = re.compile(r"-?\d+<(.*)>$", re.DOTALL)


def strace(out: Path) -> list[str]:
    """What to put before a command so that its calls, and those of all its children, are written to ``out``.*."""
    times = ["--absolute-timestamps=format:unix,precision:ns", "--syscall-times=ns"]
    return [
        "strace",
        "-ff",
        "-y",
        "-xx",
        "-s",
        "100000000",
        "--seccomp-bpf",
        *times,
        "-e",
        f"trace={CALLS}",
        "-o",
        str(out),
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded.

    Attributes:
        ended: when (seconds).
        args: strings decoded, descriptors as the paths behind them.
        cwd: the folder of the process, as far as it is known.
        path: behind the descriptor that it returned.
    """

    ended: float
    name: str
    args: tuple[str | bytes, ...]
    result: int
    path: str
    cwd: str


def read_trace(out: Path) -> list[Call]:
    """All calls, in the order in which they ended."""
    calls: list[Call] = []
    for path in out.parent.glob(f"{out.name}.*"):
        calls += _read_process(path.read_text(errors="surrogateescape").splitlines())
    return sorted(calls, key=lambda call: call.ended)


def _read_process(lines: Iterable[str]) -> Iterator[Call]:
    cwd = ""
    for line in lines:
        found = _LINE.match(line)
        if found is None or found["result"].startswith("-"):
            continue
        args = tuple(_arguments(found["args"]))
        for arg in args:
            if isinstance(arg, str) and arg.startswith("AT_FDCWD<"):
                cwd = _unescape(arg[9:-1]).decode()
        ended = float(found["at"]) + float(found["took"])
        path = _unescape(found["path"] or "").decode()
        yield Call(ended, found["call"], args, int(found["result"]), path, cwd)


def _arguments(text: str) -> Iterator[str | bytes]:
    """Split at commas outside of strings; strings become bytes."""
    for part in re.findall(r'"(?:\\x[0-9a-f]{2})*"|\[[^\]]*\]|[^,"]+', text):
        word = part.strip()
        if word.startswith('"'):
            yield _unescape(word[1:-1])
        elif word.startswith("["):
            # the parts of a writev, joined
            yield b"".join(_unescape(piece) for piece in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', word))
        elif word:
            yield word


def _unescape(text: str) -> bytes:
    if "\\x" not in text:
        return text.encode(errors="surrogateescape")
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class File:
    """Content now, and at the last flush (None: there was none)."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytes | None = None
    cursor: int = 0
    appends: bool = False

    def write(self, data: bytes, at: int | None = None) -> None:
        """At a place, or where the last write ended."""
        start = at if at is not None else len(self.data) if self.appends else self.cursor
        if len(self.data) < start:
            self.data.extend(bytes(start - len(self.data)))
        self.data[start : start + len(data)] = data
        if at is None:
            self.cursor = start + len(data)


@dataclass(slots=True)
class Place:
    """A folder: its names now, and at the last flush."""

    names: dict[str, "File | Place"] = field(default_factory=dict)
    safe: dict[str, "File | Place"] = field(default_factory=dict)


class Harshness(StrEnum):
    """What a loss of power leaves."""

    NOTHING = "nothing that was not flushed"
    NAMES = "all names, and of the contents what was flushed"
    CHANCE = "by chance, for each folder, file and block"


class Disk:
    """One folder with all below it, as it was when the trace began; all of that is safe."""

    def __init__(self, root: Path) -> None:
        self._root = PurePosixPath(root)
        self._top = _load(root)

    def is_at(self, root: Path) -> None:
        """The calls that follow know the folder by this name."""
        self._root = PurePosixPath(root)

    def apply(self, call: Call) -> bool:
        """Do what a call did; whether it had to do with our folder."""
        doing: Callable[[Call], bool] | None = getattr(self, f"_do_{call.name}", None)
        return doing is not None and doing(call)

    def image(self, harshness: Harshness, rng: random.Random, target: Path) -> None:
        """Make the folder as a loss of power at this moment leaves it."""
        _write_out(self._top, harshness, rng, target)

    def present(self) -> dict[str, bytes]:
        """All files as they are for who reads them now."""
        found: dict[str, bytes] = {}
        _collect(self._top, "", found)
        return found

    def _do_openat(self, call: Call) -> bool:
        path, flags = self._below(call.path), str(call.args[2])
        if path is None:
            return False
        place = self._find(path.parent)
        if not isinstance(place, Place) or path == PurePosixPath():
            return False
        if path.name not in place.names and "O_CREAT" in flags:
            place.names[path.name] = File()
        node = place.names.get(path.name)
        if not isinstance(node, File) or "O_RDONLY" in flags:
            return False
        if "O_TRUNC" in flags:
            node.data.clear()
        node.cursor, node.appends = 0, "O_APPEND" in flags
        return True

    def _do_write(self, call: Call) -> bool:
        return self._write(call, bytes(call.args[1]) if isinstance(call.args[1], bytes) else b"", None)

    _do_writev = _do_write

    def _do_pwrite64(self, call: Call) -> bool:
        assert isinstance(call.args[1], bytes)
        return self._write(call, call.args[1], int(call.args[3]))

    def _write(self, call: Call, data: bytes, at: int | None) -> bool:
        node = self._behind(call)
        if not isinstance(node, File):
            return False
        node.write(data[: call.result], at)
        return True

    def _do_sendfile(self, call: Call) -> bool:
        return self._copy(call, to=0, of=1)

    def _do_copy_file_range(self, call: Call) -> bool:
        return self._copy(call, to=2, of=0)

    def _copy(self, call: Call, to: int, of: int) -> bool:
        node = self._behind(call, to)
        if not isinstance(node, File):
            return False
        source = self._behind(call, of)
        content = bytes(source.data) if isinstance(source, File) else Path(fd_path(call.args[of])).read_bytes()
        node.write(content[node.cursor : node.cursor + call.result])
        return True

    def _do_lseek(self, call: Call) -> bool:
        node = self._behind(call)
        if isinstance(node, File):
            node.cursor = call.result
        return False

    def _do_ftruncate(self, call: Call) -> bool:
        node, size = self._behind(call), int(call.args[1])
        if not isinstance(node, File):
            return False
        node.data[size:] = b""
        node.data.extend(bytes(size - len(node.data)))
        return True

    def _do_fsync(self, call: Call) -> bool:
        node = self._behind(call)
        if isinstance(node, File):
            node.safe = bytes(node.data)
        elif isinstance(node, Place):
            node.safe = dict(node.names)
        return node is not None

    _do_fdatasync = _do_fsync

    def _do_rename(self, call: Call) -> bool:
        old, new = self._named(call, 0), self._named(call, 1)
        return self._move(old, new, keep=False)

    def _do_renameat2(self, call: Call) -> bool:
        return self._move(self._named(call, 1, 0), self._named(call, 3, 2), keep=False)

    _do_renameat = _do_renameat2

    def _do_link(self, call: Call) -> bool:
        return self._move(self._named(call, 0), self._named(call, 1), keep=True)

    def _do_linkat(self, call: Call) -> bool:
        return self._move(self._named(call, 1, 0), self._named(call, 3, 2), keep=True)

    def _move(self, old: PurePosixPath | None, new: PurePosixPath | None, *, keep: bool) -> bool:
        node = None if old is None else self._find(old)
        if node is not None and new is not None:
            self._folder(new.parent).names[new.name] = node
        if old is not None and not keep:
            self._folder(old.parent).names.pop(old.name, None)
        return old is not None or new is not None

    def _do_unlink(self, call: Call) -> bool:
        return self._remove(self._named(call, 0))

    _do_rmdir = _do_unlink

    def _do_unlinkat(self, call: Call) -> bool:
        return self._remove(self._named(call, 1, 0))

    def _remove(self, path: PurePosixPath | None) -> bool:
        if path is None:
            return False
        self._folder(path.parent).names.pop(path.name, None)
        return True

    def _do_mkdir(self, call: Call) -> bool:
        return self._make(self._named(call, 0))

    def _do_mkdirat(self, call: Call) -> bool:
        return self._make(self._named(call, 1, 0))

    def _make(self, path: PurePosixPath | None) -> bool:
        if path is None:
            return False
        self._folder(path.parent).names[path.name] = Place()
        return True

    def _below(self, path: str) -> PurePosixPath | None:
        """Relative to our folder; None if it lies elsewhere."""
        found = PurePosixPath(os.path.normpath(path))
        return found.relative_to(self._root) if found.is_relative_to(self._root) else None

    def _named(self, call: Call, index: int, folder: int | None = None) -> PurePosixPath | None:
        """The path in an argument, which may be relative to a folder in another, or to that of the process."""
        name = call.args[index]
        assert isinstance(name, bytes), call
        base = call.cwd if folder is None else fd_path(call.args[folder])
        return self._below(str(PurePosixPath(base or "/") / name.decode()))

    def _behind(self, call: Call, index: int = 0) -> "File | Place | None":
        path = self._below(fd_path(call.args[index]))
        return None if path is None else self._find(path)

    def _find(self, path: PurePosixPath) -> "File | Place | None":
        node: File | Place | None = self._top
        for part in path.parts:
            node = node.names.get(part) if isinstance(node, Place) else None
        return node

    def _folder(self, path: PurePosixPath) -> Place:
        node = self._find(path)
        assert isinstance(node, Place), path
        return node


def fd_path(arg: str | bytes) -> str:
    """The path behind a descriptor in the arguments of a call; empty if it is none."""
    text = arg if isinstance(arg, str) else ""
    if text.startswith("AT_FDCWD<"):
        return _unescape(text[9:-1]).decode()
    found = _FD.match(text)
    return "" if found is None else _unescape(found[1]).decode(errors="replace")


def _load(path: Path) -> Place:
    names: dict[str, File | Place] = {}
    for entry in path.iterdir():
        if entry.is_dir():
            names[entry.name] = _load(entry)
        else:
            content = entry.read_bytes()
            names[entry.name] = File(bytearray(content), content)
    return Place(names, dict(names))


def _collect(place: Place, prefix: str, found: dict[str, bytes]) -> None:
    for name, node in place.names.items():
        if isinstance(node, Place):
            _collect(node, f"{prefix}{name}/", found)
        else:
            found[prefix + name] = bytes(node.data)


def _write_out(place: Place, harshness: Harshness, rng: random.Random, target: Path) -> None:
    target.mkdir()
    all_names = harshness is Harshness.NAMES or (harshness is Harshness.CHANCE and rng.random() < 0.5)
    for name, node in sorted((place.names if all_names else place.safe).items()):
        if isinstance(node, Place):
            _write_out(node, harshness, rng, target / name)
        else:
            (target / name).write_bytes(_content(node, harshness, rng))


def _content(file: File, harshness: Harshness, rng: random.Random) -> bytes:
    safe = file.safe or b""
    if harshness is not Harshness.CHANCE or file.data == safe:
        return safe
    chance = rng.random()
    if chance < 0.6:
        return safe if chance < 0.3 else bytes(file.data)
    # some blocks came to the disk and others did not; where nothing was before there are zeros
    parts = []
    for start in range(0, len(file.data), _BLOCK):
        new = bytes(file.data[start : start + _BLOCK])
        old = safe[start : start + len(new)]
        parts.append(new if rng.random() < 0.5 else old + bytes(len(new) - len(old)))
    return b"".join(parts)
