"""The job that was handed in last, as far as nothing has come of it yet. Light: `pilot status` reads it."""

import json
from dataclasses import asdict, dataclass

from db.files import write_whole
from pilot import host
from pilot.folder import Folder
from pilot.snapshot import PilotStatus

_FILE = "submitted.json"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was handed in.

    Attributes:
        at: when, seconds since 1970.
        by: the job in which it was handed in, for a chain; empty: by a user.
    """

    job_id: str
    at: float
    by: str = ""


def remember(folder: Folder, job_id: str, by: str = "") -> None:
    """Write down that this job was handed in.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.make()
    write_whole(folder.state / _FILE, json.dumps(asdict(Submitted(job_id, host.now(), by))), durable=False)


def forget(folder: Folder) -> None:
    """It was taken out of the queue again."""
    (folder.state / _FILE).unlink(missing_ok=True)


def outstanding(folder: Folder, last: PilotStatus | None) -> Submitted | None:
    """The job that was handed in last, if no pilot has published anything since; whether it waits only SLURM knows.

    Args:
        folder: of the campaign.
        last: the pilot that published last.
    """
    try:
        job = Submitted(**json.loads((folder.state / _FILE).read_text()))
        if last is None or (last.job_id != job.job_id and (last.started_at < job.at or last.job_id == job.by)):
            return job
    except (OSError, ValueError, TypeError):
        # it only serves to say more; what is not there or not readable says nothing
        pass
    return None
