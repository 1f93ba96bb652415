"""What a node has and what of it is free. Pure."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from db.records import Resources, Share
from pilot.scheduler.cores import FreeCores, Layout, Levels


@dataclass(frozen=True, slots=True)
class Slot:
    """What one attempt holds: a share of each of its nodes, that of the head first."""

    shares: tuple[Share, ...]

    @property
    def node(self) -> str:
        """The name of the head."""
        return self.shares[0].node

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of all its nodes, the head first."""
        return tuple(share.node for share in self.shares)

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores of all shares together, each numbered by its own node."""
        return tuple(core for share in self.shares for core in share.cores)

    @property
    def gpus(self) -> tuple[int, ...]:
        """The GPUs of the head."""
        return self.shares[0].gpus

    @property
    def memory_mb(self) -> int:
        """The memory of the head."""
        return self.shares[0].memory_mb


@dataclass(frozen=True, slots=True)
class Held:
    """A share in use, and when it is expected to be free again (None: nobody knows)."""

    share: Share
    ends_at: float | None


@dataclass(slots=True)
class Node:
    """A node and what of it is free.

    Attributes:
        cores: all core ids that are ours, ascending.
        domains: levels, the finest first, each the groups of cores that share a cache or a memory bank; empty:
            cores are near to each other when their numbers are.
        free: the cores that no share holds.
        held: the shares in use, each by the first of its cores.
    """

    name: str
    cores: tuple[int, ...]
    memory_mb: int
    gpus: tuple[int, ...] = ()
    domains: Levels = ()
    free: FreeCores = field(init=False)
    free_gpus: list[int] = field(init=False)
    free_memory_mb: int = field(init=False)
    held: dict[int, Held] = field(init=False)
    _ends: list[tuple[float, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.cores = tuple(sorted(self.cores))
        self.free = FreeCores(Layout(self.cores, self.domains))
        self.free_gpus = sorted(self.gpus)
        self.free_memory_mb = self.memory_mb
        self.held = {}
        self._ends = []

    @property
    def free_cores(self) -> list[int]:
        """The cores that no share holds, ascending; ``free.count`` is quicker if only their number is asked for."""
        return list(self.free)

    def memory_of(self, resources: Resources) -> int:
        """The memory that a share for ``resources`` takes: what is asked for, or the share of its cores."""
        return resources.memory_mb or self.memory_mb * resources.cores_per_node // max(1, len(self.cores))

    def could_hold(self, resources: Resources) -> bool:
        """Whether the node, empty, has what is asked for on each node."""
        return (
            resources.cores_per_node <= len(self.cores)
            and resources.gpus <= len(self.gpus)
            and self.memory_of(resources) <= self.memory_mb
        )

    def can_hold_now(self, resources: Resources) -> bool:
        """Whether what is free is enough."""
        return (
            resources.cores_per_node <= self.free.count
            and resources.gpus <= len(self.free_gpus)
            and self.memory_of(resources) <= self.free_memory_mb
        )

    def fit(self, resources: Resources) -> tuple[int, int, int] | None:
        """How well it would fit now, the smaller the better; None: there is no room.

        First counts that no rank straddles domains, then in how small a domain the whole has room, then how
        full the node is already.
        """
        if not self.can_hold_now(resources):
            return None
        fit = self.free.fit(_ranks_here(resources), resources.threads)
        return None if fit is None else (int(fit.split), fit.height, self.free.count)

    def room_from(self, resources: Resources) -> float | None:
        """When there will be room, as far as is known: before any time if there is now; None: never.

        An attempt whose end nobody knows may end at any moment: it adds no time, so that nothing passes on the
        strength of a long wait that may be short.
        """
        if not self.could_hold(resources):
            return None
        cores, gpus, memory = self.free.count, len(self.free_gpus), self.free_memory_mb
        wanted_cores, wanted_memory = resources.cores_per_node, self.memory_of(resources)
        at = float("-inf")
        for ends_at, first_core in self._ends:
            if wanted_cores <= cores and resources.gpus <= gpus and wanted_memory <= memory:
                break
            at, share = ends_at, self.held[first_core].share
            cores += len(share.cores)
            gpus += len(share.gpus)
            memory += share.memory_mb
        return at

    def take(self, resources: Resources, ends_at: float | None = None) -> Share:
        """Hand out a share until ``ends_at`` or so; the caller has asked :meth:`can_hold_now`."""
        cores = self.free.take(_ranks_here(resources), resources.threads)
        gpus = tuple(self.free_gpus[: resources.gpus])
        del self.free_gpus[: resources.gpus]
        memory = self.memory_of(resources)
        self.free_memory_mb -= memory
        share = Share(self.name, cores, gpus, memory)
        self.held[cores[0]] = Held(share, ends_at)
        if ends_at is not None:
            insort(self._ends, (ends_at, cores[0]))
        return share

    def give_back(self, share: Share) -> bool:
        """Take a share back; False: it was of an earlier node of this name, and is forgotten."""
        held = self.held.get(share.cores[0])
        # an equal share may be in use by somebody else now
        if held is None or held.share is not share:
            return False
        del self.held[share.cores[0]]
        if held.ends_at is not None:
            del self._ends[bisect_left(self._ends, (held.ends_at, share.cores[0]))]
        self.free.give_back(share.cores)
        self.free_gpus = sorted([*self.free_gpus, *share.gpus])
        self.free_memory_mb += share.memory_mb
        return True


def _ranks_here(resources: Resources) -> int:
    return resources.ranks // resources.nodes
