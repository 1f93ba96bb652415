"""Which cores of a node an attempt gets. Pure.

Cores that share a cache are near to each other, those at one memory bank (a NUMA domain) less so. An attempt gets its
cores in the smallest domain that has them, and there in as few parts as may be; the fullest domain that will do is
used, so that empty ones stay whole for what needs them whole. A rank goes before the attempt: where its threads can
share a cache, they do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: Levels, the finest first, each the groups of cores that are near to each other.
Levels = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """A part of a node: some of its leaves (the smallest groups, by number), and the parts it falls into."""

    leaves: tuple[int, ...]
    parts: tuple["Domain", ...] = ()

    def total(self, rooms: Sequence[int]) -> int:
        """What its leaves have together, of what each leaf has."""
        if len(self.leaves) == 1:
            return rooms[self.leaves[0]]
        return sum([rooms[leaf] for leaf in self.leaves])


class Layout:
    """How the cores of a node lie.

    Attributes:
        leaves: the smallest groups, each with its cores ascending; every core is in one of them.
        levels: the domains, the finest first; the last is the whole node alone.
        home: the leaf of each core.
        cores: all of them, leaf by leaf.
    """

    def __init__(self, cores: Iterable[int], levels: Levels = ()) -> None:
        leaves: list[tuple[int, ...]] = []
        # where one level cuts through the groups of another, the pieces count: so domains always nest
        coarsest_first = sorted(levels, key=len)
        groups_of = [{core: i for i, group in enumerate(level) for core in group} for level in coarsest_first]
        tree = _grow(sorted(cores), groups_of, leaves)
        by_height: dict[int, list[Domain]] = {}
        _measure(tree, by_height)
        self.leaves = tuple(leaves)
        self.levels = tuple(tuple(by_height[height]) for height in sorted(by_height))
        self.home = {core: leaf for leaf, group in enumerate(leaves) for core in group}
        self.cores = tuple(core for group in leaves for core in group)


def _grow(cores: Sequence[int], groups_of: list[dict[int, int]], leaves: list[tuple[int, ...]]) -> Domain:
    if not groups_of:
        leaves.append(tuple(cores))
        return Domain((len(leaves) - 1,))
    parts: dict[int, list[int]] = {}
    for core in cores:
        # cores that a level does not mention are a group of their own
        parts.setdefault(groups_of[0].get(core, -1), []).append(core)
    if len(parts) <= 1:
        return _grow(cores, groups_of[1:], leaves)
    grown = tuple(_grow(part, groups_of[1:], leaves) for part in parts.values())
    return Domain(tuple(leaf for domain in grown for leaf in domain.leaves), grown)


def _measure(domain: Domain, by_height: dict[int, list[Domain]]) -> int:
    height = max((_measure(part, by_height) + 1 for part in domain.parts), default=0)
    by_height.setdefault(height, []).append(domain)
    return height


class Fit(NamedTuple):
    """How well an attempt fits: the better, the smaller.

    Attributes:
        split: whether the threads of some rank have to be in different leaves.
        height: of the smallest domain that has the cores: 0 is a leaf.
        domain: the fullest such domain.
    """

    split: bool
    height: int
    domain: Domain


class FreeCores:
    """The cores of a node that nobody holds."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._free = [list(leaf) for leaf in layout.leaves]
        self.count = len(layout.cores)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(core for leaf in self._free for core in leaf))

    def fit(self, ranks: int, threads: int) -> Fit | None:
        """The smallest domain for ``ranks`` of ``threads`` cores each; None if too few cores are free."""
        if ranks * threads > self.count:
            return None
        sizes = [len(leaf) for leaf in self._free]
        whole = sizes if threads == 1 else [size // threads for size in sizes]
        for split, rooms, wanted in ((False, whole, ranks), (True, sizes, ranks * threads)):
            for height, level in enumerate(self._layout.levels):
                fitting = [domain for domain in level if domain.total(rooms) >= wanted]
                if fitting:
                    return Fit(split, height, min(fitting, key=lambda domain: domain.total(sizes)))
        return None

    def take(self, ranks: int, threads: int) -> tuple[int, ...]:
        """Take the cores for ``ranks`` of ``threads`` cores each, rank after rank; the caller has asked :meth:`fit`."""
        count = ranks * threads
        if count == len(self._layout.cores) and all(len(leaf) % threads == 0 for leaf in self._free):
            self._free = [[] for _ in self._free]
            self.count = 0
            return self._layout.cores
        fit = self.fit(ranks, threads)
        assert fit is not None, f"{count} cores were taken of {self.count}"
        unit = 1 if fit.split else threads
        chosen: dict[int, int] = {}
        _divide(fit.domain, count // unit, [len(leaf) // unit for leaf in self._free], chosen)
        whole: list[int] = []
        pieces: list[int] = []
        for leaf in sorted(chosen):
            cores = neighbours(self._free[leaf], chosen[leaf] * unit, threads)
            taken = set(cores)
            self._free[leaf] = [core for core in self._free[leaf] if core not in taken]
            cut = len(cores) - len(cores) % threads
            whole += cores[:cut]
            pieces += cores[cut:]
        self.count -= count
        return (*whole, *pieces)

    def give_back(self, cores: tuple[int, ...]) -> None:
        """Cores are free again."""
        self.count += len(cores)
        if len(cores) == len(self._layout.cores):
            self._free = [list(leaf) for leaf in self._layout.leaves]
            return
        touched = set()
        for core in cores:
            leaf = self._layout.home[core]
            self._free[leaf].append(core)
            touched.add(leaf)
        for leaf in touched:
            self._free[leaf].sort()


def _divide(domain: Domain, wanted: int, rooms: Sequence[int], chosen: dict[int, int]) -> None:
    """Note in ``chosen`` how much each leaf of a domain is to give."""
    if not domain.parts:
        chosen[domain.leaves[0]] = wanted
        return
    for part, share in zip(domain.parts, spread([part.total(rooms) for part in domain.parts], wanted), strict=True):
        if share:
            _divide(part, share, rooms, chosen)


def spread(rooms: Sequence[int], wanted: int) -> list[int]:
    """``wanted`` over as few rooms as may be: the largest are used up, the rest goes where it fits best."""
    shares = [0] * len(rooms)
    for room, index in sorted(((-room, index) for index, room in enumerate(rooms))):
        if wanted <= -room:
            best = min((room, index) for index, room in enumerate(rooms) if room >= wanted and not shares[index])
            shares[best[1]] = wanted
            return shares
        shares[index] = -room
        wanted += room
    return shares


def neighbours(free: Sequence[int], count: int, threads: int) -> list[int]:
    """``count`` cores of ``free`` (ascending), rank after rank, neighbours by number where that is possible.

    The shortest run that has them all leaves long runs whole; else the cores of each rank are neighbours, in as
    few runs as may be; what is left over is at the end.
    """
    runs: list[list[int]] = []
    for core in free:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    fitting = [run for run in runs if len(run) >= count]
    if fitting:
        return min(fitting, key=len)[:count]
    ranks_in = spread([len(run) // threads for run in runs], count // threads)
    chosen = [core for run, ranks in zip(runs, ranks_in, strict=True) for core in run[: ranks * threads]]
    taken = set(chosen)
    return chosen + [core for core in free if core not in taken][: count - len(chosen)]
