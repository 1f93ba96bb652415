"""A checkpoint: from where a step that was interrupted goes on. One file, which is there whole or not at all.

Its first line says whose it is and what the rest must add up to; the second is the state as JSON; what follows is the
rest of the state as the step wrote it. No heavy library is needed to look at one.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from db.errors import StorageError
from db.files import write_whole
from db.records import Json
from pilot import host

FILE = "checkpoint"

_FORMAT = 1
#: seconds between two checkpoints, unless the spec says otherwise
_EVERY_S = 20.0
_EVERY = "checkpoint_every_s"
#: writing them takes at most one part in so many of the time
_WRITING = 20.0


class UnusableError(ValueError):
    """This is no checkpoint from which the step could go on; the text says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment of a step.

    Attributes:
        at: how far it was: a step of dynamics, an evaluation of a fit.
        state: what JSON can hold.
        rest: what it cannot.
        resumed_at: where the attempts before this one were continued.
    """

    at: int
    state: Mapping[str, Any]
    rest: bytes = b""
    resumed_at: tuple[int, ...] = ()


def identity(step: str, spec: Json) -> str:
    """The same for the same step with the same spec, seeds and all."""
    content = {key: value for key, value in spec.items() if key != _EVERY}
    return hashlib.sha256(json.dumps([step, content], sort_keys=True).encode()).hexdigest()


def pack(checkpoint: Checkpoint, whose: str) -> bytes:
    """The file's content."""
    body = json.dumps(dict(checkpoint.state)).encode() + b"\n" + checkpoint.rest
    head = {
        "checkpoint": _FORMAT,
        "of": whose,
        "at": checkpoint.at,
        "resumed_at": list(checkpoint.resumed_at),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + body


def unpack(data: bytes, whose: str) -> Checkpoint:
    """Read what :func:`pack` made.

    Raises:
        UnusableError: it is torn, or another step's, or of a program that writes it differently.
    """
    first, _, body = data.partition(b"\n")
    try:
        head = json.loads(first)
        reason = _objection(head, body, whose)
        state, _, rest = body.partition(b"\n")
        found = Checkpoint(int(head["at"]), json.loads(state), rest, tuple(int(at) for at in head["resumed_at"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UnusableError("it is damaged") from None
    if reason:
        raise UnusableError(reason)
    return found


def _objection(head: Mapping[str, Any], body: bytes, whose: str) -> str:
    if head["checkpoint"] != _FORMAT:
        return "another version of pilot wrote it"
    if head["of"] != whose:
        return "it belongs to a task with another spec"
    return "" if head["sha256"] == hashlib.sha256(body).hexdigest() else "it is damaged"


def look(folder: Path, whose: str) -> Checkpoint:
    """The checkpoint that lies in a folder.

    Raises:
        UnusableError: there is none, or none of use.
    """
    return unpack(_read(folder), whose)


def inherit(previous: Path, directory: Path, whose: str) -> None:
    """Copy the checkpoint of an earlier attempt into the folder of a new one, which then needs the old one no more.

    Raises:
        UnusableError: the earlier attempt has left none of use.
        StorageError: the disk refuses.
    """
    data = _read(previous)
    unpack(data, whose)
    write_whole(directory / FILE, data)


def _read(folder: Path) -> bytes:
    try:
        return (folder / FILE).read_bytes()
    except FileNotFoundError:
        raise UnusableError("there is none") from None
    except OSError as error:
        raise UnusableError(f"it cannot be read: {error.strerror}") from None


@dataclass(slots=True)
class Saver:
    """Writes the checkpoints of one running step now and then, and finds the one to begin with.

    Attributes:
        where: the attempt's folder.
        whose: :func:`identity` of the step.
        made_of: what the result depends on besides the spec: the content of files, the versions of packages.
        every_s: seconds between two checkpoints.
        resumed_at: where this step was continued, this time and before.
    """

    where: Path
    whose: str
    made_of: dict[str, str]
    every_s: float = _EVERY_S
    resumed_at: tuple[int, ...] = ()
    _next: float = field(default_factory=host.monotonic)

    def __post_init__(self) -> None:
        self._next += self.every_s

    def begin(self) -> Checkpoint | None:
        """The checkpoint to go on from; None: start afresh. What cannot be used is said, and removed."""
        try:
            found = look(self.where, self.whose)
        except UnusableError as error:
            if (self.where / FILE).exists():
                self._refuse(str(error))
            return None
        if found.state.get("made_of") != self.made_of:
            self._refuse("its files or programs have changed since")
            return None
        self.resumed_at = (*found.resumed_at, found.at)
        return found

    def _refuse(self, reason: str) -> None:
        print(f"starting afresh: the checkpoint cannot be used: {reason}", flush=True)
        with contextlib.suppress(OSError):
            (self.where / FILE).unlink()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return host.monotonic() >= self._next

    def save(self, at: int, state: Mapping[str, Any], rest: bytes) -> None:
        """Write one. That the disk refuses does not end the step: the last one is still there."""
        began = host.monotonic()
        whole = Checkpoint(at, {**state, "made_of": self.made_of}, rest, self.resumed_at)
        try:
            write_whole(self.where / FILE, pack(whole, self.whose))
        except StorageError as error:
            print(f"no checkpoint at {at}: {error.what}", flush=True)
        now = host.monotonic()
        self._next = now + max(self.every_s, _WRITING * (now - began))


def saver(step: str, spec: Json, root: Path, where: Path, files: Sequence[str], packages: Sequence[str]) -> Saver:
    """For a step that depends on the ``files`` (keys of the spec that hold paths) and on ``packages``."""
    made_of = {f"version of {name}": metadata.version(name) for name in packages}
    for key in files:
        if spec.get(key):
            with contextlib.suppress(OSError):  # who needs it will say that it is missing
                made_of[key] = hashlib.sha256((root / spec[key]).read_bytes()).hexdigest()
    return Saver(where, identity(step, spec), made_of, float(spec.get(_EVERY, _EVERY_S)))
