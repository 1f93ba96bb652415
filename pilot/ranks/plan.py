"""What the supervisor writes down for the ranks it starts: one file, read by each of them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from db.errors import MissingError, StorageError
from db.files import write_whole
from pilot.agent.messages import AgentSettings
from pilot.folder import Folder
from pilot.slurm.allocation import NodeGrant


@dataclass(frozen=True, slots=True)
class Plan:
    """A world that is to be.

    Attributes:
        nonce: of the lease under which the manager writes.
        settings: for every agent.
        nodes: each node with what SLURM granted of it; one rank on each.
        silence_s: whoever is not heard for so long is lost.
        starts_at: of the allocation, seconds since 1970; None: not known.
        counts_from: until then, an earlier world has counted what is reserved.
        ends: when everything must be over, by what ends it.
        walltime_s, cores: what the command line wishes instead of pilot.toml.
    """

    nonce: str
    settings: AgentSettings
    nodes: dict[str, NodeGrant] = field(default_factory=dict)
    silence_s: float = 20.0
    starts_at: float | None = None
    counts_from: float | None = None
    ends: dict[str, float] = field(default_factory=dict)
    walltime_s: float | None = None
    cores: int | None = None

    def write(self, folder: Folder) -> Path:
        """Write it into the folder, under a name that no other world has; the plans of dead pilots go.

        Raises:
            StorageError: the disk is full.
        """
        for stale in folder.state.glob("world-*.json"):
            stale.unlink(missing_ok=True)
        path = folder.state / f"world-{self.settings.epoch}.json"
        write_whole(path, json.dumps(asdict(self)))
        return path


def read_plan(path: Path) -> Plan:
    """Read what :meth:`Plan.write` wrote.

    Raises:
        MissingError: it is not there: this node does not see the campaign's folder.
        StorageError: it is damaged, or of another version.
    """
    try:
        return _plan(json.loads(path.read_text()))
    except OSError as error:
        raise MissingError(
            f"this node does not see the campaign's folder: {error.strerror}",
            where=str(path),
            next_step="put the campaign on a disk that all nodes share",
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"the plan of this world is not readable: {error!r}",
            where=str(path),
            next_step="`pilot run` writes a new one; let all nodes use the same version of pilot",
        ) from error


def _plan(data: dict[str, Any]) -> Plan:
    settings = data["settings"] | {"mpi_extra": tuple(data["settings"]["mpi_extra"])}
    nodes = {name: _grant(grant) for name, grant in data["nodes"].items()}
    return Plan(**(data | {"settings": AgentSettings(**settings), "nodes": nodes}))


def _grant(data: dict[str, object]) -> NodeGrant:
    gpus = data["gpus"]
    return NodeGrant(**(data | {"gpus": tuple(gpus) if isinstance(gpus, list) else None}))  # type: ignore[arg-type]
