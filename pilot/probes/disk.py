"""What nodes that share a disk can see of each other there: file locks, renames, links."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilot import host

#: put into the folder by the doctor once all nodes are there
GO = "go"
_WINNER = "winner"
_LOOK_S = 0.02
_KINDS = {"flock": fcntl.flock, "fcntl": fcntl.lockf}


def from_node(node: str) -> str:
    """The name of the file that a node puts into the folder."""
    return f"from-{node}"


@contextmanager
def held_locks(folder: Path) -> Iterator[dict[str, str]]:
    """Lock one file in each way that there is; for each that does not work even here, why."""
    troubles: dict[str, str] = {}
    with contextlib.ExitStack() as files:
        for name, lock in _KINDS.items():
            file = files.enter_context((folder / f"lock-{name}").open("wb"))
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                troubles[name] = error.strerror or str(error)
        yield troubles


def try_locks(folder: Path) -> dict[str, str]:
    """Whether the locks that the doctor holds are respected here: "refused", "granted", or what went wrong."""
    said: dict[str, str] = {}
    for name, lock in _KINDS.items():
        try:
            with (folder / f"lock-{name}").open("r+b") as file:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said[name] = "granted"
        except (BlockingIOError, PermissionError):
            said[name] = "refused"
        except OSError as error:
            said[name] = error.strerror or str(error)
    return said


def wait_for_file(path: Path, patience_s: float) -> bool:
    """Whether a file comes to be seen in that time."""
    deadline = host.monotonic() + patience_s
    while not path.exists():
        if host.monotonic() > deadline:
            return False
        host.pause(_LOOK_S)
    return True


def try_link(mine: Path) -> str:
    """Give a file of ours the name that only one may have, as the lease is made: "won", "lost", or what went wrong."""
    try:
        os.link(mine, mine.with_name(_WINNER))
    except FileExistsError:
        return "lost"
    except OSError as error:
        return error.strerror or str(error)
    return "won"
