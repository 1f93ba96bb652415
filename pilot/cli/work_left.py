"""Whether another allocation would find anything to do, judged by what was published last."""

import contextlib

from db.errors import StorageError
from pilot.cli.headline import count
from pilot.config import Config
from pilot.folder import Folder
from pilot.mailbox import waiting_requests
from pilot.snapshot import Snapshot, read_snapshot

_DOOMED = "can never start"


def published(folder: Folder) -> Snapshot | None:
    """The last snapshot; None if there is none that can be read."""
    with contextlib.suppress(StorageError):
        return read_snapshot(folder)
    return None


def why_nothing_is_left(folder: Folder, config: Config) -> str:
    """Why another allocation would do nothing; empty when there is work, or when that cannot be known from here."""
    if waiting_requests(folder)[0]:
        return ""
    if not folder.status.exists():
        return "" if config.campaign is not None else "no task was added yet, and pilot.toml describes no campaign"
    snapshot = published(folder)
    if snapshot is None or folder.config.stat().st_mtime > snapshot.at:
        # a pilot.toml that was changed since may have given more to do
        return ""
    return _judge(snapshot, campaign=config.campaign is not None)


def _judge(snapshot: Snapshot, *, campaign: bool) -> str:
    if campaign and snapshot.campaign is None:
        # it has not begun
        return ""
    if snapshot.pilot is not None and snapshot.pilot.state != "ended":
        # it works still, or it died and its attempts are yet to be judged
        return ""
    doomed = sum(
        number
        for reasons in snapshot.why_waiting.values()
        for reason, number in reasons.items()
        if reason.startswith(_DOOMED)
    )
    if count(snapshot, "waiting", "ready", "running") > doomed:
        return ""
    state = "" if snapshot.campaign is None else f", and the campaign has ended: {snapshot.campaign.state}"
    hopeless = f"; {doomed} can never start, as what they need has failed" if doomed else ""
    return f"all tasks have ended{hopeless}{state}"


def ended_tasks(folder: Folder) -> int:
    """How many tasks had ended when it was last published: what a chain of allocations is measured by."""
    snapshot = published(folder)
    return 0 if snapshot is None else count(snapshot, "done", "failed", "cancelled")
