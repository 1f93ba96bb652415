"""Older copies of the database, which come and go by themselves: state/backups/.

Each is a copy that was published (:meth:`db.engine.Writer.publish_copy`), checked, and kept under the time at which it
was made. A published copy is replaced by another file, never changed: so a second name for it is all that it takes.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from db.errors import StorageError
from db.files import storage_error, sync_folder
from db.migrations import stored_version
from db.schema import VERSION
from db.takeover import copy_settled, settle
from pilot import host
from pilot.folder import Folder

#: A backup is made at most so often.
EVERY_S = 600.0
#: Besides the newest: the last of the hour before this one and of the one before that, likewise of days, and the last
#: of the week before. So there always is one that is an hour or two old, and one of a day or two; six in all.
PERIODS_S = ((3600.0, 2), (24 * 3600.0, 2), (7 * 24 * 3600.0, 1))
_NAME = re.compile(r"pilot-(\d{14})\.db")
_TIME = "%Y%m%d%H%M%S"


def to_keep(made: Sequence[float], now: float) -> set[float]:
    """Which backups stay, by the times at which they were made (s since 1970).

    Periods in which nothing was made are left out: the last backup before a pause is kept.
    """
    kept = {max(made)} if made else set()
    for length, number in PERIODS_S:
        last_of: dict[int, float] = {}
        for at in sorted(made):
            if at // length < now // length:
                last_of[int(at // length)] = at
        kept |= {last_of[period] for period in sorted(last_of)[-number:]}
    return kept


def backups(folder: Folder) -> dict[float, Path]:
    """What there is, by the time at which it was made, newest first."""
    found: dict[float, Path] = {}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder.backups), reverse=True):
            match = _NAME.fullmatch(name)
            if match:
                with contextlib.suppress(ValueError):
                    at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC).timestamp()
                    found[at] = folder.backups / name
    return found


def back_up_if_due(folder: Folder) -> Path | None:
    """Keep the published copy if the newest backup is old enough, and drop those that are not needed any more.

    Returns:
        The new backup, if one was made.

    Raises:
        StorageError: the disk refuses, or the copy is damaged; the database itself is not touched.
    """
    now = host.now()
    there = backups(folder)
    newest = max(there, default=None)
    if newest is not None and 0.0 <= now - newest < EVERY_S:
        return None
    name = f"pilot-{datetime.fromtimestamp(now, UTC).strftime(_TIME)}.db"
    target = folder.backups / name
    beside = folder.backups / f".{name}.new"
    try:
        folder.backups.mkdir(exist_ok=True)
        for stale in folder.backups.glob(".*.new*"):
            stale.unlink()
        _link_or_copy(folder.copy, beside)
        settle(beside, folder.copy)
        beside.replace(target)
        sync_folder(folder.backups)
        kept = to_keep([*there, int(now)], now)
        for at in there.keys() - kept:
            there[at].unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return target


def keep_before_migration(folder: Folder) -> None:
    """Keep the database as it is before this version changes its schema. The caller holds the lease.

    Raises:
        StorageError: it is damaged, or the disk refuses; nothing was changed.
    """
    version = stored_version(folder.database)
    target = folder.backups / f"before-schema-{VERSION}.db"
    if not 0 < version < VERSION or target.exists():
        return
    beside = folder.backups / f".{target.name}.new"
    try:
        folder.backups.mkdir(exist_ok=True)
        copy_settled(folder.database, beside)
        beside.replace(target)
        sync_folder(folder.backups)
    except OSError as error:
        raise storage_error(error, target) from error


def demand_history(folder: Folder) -> None:
    """An empty folder gets an empty database; one in which something has been, never.

    Raises:
        StorageError: the database is gone or empty, but much else speaks of it.
    """
    try:
        if folder.database.stat().st_size > 0:
            return
        what = "the database is empty"
    except FileNotFoundError:
        what = "the database is gone"
    except OSError as error:
        raise storage_error(error, folder.database) from error
    traces = [path for path in (folder.copy, folder.backups) if path.exists()]
    traces += sorted(folder.runs.glob("[0-9]*"))[:1]
    if traces:
        left = ", ".join(str(path.relative_to(folder.root)) for path in traces)
        raise StorageError(
            f"{what}, but pilots have worked here: there is {left}",
            where=str(folder.database),
            next_step="`pilot doctor --repair` says what can be saved; to begin anew, use another folder",
        )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        # a file system without hard links
        shutil.copyfile(source, target)
