"""Where everything lies in a campaign folder: every file name in one place."""

import os
import shlex
import shutil
from pathlib import Path

from db.errors import MissingError, StorageError
from db.files import settle, storage_error

#: Attempts lie in folders of this many, so that no folder grows beyond what shared file systems like.
ATTEMPTS_A_FOLDER = 200


class Folder:
    """The paths of a campaign folder.

    ::

        pilot.toml                the user's
        pilot.log                 what pilots did, in words
        state/pilot.db            the database: only the pilot opens it
        state/copy.db             its published copy: what show, log and export read
        state/status.json         what status reads
        state/lease.json          who the pilot is
        state/lease.last          who it was, if it ended in order
        state/backups/            older copies of the database
        state/submitted.json      the job that `pilot submit` has handed in last
        state/inbox/, answers/    requests and their answers
        state/ends/               what launchers saw, in case that nobody lives to record it, or that it is forgotten
        runs/000/000123/          the files of attempt 123
        runs/packed/s1g03.zip     those of the finished attempts of generation 3 of stage 1, by and by
        generations/s1g03/        the training set of generation 3 of stage 1
        potentials/s1g03/         the potential that it trained
        results/                  the newest potential, the training set: made when there is something new
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.config = self.root / "pilot.toml"
        self.log = self.root / "pilot.log"
        self.state = self.root / "state"
        self.database = self.state / "pilot.db"
        self.copy = self.state / "copy.db"
        self.status = self.state / "status.json"
        self.lease = self.state / "lease.json"
        self.last_lease = self.state / "lease.last"
        self.lock = self.state / "lease.lock"
        self.backups = self.state / "backups"
        self.inbox = self.state / "inbox"
        self.answers = self.state / "answers"
        self.ends = self.state / "ends"
        self.runs = self.root / "runs"
        self.packed = self.runs / "packed"
        self.results = self.root / "results"

    def make(self) -> None:
        """Make the folders that a pilot needs, so that a loss of power does not take them away again.

        ``state``, ``runs`` and the others at the top may be links: users put them on another disk. Those below are
        ours.

        Raises:
            StorageError: one of ours is a link: what we remove there would be somebody else's.
        """
        linked = [path for path in (self.inbox, self.answers, self.ends) if path.is_symlink()]
        if linked:
            raise StorageError(
                "this is a link, and must be a folder",
                where=str(linked[0]),
                next_step=f"rm {shlex.quote(str(linked[0]))}",
            )
        missing = [path for path in (self.inbox, self.answers, self.ends, self.runs) if not path.is_dir()]
        for path in missing:
            path.mkdir(parents=True, exist_ok=True)
        if missing:
            settle(self.state, self.root)

    def demand_room(self) -> None:
        """Make sure that there is room for another attempt, by making one for a moment.

        Raises:
            StorageError: the disk refuses.
        """
        probe = self.runs / f".room.{os.getpid()}.new"
        try:
            probe.mkdir()
            (probe / "file").write_bytes(bytes(4096))
        except OSError as error:
            raise storage_error(error, self.runs) from error
        finally:
            shutil.rmtree(probe, ignore_errors=True)

    def attempt(self, attempt_id: int) -> str:
        """The folder of an attempt, relative to the root."""
        return f"runs/{attempt_id // ATTEMPTS_A_FOLDER:03d}/{attempt_id:06d}"

    def generation(self, stage: int, number: int) -> str:
        """The folder of a generation's training set, relative to the root."""
        return f"generations/s{stage + 1}g{number:02d}"

    def potential(self, stage: int, number: int) -> str:
        """The folder of the potential that a generation trained, relative to the root."""
        return f"potentials/s{stage + 1}g{number:02d}"


def keep_mode(*folders: Path) -> None:
    """From now on, what this process and its children make is for those for whom the campaign folder is.

    A folder of a project (2770) gives files that its group can read and write, one of a single user (0700) files that
    nobody else can read, whatever the umask was. Nothing is ever made that all the world can write.

    Args:
        folders: what all of them allow.

    Raises:
        OSError: there is no such folder.
    """
    refused = 0o002
    for folder in folders:
        refused |= ~folder.stat().st_mode & 0o077
    os.umask(refused)


def find_folder(start: Path | None) -> Folder:
    """The campaign folder that ``start`` (or the present directory) is, or lies in; its mode is kept from now on.

    Raises:
        MissingError: there is no pilot.toml here or above.
    """
    here = (start or Path.cwd()).absolute()
    for place in (here, *here.parents):
        if (place / "pilot.toml").is_file():
            keep_mode(place)
            return Folder(place)
        if start is not None:
            break
    raise MissingError(
        "this is not a campaign folder: it has no pilot.toml",
        where=str(here),
        next_step="`pilot init FOLDER` makes one; --folder names another",
    )
