"""What a dead pilot left half-written, beside the file that it was to become; removed when the next one begins.

Whoever calls holds the lease. Files that only its holder writes are removed at once; what others write (a request, a
lease that somebody tries to take) may be under way just now, and is removed when it is old.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pilot import host
from pilot.folder import Folder

#: nobody takes so long to write a file of some hundred bytes
OLD_S = 600.0
#: names that db.files, tasks.formats.whole, the copy of the database (and its journal) and potentials have meanwhile
_BESIDE = re.compile(r"\..+\.new(-journal)?(\.\w+)?")
#: what only the holder of the lease writes in state/
_OURS = re.compile(r"\.(status\.json|lease\.json|copy\.db)\..*")
_LEASE = re.compile(r"lease\.[0-9a-f]+\.(new|dead)")


def remove_left_overs(folder: Folder) -> int:
    """Remove them; how many there were. What cannot be removed stays: it does no harm but take room."""
    removed = 0
    for path in left_overs(folder):
        if _is_ours(folder, path) or _is_old(path):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed += 1
    return removed


def left_overs(folder: Folder) -> Iterator[Path]:
    """All that looks half-written outside the folders of attempts, whoever writes it."""
    places = [folder.root, folder.state, folder.inbox, folder.answers, folder.ends]
    for top in (folder.root / "potentials", folder.root / "generations"):
        places += [top, *_entries(top)]
    for place in places:
        for path in _entries(place):
            if _BESIDE.fullmatch(path.name) or (place == folder.state and _LEASE.fullmatch(path.name)):
                yield path


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _is_ours(folder: Folder, path: Path) -> bool:
    if path.parent in {folder.root, folder.inbox}:
        return False
    return path.parent != folder.state or _OURS.fullmatch(path.name) is not None


def _is_old(path: Path) -> bool:
    try:
        return host.now() - path.lstat().st_mtime > OLD_S
    except OSError:
        return False
