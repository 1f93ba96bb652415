"""All nodes of the allocation, and where there is room. Pure: changing a :class:`Pool` changes nothing but itself."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import islice

from db.records import Resources
from pilot.scheduler.nodes import Node, Slot
from pilot.scheduler.ranking import Key, Ranking

#: For so many different resources the order of the nodes is remembered.
MOST = 64
#: For so many it is remembered when there will be room, and kept up to date by so many nodes at a time.
FORECASTS, AT_A_TIME = 8, 8


class Pool:
    """The nodes. Questions cost about the same for ten nodes and for a thousand."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        self._total = 0
        self._free = 0
        self._offers: dict[Resources, Ranking] = {}
        self._forecasts: dict[Resources, Ranking] = {}
        self._why_never: dict[Resources, str] = {}
        #: nodes that get nothing new, and why
        self.closed: dict[str, str] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """A node has joined; what is known of an earlier one of its name is forgotten."""
        self.remove(node.name)
        self.nodes[node.name] = node
        self._total += len(node.cores)
        self._free += node.free.count
        self._why_never.clear()
        self._touch(node.name)

    def remove(self, name: str) -> None:
        """A node is gone."""
        node = self.nodes.pop(name, None)
        if node is not None:
            self._total -= len(node.cores)
            self._free -= node.free.count
            self._why_never.clear()
            self._touch(name)

    def close(self, name: str, why: str) -> None:
        """A node gets nothing new from now on, not even if it is lost and comes back; what it holds it keeps."""
        self.closed[name] = why
        self._touch(name)

    def open(self, name: str) -> None:
        """A node may be used again."""
        if self.closed.pop(name, None) is not None:
            self._touch(name)

    def total_cores(self) -> int:
        """Cores of all nodes."""
        return self._total

    def is_full(self) -> bool:
        """Whether no node that is open has a free core: nothing can start, whatever it asks for."""
        closed = (self.nodes.get(name) for name in self.closed)
        return self._free == sum(node.free.count for node in closed if node is not None)

    def busy_cores(self) -> int:
        """Cores that slots hold."""
        return self._total - self._free

    def why_never(self, resources: Resources) -> str:
        """Why the nodes, even empty, cannot hold this; empty if they can."""
        if resources not in self._why_never:
            if len(self._why_never) >= 10 * MOST:
                self._why_never.clear()
            self._why_never[resources] = self._explain(resources)
        return self._why_never[resources]

    def why_not(self, resources: Resources) -> str:
        """Why this cannot start as things are, even if nothing ran; empty if it can."""
        never = self.why_never(resources)
        if never or not self.closed:
            return never
        enough = sum(1 for node in self._holders(resources) if node.name not in self.closed) >= resources.nodes
        named = "; ".join(f"node {name} ({why})" for name, why in self.closed.items() if name in self.nodes)
        return "" if enough else f"quarantined: {named}"

    def _explain(self, resources: Resources) -> str:
        holders = sum(1 for _ in islice(self._holders(resources), resources.nodes))
        if holders == resources.nodes:
            return ""
        asked = [f"{resources.cores_per_node} cores"]
        had = [f"{max((len(node.cores) for node in self.nodes.values()), default=0)} cores"]
        if resources.memory_mb:
            asked.append(f"{resources.memory_mb} MB")
            had.append(f"{max((node.memory_mb for node in self.nodes.values()), default=0)} MB")
        if resources.gpus:
            asked.append(f"{resources.gpus} GPUs")
            had.append(f"{max((len(node.gpus) for node in self.nodes.values()), default=0)} GPUs")
        if resources.nodes > 1:
            there = f"there {'is' if holders == 1 else 'are'} {holders or 'none'}"
            return f"needs {resources.nodes} nodes of {', '.join(asked)}; {there}"
        return f"needs {', '.join(asked)} on one node; the largest node has {', '.join(had)}"

    def _holders(self, resources: Resources) -> Iterable[Node]:
        return (node for node in self.nodes.values() if node.could_hold(resources))

    def most_memory(self, resources: Resources) -> tuple[int, int] | None:
        """What an attempt gets on a node at most as it is, and what it could get if it asked for all; None: nothing.

        An attempt over several nodes can have no more than the least of them.
        """
        holders = list(self._holders(resources))
        if len(holders) < resources.nodes:
            return None
        largest = sorted((node.memory_mb for node in holders), reverse=True)
        return max(node.memory_of(resources) for node in holders), largest[resources.nodes - 1]

    def has_room(self, resources: Resources) -> bool:
        """Whether there is room now."""
        return len(self._offers_for(resources).order()) >= resources.nodes

    def place(
        self, resources: Resources, *, ends_at: float | None = None, but: Collection[str] = frozenset()
    ) -> Slot | None:
        """A slot where it straddles the fewest domains, and among such nodes on the fullest.

        So emptier nodes stay free for larger tasks. All of a task's nodes are taken, or none.

        Args:
            resources: what is asked for.
            ends_at: when it is expected to be given back; None: nobody knows.
            but: nodes to leave alone.
        """
        order = self._offers_for(resources).order()
        if len(order) < resources.nodes:
            return None
        allowed = (name for _, name in order if name not in but)
        names = sorted(islice(allowed, resources.nodes))
        if len(names) < resources.nodes:
            return None
        shares = tuple(self.nodes[name].take(resources, ends_at) for name in names)
        for share in shares:
            self._free -= len(share.cores)
            self._touch(share.node)
        return Slot(shares)

    def give_back(self, slot: Slot) -> None:
        """Take a slot back; its shares of nodes that are gone are forgotten."""
        for share in slot.shares:
            node = self.nodes.get(share.node)
            if node is not None and node.give_back(share):
                self._free += len(share.cores)
                self._touch(share.node)

    def forecast(self, resources: Resources) -> Ranking:
        """The nodes that could hold this, by when they will have room (before any time: now), emptier ones first."""
        return self._recall(self._forecasts, resources, self._room_from, FORECASTS)

    def _room_from(self, resources: Resources, name: str) -> Key | None:
        node = self._open_node(name)
        from_s = None if node is None else node.room_from(resources)
        return None if node is None or from_s is None else (from_s, -node.free.count)

    def expect(self, resources: Resources) -> None:
        """Sooner or later somebody may ask for the forecast: begin it, if there are not many yet."""
        if resources not in self._forecasts and len(self._forecasts) < FORECASTS:
            self.forecast(resources)

    def catch_up(self) -> None:
        """Bring the forecasts nearer to what is: asked at each event, none has to look at all nodes at once."""
        for ranking in self._forecasts.values():
            ranking.catch_up(AT_A_TIME)

    def _offers_for(self, resources: Resources) -> Ranking:
        return self._recall(self._offers, resources, self._fit, MOST)

    def _fit(self, resources: Resources, name: str) -> Key | None:
        node = self._open_node(name)
        return None if node is None else node.fit(resources)

    def _open_node(self, name: str) -> Node | None:
        return None if name in self.closed else self.nodes.get(name)

    def _recall(
        self,
        known: dict[Resources, Ranking],
        resources: Resources,
        key: Callable[[Resources, str], Key | None],
        most: int,
    ) -> Ranking:
        ranking = known.pop(resources, None) or Ranking(self.nodes, partial(key, resources))
        # what was asked for last is last, and what was not asked for longest is forgotten
        known[resources] = ranking
        if len(known) > most:
            del known[next(iter(known))]
        return ranking

    def _touch(self, name: str) -> None:
        for ranking in self._offers.values():
            ranking.touch(name)
        for ranking in self._forecasts.values():
            ranking.touch(name)
