"""The records that the floors hand to each other. Pure: tuples and numbers, no numpy, no SQL.

Units everywhere: Å, eV, eV/Å, eV/Å³, s, MB (10⁶ bytes), K, bar. Stress has ASE's sign (negative under
compression) and Voigt order xx, yy, zz, yz, xz, xy.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from db.states import EdgeKind, Event, TaskKind, TaskState, Verdict

Vector = tuple[float, float, float]
Json = Mapping[str, Any]

#: among the facts of an attempt: it was interrupted as its node, its launcher or its pilot was lost
LOST = "lost"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt holds while it runs.

    Attributes:
        ranks: MPI processes of the whole attempt.
        threads: cores of each rank.
        gpus: GPUs on each of its nodes.
        memory_mb: memory on each of its nodes; 0 means "its share by cores".
        nodes: over so many nodes the ranks are spread, as many on each.
    """

    ranks: int = 1
    threads: int = 1
    gpus: int = 0
    memory_mb: int = 0
    nodes: int = 1

    @property
    def cores(self) -> int:
        """Cores of the whole attempt."""
        return self.ranks * self.threads

    @property
    def cores_per_node(self) -> int:
        """Cores on each of its nodes."""
        return self.cores // self.nodes


@dataclass(frozen=True, slots=True)
class Share:
    """What one attempt holds on one node; cores and GPUs as that node numbers them."""

    node: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()
    memory_mb: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"node": self.node, "cores": list(self.cores), "gpus": list(self.gpus), "memory_mb": self.memory_mb}

    @classmethod
    def from_json(cls, data: Json) -> "Share":
        """The inverse of :meth:`to_json`."""
        return cls(str(data["node"]), tuple(data["cores"]), tuple(data["gpus"]), int(data["memory_mb"]))


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be inserted.

    Attributes:
        kind: what kind of work it is.
        engine: the name under which ``tasks.registry`` finds the module that knows how to do it.
        name: what people see.
        spec: what the engine needs to know; JSON.
        key: unique in the folder; inserting a key that is there already changes nothing.
        priority: higher starts earlier.
        size: how large it is among tasks of its kind (atoms, steps × atoms): times are learned by kind and size.
        time_request_s: what it is expected to need; None: learned, or the default of its kind.
        time_limit_s: what kills it when it hangs; None: no limit.
        generation: the generation that it belongs to.
        after: the tasks it needs: keys (str) of tasks in the same batch or ids (int) of tasks in the
            database, each with the kind of the edge.
    """

    kind: TaskKind
    engine: str
    name: str
    spec: Json
    key: str | None = None
    priority: int = 0
    resources: Resources = Resources()
    size: int = 0
    time_request_s: float | None = None
    time_limit_s: float | None = None
    generation: int | None = None
    after: tuple[tuple[str | int, EdgeKind], ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the database has it.

    ``tries`` counts the attempts that failed by themselves since it was added or revived, by verdict.
    """

    id: int
    kind: TaskKind
    engine: str
    name: str
    state: TaskState
    spec: Json
    key: str | None = None
    priority: int = 0
    resources: Resources = Resources()
    size: int = 0
    time_request_s: float | None = None
    time_limit_s: float | None = None
    generation: int | None = None
    added_at: float = 0.0
    tries: Mapping[Verdict, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edge:
    """``child`` needs ``parent``."""

    child: int
    parent: int
    kind: EdgeKind = EdgeKind.DONE


@dataclass(frozen=True, slots=True)
class Transition:
    """A task goes from one state to another; recorded before it is acted on."""

    task_id: int
    event: Event
    before: TaskState
    after: TaskState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a task.

    ``node``, ``cores`` and ``gpus`` are where its head runs; ``others`` is what it holds on further nodes. Times are
    seconds since 1970 UTC; ``ended_at`` is None while it runs. ``facts`` are small numbers that the engine
    read off the run (energy, number of SCF steps, highest γ, …). From a ``resumable`` one, which was interrupted, the
    next attempt can go on. ``archive`` is the file, relative to the campaign folder, into which its folder was
    packed; "": it was not. ``files`` and ``bytes`` are what its folder held at its end.
    """

    id: int
    task_id: int
    pilot_id: int
    number: int
    node: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    directory: str
    started_at: float
    others: tuple[Share, ...] = ()
    ended_at: float | None = None
    verdict: Verdict | None = None
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    facts: Json = field(default_factory=dict)
    resumable: bool = False
    archive: str = ""
    files: int = 0
    bytes: int = 0

    @property
    def all_cores(self) -> int:
        """How many cores it holds on all its nodes together."""
        return len(self.cores) + sum(len(share.cores) for share in self.others)


@dataclass(frozen=True, slots=True)
class Structure:
    """A configuration of atoms.

    Attributes:
        numbers: atomic number of each atom.
        positions: Cartesian, Å, one row an atom.
        cell: three rows, Å; zero rows where it is not periodic.
        pbc: periodic or not, along each row of the cell.
    """

    numbers: tuple[int, ...]
    positions: tuple[Vector, ...]
    cell: tuple[Vector, Vector, Vector]
    pbc: tuple[bool, bool, bool] = (True, True, True)

    def content_hash(self) -> str:
        """The same for the same configuration to 10⁻⁸ Å, whatever its source."""
        # + 0.0 turns -0.0 into 0.0
        content = [
            self.numbers,
            [[round(x, 8) + 0.0 for x in row] for row in self.positions],
            [[round(x, 8) + 0.0 for x in row] for row in self.cell],
            self.pbc,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "numbers": list(self.numbers),
            "positions": [list(row) for row in self.positions],
            "cell": [list(row) for row in self.cell],
            "pbc": list(self.pbc),
        }

    @classmethod
    def from_json(cls, data: Json) -> "Structure":
        """The inverse of :meth:`to_json`."""
        cell = [_vector(row) for row in data["cell"]]
        return cls(
            numbers=tuple(int(z) for z in data["numbers"]),
            positions=tuple(_vector(row) for row in data["positions"]),
            cell=(cell[0], cell[1], cell[2]),
            pbc=(bool(data["pbc"][0]), bool(data["pbc"][1]), bool(data["pbc"][2])),
        )


@dataclass(frozen=True, slots=True)
class Label:
    """What a reference calculation says of a structure.

    Attributes:
        energy: of the whole cell, eV, consistent with the forces (the free energy where smearing is used).
        forces: eV/Å, one row an atom.
        stress: eV/Å³, ASE's sign and Voigt order; None where the cell is not periodic in three directions.
    """

    energy: float
    forces: tuple[Vector, ...]
    stress: tuple[float, float, float, float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        stress = None if self.stress is None else list(self.stress)
        return {"energy": self.energy, "forces": [list(row) for row in self.forces], "stress": stress}

    @classmethod
    def from_json(cls, data: Json) -> "Label":
        """The inverse of :meth:`to_json`."""
        s = data["stress"]
        return cls(
            energy=float(data["energy"]),
            forces=tuple(_vector(row) for row in data["forces"]),
            stress=None if s is None else (s[0], s[1], s[2], s[3], s[4], s[5]),
        )


def _vector(row: Any) -> Vector:
    x, y, z = row
    return (float(x), float(y), float(z))
