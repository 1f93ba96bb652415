"""Nodes in an order that follows their changes. Pure.

What one event changes is one node, or a few: only those are looked at again, and only when somebody asks. So a
decision among a thousand nodes costs what a node costs and a search by halves. (To move the thousand references of
the list behind an insertion takes the processor a fraction of a microsecond.)
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence

Key = tuple[float, ...]


class Ranking:
    """Names of nodes by a key, the smallest first.

    Args:
        names: the nodes that there are.
        key: the key of a node as it is now; None leaves it out.
    """

    def __init__(self, names: Iterable[str], key: Callable[[str], Key | None]) -> None:
        self._key = key
        self._stale = set(names)
        self._keys: dict[str, Key] = {}
        self._order: list[tuple[Key, str]] = []

    def touch(self, name: str) -> None:
        """A node has changed, has come or is gone."""
        self._stale.add(name)

    def order(self) -> Sequence[tuple[Key, str]]:
        """The keys and names as they are now; not to be changed, and not to be kept."""
        while self._stale:
            self._renew(self._stale.pop())
        return self._order

    def catch_up(self, most: int) -> None:
        """Look at ``most`` of the nodes that have changed, though nobody asks: so that not all wait for who does."""
        for _ in range(min(most, len(self._stale))):
            self._renew(self._stale.pop())

    def key_of(self, name: str) -> Key | None:
        """The key of a node when the order was asked for last; None: it is not in there."""
        return self._keys.get(name)

    def _renew(self, name: str) -> None:
        old, new = self._keys.get(name), self._key(name)
        if old == new:
            return
        if old is not None:
            del self._keys[name]
            del self._order[bisect_left(self._order, (old, name))]
        if new is not None:
            self._keys[name] = new
            insort(self._order, (new, name))
