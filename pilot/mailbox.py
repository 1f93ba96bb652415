"""Requests to the pilot: files renamed into the inbox, applied once by whoever holds the lease, and answered.

A request is JSON: ``{"id", "verb", "at", "arguments"}``. Its id begins with the time, so that names sort in the
order in which requests were made.
"""

import contextlib
import errno
import json
import math
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import InputError
from db.files import write_whole
from pilot import host
from pilot.folder import Folder

#: Answers that nobody has fetched are removed after this many seconds.
FORGET_S = 3600.0
#: No request is larger: half a million atoms to be labelled.
MOST_BYTES = 64_000_000

_ANSWER = re.compile(r"[0-9]{10}\.[0-9]{6}-[0-9a-f]{8}\.json")
_PLAIN = re.compile(r"[A-Za-z0-9 ._-]{1,100}")
#: what the system says of a link, a device without a driver, or a name that is no file
_NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES})


@dataclass(frozen=True, slots=True)
class Request:
    """Something that a user asks of the pilot."""

    id: str
    verb: str
    arguments: Mapping[str, Any]


def post(folder: Folder, verb: str, arguments: Mapping[str, Any]) -> Request:
    """Put a request into the inbox.

    Raises:
        StorageError: the folder cannot be written.
        InputError: it is too large.
    """
    folder.make()
    request = Request(f"{host.now():017.6f}-{os.urandom(4).hex()}", verb, arguments)
    content = {"id": request.id, "verb": verb, "at": host.now(), "arguments": dict(arguments)}
    text = json.dumps(content)
    if len(text) > MOST_BYTES:
        raise InputError(
            f"this is too much for one request ({len(text) // 1_000_000} MB, {MOST_BYTES // 1_000_000} MB at most)",
            where=f"pilot {verb}",
            next_step="ask for it in parts: fewer files, or a smaller --count",
        )
    write_whole(folder.inbox / f"{request.id}.json", text)
    return request


def waiting_requests(folder: Folder) -> tuple[list[Request], list[Path]]:
    """The requests in the inbox, oldest first, and files there that are none.

    A request of another user than the owner of the folder, or of this process, is none; nor is a link, a pipe, a
    folder, or a file that is too large to be one.
    """
    requests: list[Request] = []
    strangers: list[Path] = []
    try:
        names = sorted(name for name in os.listdir(folder.inbox) if name.endswith(".json") and name[0] != ".")
    except OSError:
        # a shared disk may be away for a moment: they are still there at the next look
        return [], []
    for name in names:
        path = folder.inbox / name
        with contextlib.suppress(OSError):
            request = _read(path, owners={folder.inbox.stat().st_uid, os.geteuid()})
            if request is None:
                strangers.append(path)
            else:
                requests.append(request)
    return requests, strangers


def _read(path: Path, owners: Collection[int]) -> Request | None:
    """The request in a file; None if it is none, or is not ours to obey.

    Raises:
        OSError: it is gone, or the disk is away for a moment.
    """
    try:
        # a pipe must not hold us up, and what a link shows may be somebody else's
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    try:
        content = _content(fd, owners)
    finally:
        os.close(fd)
    try:
        said = json.loads(content, parse_float=_finite, parse_constant=_finite)
        request = Request(_text(said["id"]), _text(said["verb"]), dict(said["arguments"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    # the answer and the removal go by the id: with another name the file would be found again for ever
    return request if request.id == path.stem else None


def _content(fd: int, owners: Collection[int]) -> bytes:
    """What is in an opened file; nothing if it is not a plain file of one of the owners, or too large."""
    found = os.fstat(fd)
    plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not plain or found.st_uid not in owners or found.st_size > MOST_BYTES:
        return b""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _text(value: Any) -> str:
    """A name that can be written anywhere.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise ValueError(value)
    return value


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(word)
    return value


def answer(folder: Folder, request: Request, content: Mapping[str, Any]) -> None:
    """Answer a request whose effect is committed, and take it out of the inbox."""
    write_whole(folder.answers / f"{request.id}.json", json.dumps(dict(content)))
    (folder.inbox / f"{request.id}.json").unlink(missing_ok=True)


def refuse(path: Path) -> bool:
    """Put aside a file in the inbox that is no request; it is kept for the user to look at. False if it stays."""
    try:
        path.rename(path.with_suffix(".refused"))
    except OSError:
        return False
    return True


def fetch_answer(folder: Folder, request: Request) -> dict[str, Any] | None:
    """The answer to a request, once it is there; it is removed."""
    path = folder.answers / f"{request.id}.json"
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return dict(content)


def withdraw(folder: Folder, request: Request) -> bool:
    """Take back a request that nobody has applied; False if it is gone already."""
    try:
        (folder.inbox / f"{request.id}.json").unlink()
    except FileNotFoundError:
        return False
    return True


def forget_old_answers(folder: Folder) -> None:
    """Remove answers that nobody has fetched."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder.answers):
            if _ANSWER.fullmatch(entry.name) and host.now() - entry.stat().st_mtime > FORGET_S:
                Path(entry.path).unlink(missing_ok=True)
