"""The names that an MPI leaves in /dev/shm when its ranks end without finalising: ours do, and tasks that are killed.

MPICH's names are made of SLURM's job and step. A file that is left over would be taken for the memory of a living rank
by a later step of the same name (a job that was queued again counts its steps anew), and that world does not come up.
And on a diskless node what is left over is memory that is lost.
"""

import contextlib
import os
import re
from pathlib import Path

from pilot import host
from pilot.agent import monitor

_FOLDER = Path("/dev/shm")
#: of MPICH; of Open MPI up to 4 and from 5 on, whose mpirun removes them unless it is killed together with its ranks
_NAME = re.compile(r"(?:mpich_shm_|vader_segment\.|sm_segment\.)\S+")
#: a younger one may belong to a rank that is about to map it
_OLD_S = 10.0


def unlink_ours() -> None:
    """Take away the names of what this process maps; the memory stays as long as we do."""
    for name in _mapped(os.getpid()):
        with contextlib.suppress(OSError):
            (_FOLDER / name).unlink()


def remove_stale(folder: Path = _FOLDER) -> int:
    """Remove what is ours, not young, and mapped by no process; how many there were."""
    old: set[str] = set()
    for path in (path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        with contextlib.suppress(OSError):
            seen = path.stat()
            if seen.st_uid == os.geteuid() and host.now() - seen.st_mtime > _OLD_S:
                old.add(path.name)
    if old:
        for pid in monitor.listed():
            old -= _mapped(pid)
    for name in old:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    return len(old)


def _mapped(pid: int) -> set[str]:
    try:
        lines = host.read(f"/proc/{pid}/maps").decode(errors="replace").splitlines()
    except OSError:
        return set()
    # a name that was taken away is followed by " (deleted)"
    return {found[0] for line in lines if (found := _NAME.search(line))}
