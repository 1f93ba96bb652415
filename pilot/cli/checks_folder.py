"""What `pilot doctor` says of the campaign folder itself."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from db.errors import PilotError
from pilot import host
from pilot.backups import backups
from pilot.cli.output import say
from pilot.cli.presence import look
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.lease import release_by_force
from pilot.repair.findings import examine
from tasks.protocol import Finding

_SCARCE_MB = 1000.0
_SCARCE_FILES = 10_000
#: a database up to this size is looked at, bytes
_SMALL_B = 200_000_000


def check_folder(folder: Folder) -> Iterator[Finding]:
    """The place, the room that is left, and who holds it."""
    kind = host.file_system(folder.root)
    writable = os.access(folder.root, os.W_OK | os.X_OK)
    yield Finding(
        "place",
        f"{folder.root} on {kind or 'an unknown file system'}" + ("" if writable else ", NOT writable"),
        ok=writable,
        cure="" if writable else "chmod u+rwx, or choose another folder",
    )
    yield _room(folder)
    yield _lease(folder)
    yield _backups(folder)
    if _stands_still(folder) and folder.database.exists():
        yield _state(folder)


def _room(folder: Folder) -> Finding:
    space = host.free_space(folder.root)
    scarce = space.mb < _SCARCE_MB or (space.files is not None and space.files < _SCARCE_FILES)
    files = "" if space.files is None else f" and for {space.files} files"
    return Finding(
        "room",
        f"for {space.mb / 1000:.1f} GB{files}",
        ok=not scarce,
        cure="free some, or move the folder to a larger file system" if scarce else "",
    )


def _lease(folder: Folder) -> Finding:
    try:
        presence = look(folder)
    except PilotError as error:
        return Finding("pilot here", error.what, ok=False, cure=error.next_step)
    holder = presence.holder
    if holder is None:
        return Finding("pilot here", "none is alive", ok=True)
    who = f"pid {holder.pid} on {holder.host}"
    if presence.alive:
        return Finding("pilot here", f"alive: {who}", ok=True)
    if presence.free:
        return Finding("pilot here", f"{who} is dead; the next `pilot run` takes its place", ok=True)
    silent = f"{who} has been silent for {say_duration(presence.silent_s)}"
    return Finding(
        "pilot here", silent, ok=False, cure=f"if you know that it is dead (look on {holder.host}): --release-lease"
    )


def _stands_still(folder: Folder) -> bool:
    """Whether nobody is at work, so that the files of state/ stand still."""
    try:
        return look(folder).free
    except PilotError:
        return True


def _state(folder: Folder) -> Finding:
    """Whether what pilots keep can be read: the whole check copies the database, so not where that takes long."""
    if folder.database.stat().st_size > _SMALL_B:
        return Finding("state", "large: `pilot doctor --repair` looks at it, and changes nothing", ok=True)
    with tempfile.TemporaryDirectory(prefix="pilot-doctor-") as scratch:
        damaged = [found.what for found in examine(folder, Path(scratch)) if not found.ok]
    if not damaged:
        return Finding("state", "the database and all beside it can be read", ok=True)
    cure = "`pilot doctor --repair` says what could be done, and changes nothing"
    return Finding("state", f"damaged: {', '.join(damaged)}", ok=False, cure=cure)


def _backups(folder: Folder) -> Finding:
    there = backups(folder)
    if not there:
        return Finding("backups", "none yet: a pilot makes them", ok=True)
    newest = say_duration(max(0.0, host.now() - max(there)))
    return Finding("backups", f"{len(there)} of the database, the newest {newest} old", ok=True)


def release(folder: Folder) -> None:
    """Take the lease away from a dead holder.

    Raises:
        HeldError: the holder lives.
    """
    holder = release_by_force(folder)
    if holder is None:
        say("nobody holds this folder now")
    else:
        say(f"taken from pid {holder.pid} on {holder.host}: `pilot run` starts a new pilot")
