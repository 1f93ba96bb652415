"""Where everything lies in a campaign folder: every file name in one place."""

from pathlib import Path

from db.errors import MissingError

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
        state/submitted.json      the job that `pilot submit` has handed in last
        state/inbox/, answers/    requests and their answers
        state/ends/               what launchers saw, in case that nobody lives to record it
        runs/000/000123/          the files of attempt 123
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
        self.lock = self.state / "lease.lock"
        self.inbox = self.state / "inbox"
        self.answers = self.state / "answers"
        self.ends = self.state / "ends"
        self.runs = self.root / "runs"
        self.results = self.root / "results"

    def make(self) -> None:
        """Make the folders that a pilot needs."""
        for path in (self.inbox, self.answers, self.ends, self.runs):
            path.mkdir(parents=True, exist_ok=True)

    def attempt(self, attempt_id: int) -> str:
        """The folder of an attempt, relative to the root."""
        return f"runs/{attempt_id // ATTEMPTS_A_FOLDER:03d}/{attempt_id:06d}"

    def generation(self, stage: int, number: int) -> str:
        """The folder of a generation's training set, relative to the root."""
        return f"generations/s{stage + 1}g{number:02d}"

    def potential(self, stage: int, number: int) -> str:
        """The folder of the potential that a generation trained, relative to the root."""
        return f"potentials/s{stage + 1}g{number:02d}"


def find_folder(start: Path | None) -> Folder:
    """The campaign folder that ``start`` (or the present directory) is, or lies in.

    Raises:
        MissingError: there is no pilot.toml here or above.
    """
    here = (start or Path.cwd()).absolute()
    for place in (here, *here.parents):
        if (place / "pilot.toml").is_file():
            return Folder(place)
        if start is not None:
            break
    raise MissingError(
        "this is not a campaign folder: it has no pilot.toml",
        where=str(here),
        next_step="`pilot init FOLDER` makes one; --folder names another",
    )
