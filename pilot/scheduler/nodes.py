"""What the nodes have and what of it is free. Pure: changing a :class:`Pool` changes nothing but itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from db.records import Resources


@dataclass(frozen=True, slots=True)
class Slot:
    """The cores, GPUs and memory of a node that one attempt holds."""

    node: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    memory_mb: int


@dataclass(slots=True)
class Node:
    """A node and what of it is free.

    Attributes:
        cores: all core ids that are ours, ascending.
        free_cores: those that no slot holds, ascending.
    """

    name: str
    cores: tuple[int, ...]
    memory_mb: int
    gpus: tuple[int, ...] = ()
    free_cores: list[int] = field(default_factory=list)
    free_gpus: list[int] = field(default_factory=list)
    free_memory_mb: int = 0

    def __post_init__(self) -> None:
        self.cores = tuple(sorted(self.cores))
        self.free_cores = list(self.cores)
        self.free_gpus = sorted(self.gpus)
        self.free_memory_mb = self.memory_mb

    def memory_of(self, resources: Resources) -> int:
        """The memory that a slot for ``resources`` takes: what is asked for, or the share of its cores."""
        return resources.memory_mb or self.memory_mb * resources.cores // max(1, len(self.cores))

    def could_hold(self, resources: Resources) -> bool:
        """Whether the node, empty, has what is asked for."""
        return (
            resources.cores <= len(self.cores)
            and resources.gpus <= len(self.gpus)
            and self.memory_of(resources) <= self.memory_mb
        )

    def can_hold_now(self, resources: Resources) -> bool:
        """Whether what is free is enough."""
        return (
            resources.cores <= len(self.free_cores)
            and resources.gpus <= len(self.free_gpus)
            and self.memory_of(resources) <= self.free_memory_mb
        )

    def take(self, resources: Resources) -> Slot:
        """Hand out a slot; the caller has asked :meth:`can_hold_now`."""
        cores = _neighbouring(self.free_cores, resources.cores)
        taken = set(cores)
        self.free_cores = [core for core in self.free_cores if core not in taken]
        gpus = tuple(self.free_gpus[: resources.gpus])
        del self.free_gpus[: resources.gpus]
        memory = self.memory_of(resources)
        self.free_memory_mb -= memory
        return Slot(self.name, cores, gpus, memory)

    def give_back(self, slot: Slot) -> None:
        """Take a slot back."""
        self.free_cores = sorted([*self.free_cores, *slot.cores])
        self.free_gpus = sorted([*self.free_gpus, *slot.gpus])
        self.free_memory_mb += slot.memory_mb


def _neighbouring(free: list[int], count: int) -> tuple[int, ...]:
    """``count`` cores of ``free`` (ascending): the shortest run of neighbours that has them, else the lowest.

    The shortest run leaves long runs whole for larger tasks.
    """
    runs: list[list[int]] = []
    for core in free:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    fitting = [run for run in runs if len(run) >= count]
    chosen = min(fitting, key=len) if fitting else free
    return tuple(chosen[:count])


class Pool:
    """All nodes of the allocation."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[str, Node] = {node.name: node for node in nodes}

    def add(self, node: Node) -> None:
        """A node has joined."""
        self.nodes[node.name] = node

    def remove(self, name: str) -> None:
        """A node is gone."""
        self.nodes.pop(name, None)

    def total_cores(self) -> int:
        """Cores of all nodes."""
        return sum(len(node.cores) for node in self.nodes.values())

    def is_full(self) -> bool:
        """Whether no node has a free core: nothing can start, whatever it asks for."""
        return not any(node.free_cores for node in self.nodes.values())

    def busy_cores(self) -> int:
        """Cores that slots hold."""
        return sum(len(node.cores) - len(node.free_cores) for node in self.nodes.values())

    def why_never(self, resources: Resources) -> str:
        """Why no node, even empty, can hold this; empty if one can."""
        if any(node.could_hold(resources) for node in self.nodes.values()):
            return ""
        most_cores = max((len(node.cores) for node in self.nodes.values()), default=0)
        most_memory = max((node.memory_mb for node in self.nodes.values()), default=0)
        most_gpus = max((len(node.gpus) for node in self.nodes.values()), default=0)
        asked = [f"{resources.cores} cores"]
        had = [f"{most_cores} cores"]
        if resources.memory_mb:
            asked.append(f"{resources.memory_mb} MB")
            had.append(f"{most_memory} MB")
        if resources.gpus:
            asked.append(f"{resources.gpus} GPUs")
            had.append(f"{most_gpus} GPUs")
        return f"needs {', '.join(asked)} on one node; the largest node has {', '.join(had)}"

    def place(self, resources: Resources, *, but: str | None = None) -> Slot | None:
        """A slot on the fullest node that can hold it now, so that emptier nodes stay free for larger tasks.

        Args:
            resources: what is asked for.
            but: a node to leave alone.
        """
        fitting = [node for node in self.nodes.values() if node.name != but and node.can_hold_now(resources)]
        if not fitting:
            return None
        return min(fitting, key=lambda node: (len(node.free_cores), node.name)).take(resources)

    def give_back(self, slot: Slot) -> None:
        """Take a slot back; that of a node which is gone is forgotten."""
        if slot.node in self.nodes:
            self.nodes[slot.node].give_back(slot)
