"""Requests to the pilot: files renamed into the inbox, applied once by whoever holds the lease, and answered.

A request is JSON: ``{"id", "verb", "at", "arguments"}``. Its id begins with the time, so that names sort in the
order in which requests were made.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.files import write_whole
from pilot import host
from pilot.folder import Folder

#: Answers that nobody has fetched are removed after this many seconds.
FORGET_S = 3600.0


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
    """
    folder.make()
    request = Request(f"{host.now():017.6f}-{os.urandom(4).hex()}", verb, arguments)
    content = {"id": request.id, "verb": verb, "at": host.now(), "arguments": dict(arguments)}
    write_whole(folder.inbox / f"{request.id}.json", json.dumps(content))
    return request


def waiting_requests(folder: Folder) -> tuple[list[Request], list[Path]]:
    """The requests in the inbox, oldest first, and files there that are none.

    A request of another user than the owner of the folder is none.
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
            request = _read(path, owner=folder.inbox.stat().st_uid)
            if request is None:
                strangers.append(path)
            else:
                requests.append(request)
    return requests, strangers


def _read(path: Path, owner: int) -> Request | None:
    if path.stat().st_uid != owner or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        request = Request(str(content["id"]), str(content["verb"]), dict(content["arguments"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    # the answer and the removal go by the id: with another name the file would be found again for ever
    return request if request.id == path.stem else None


def answer(folder: Folder, request: Request, content: Mapping[str, Any]) -> None:
    """Answer a request whose effect is committed, and take it out of the inbox."""
    write_whole(folder.answers / f"{request.id}.json", json.dumps(dict(content)), durable=False)
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
    except FileNotFoundError:
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
            if host.now() - entry.stat().st_mtime > FORGET_S:
                Path(entry.path).unlink(missing_ok=True)
