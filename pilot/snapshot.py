"""What the pilot publishes of itself: the content of state/status.json. Light: no numpy, no SQL, no ASE.

docs/status-schema.md describes it for programs; a change that breaks a reader raises :data:`SCHEMA`.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from db.errors import StorageError
from pilot.folder import Folder

SCHEMA = 1


@dataclass(slots=True)
class PilotStatus:
    """The pilot that published this. Times are seconds since 1970 UTC."""

    id: int
    state: str
    host: str
    pid: int
    job_id: str | None
    started_at: float
    ends_at: float | None = None
    remark: str = ""
    stop_at: float | None = None
    """While it drains: when what runs is asked to stop."""


@dataclass(slots=True)
class NodeStatus:
    """A node and how busy it is.

    ``lost`` says why it was written off, ``quarantined`` why it gets nothing new; empty where that is not so.
    """

    name: str
    cores: int
    busy_cores: int
    memory_mb: int
    lost: str = ""
    quarantined: str = ""


@dataclass(slots=True)
class RunningStatus:
    """A task that runs."""

    task: int
    kind: str
    name: str
    node: str
    cores: int
    started_at: float
    expected_s: float | None


@dataclass(slots=True)
class FailureStatus:
    """A task that failed for good."""

    task: int
    name: str
    why: str


@dataclass(slots=True)
class GenerationStatus:
    """One turn of the loop; None where something is not known yet. Units: Å, eV, eV/Å."""

    stage: int
    number: int
    outcome: str
    why: str
    explorations: int | None
    broke: int | None
    gamma_max: float | None
    gamma_mean: float | None
    preselected: int | None
    selected: int | None
    labels: int | None
    labelled: int | None
    labels_failed: int | None
    training_set: int | None
    holdout: dict[str, Any] | None
    worse: bool
    lattice_parameter: float | None


@dataclass(slots=True)
class CampaignStatus:
    """Where the campaign stands."""

    name: str
    stages: int
    stage: int
    generation: int
    state: str
    training_set: int
    lattice_parameter_dft: float | None
    generations: list[GenerationStatus]


@dataclass(slots=True)
class RoomStatus:
    """How many files pilots have made in the campaign folder, as quotas count them (folders too), and their bytes.

    Attributes:
        run_files, run_bytes: of the runs that have ended and have folders of their own, as they were at their ends.
        packed: runs that lie in archives.
        archives, archive_bytes: of these.
        other_files, other_bytes: what lies outside of runs/, counted now and then; None: not yet.
    """

    run_files: int = 0
    run_bytes: int = 0
    packed: int = 0
    archives: int = 0
    archive_bytes: int = 0
    other_files: int | None = None
    other_bytes: int | None = None


@dataclass(slots=True)
class Snapshot:
    """All that status shows.

    Attributes:
        tasks: kind → state → number.
        why_waiting: kind → reason → number.
    """

    at: float
    folder: str
    pilot: PilotStatus | None
    nodes: list[NodeStatus] = field(default_factory=list)
    tasks: dict[str, dict[str, int]] = field(default_factory=dict)
    why_waiting: dict[str, dict[str, int]] = field(default_factory=dict)
    running: list[RunningStatus] = field(default_factory=list)
    failures: list[FailureStatus] = field(default_factory=list)
    campaign: CampaignStatus | None = None
    useful_core_s: float = 0.0
    reserved_core_s: float = 0.0
    room: RoomStatus | None = None

    def to_json(self) -> str:
        """The text of status.json."""
        return json.dumps({"schema": SCHEMA} | asdict(self))


def read_snapshot(folder: Folder) -> Snapshot | None:
    """What was published last; None if nothing ever was.

    Raises:
        StorageError: it is of another schema, or not readable.
    """
    try:
        data = json.loads(folder.status.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(folder) from error
    if not isinstance(data, dict):
        raise _unreadable(folder)
    if data.pop("schema", None) != SCHEMA:
        raise StorageError(
            "the status was published by another version of pilot",
            where=str(folder.status),
            next_step="use the same version of pilot on the login node and in the allocation",
        )
    try:
        return _snapshot(data)
    except (LookupError, TypeError) as error:
        raise _unreadable(folder) from error


def last_snapshot(folder: Folder) -> Snapshot | None:
    """As :func:`read_snapshot`, for who can do without: None also if it cannot be read (a loss of power, say)."""
    try:
        return read_snapshot(folder)
    except StorageError:
        return None


def _unreadable(folder: Folder) -> StorageError:
    return StorageError(
        "the status is not readable",
        where=str(folder.status),
        next_step=f"remove {folder.status}: the pilot publishes it again",
    )


def _snapshot(data: dict[str, Any]) -> Snapshot:
    campaign = data["campaign"]
    if campaign is not None:
        campaign["generations"] = [GenerationStatus(**entry) for entry in campaign["generations"]]
        campaign = CampaignStatus(**campaign)
    return Snapshot(
        **data
        | {
            "pilot": None if data["pilot"] is None else PilotStatus(**data["pilot"]),
            "nodes": [NodeStatus(**entry) for entry in data["nodes"]],
            "running": [RunningStatus(**entry) for entry in data["running"]],
            "failures": [FailureStatus(**entry) for entry in data["failures"]],
            "campaign": campaign,
            "room": None if data.get("room") is None else RoomStatus(**data["room"]),
        }
    )
