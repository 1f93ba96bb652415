"""Which scalar functions make up the basis of a moment tensor potential: contraction graphs.

A moment M_{μ,ν} is a symmetric tensor of rank ν (Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002
(2021), equations 2–6). A product of moments that is contracted to a scalar is a multigraph: a vertex of
degree ν and colour μ for each moment, an edge for each contracted pair of indices. Two products are the
same function when their graphs are isomorphic. An edge from a vertex to itself would be a trace, and the
trace of r⊗r is |r|², which is radial, so there is none.

A *partial* contraction, which leaves a tensor, is a graph with holes: a hole stands for the rest of the
product and holds the legs that go to it.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

Moment = tuple[int, int]
"""(μ, ν): the number of the radial function and the rank."""

#: The papers give no such rule; it is inferred from their counts. All graphs up to level 12 are 32, up to level
#: 16 116, but the published potentials of 54 and 125 parameters have 29 and 92 functions: with at most four moments.
MOST_MOMENTS = 4


@dataclass(frozen=True)
class Graph:
    """A product of moments, contracted wholly (no holes) or in part.

    Attributes:
        moments: one for each vertex.
        bonds: ``bonds[v][w]`` is the number of index pairs contracted between the vertices v and w.
        holes: ``holes[h][v]`` is the number of legs from vertex v into hole h.
    """

    moments: tuple[Moment, ...]
    bonds: tuple[tuple[int, ...], ...]
    holes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Normal:
    """A graph in the form that all graphs isomorphic to it share.

    Attributes:
        graph: that form.
        slots: for each hole of the graph as it was given, the hole of ``graph`` that it went to.
        symmetries: the orders of the holes of ``graph`` that leave it the same.
    """

    graph: Graph
    slots: tuple[int, ...]
    symmetries: tuple[tuple[int, ...], ...]


def level_of(moment: Moment) -> int:
    """The level of one moment, 2 + 4μ + ν (Novikov et al., equation 5)."""
    return 2 + 4 * moment[0] + moment[1]


def is_single(legs: tuple[int, ...]) -> bool:
    """Whether all legs of a hole come from one vertex."""
    return sum(1 for count in legs if count) == 1


@functools.cache
def normal(graph: Graph) -> Normal:
    """Bring a graph into its normal form.

    Holes whose legs all come from the same one vertex become one hole: its moment is symmetric, so only
    the sum of their indices matters.
    """
    merged, into = _merge(graph.holes)
    forms: dict[Graph, list[tuple[int, ...]]] = {}
    for vertices in _vertex_orders(graph.moments):
        renamed = [tuple(legs[v] for v in vertices) for legs in merged]
        for order in itertools.permutations(range(len(merged))):
            candidate = Graph(
                tuple(graph.moments[v] for v in vertices),
                tuple(tuple(graph.bonds[v][w] for w in vertices) for v in vertices),
                tuple(renamed[h] for h in order),
            )
            forms.setdefault(candidate, []).append(order)
    best = max(forms, key=_key)
    orders = forms[best]
    place = {hole: slot for slot, hole in enumerate(orders[0])}
    symmetries = {tuple(place[hole] for hole in order) for order in orders}
    return Normal(best, tuple(place[h] for h in into), tuple(sorted(symmetries)))


def scalars(level: int) -> list[Graph]:
    """All scalar functions whose level is at most ``level``, in the order of the basis.

    The order is by number of moments, then by the moments (largest first), then by the bonds; for the
    levels that the papers print it is theirs.
    """
    found: set[Graph] = set()
    for moments in _products(level):
        for bonds in _contractions(tuple(nu for _, nu in moments)):
            found.add(normal(Graph(moments, bonds)).graph)
    return sorted(found, key=lambda graph: (len(graph.moments), _key(graph)))


def split(graph: Graph) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All ways to cut the vertices of a graph into two parts, the smaller part first."""
    everything = range(len(graph.moments))
    for size in range(1, len(graph.moments) // 2 + 1):
        for part in itertools.combinations(everything, size):
            if 2 * size == len(graph.moments) and part[0] != 0:
                continue
            yield part, tuple(v for v in everything if v not in part)


def _merge(holes: tuple[tuple[int, ...], ...]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The holes after merging, and for each hole as it was the one that it went to."""
    merged: list[tuple[int, ...]] = []
    into: list[int] = []
    for legs in holes:
        owner = _owner(legs)
        same = [h for h, other in enumerate(merged) if owner is not None and _owner(other) == owner]
        if same:
            merged[same[0]] = tuple(a + b for a, b in zip(merged[same[0]], legs, strict=True))
            into.append(same[0])
        else:
            into.append(len(merged))
            merged.append(legs)
    return merged, into


def _owner(legs: tuple[int, ...]) -> int | None:
    return next(v for v, count in enumerate(legs) if count) if is_single(legs) else None


def _key(graph: Graph) -> tuple[tuple[Moment, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    return (graph.moments, graph.bonds, graph.holes)


def _vertex_orders(moments: tuple[Moment, ...]) -> Iterator[tuple[int, ...]]:
    """All orders of the vertices that leave their moments sorted, largest first."""
    ranked = sorted(range(len(moments)), key=lambda v: moments[v], reverse=True)
    groups = [list(group) for _, group in itertools.groupby(ranked, key=lambda v: moments[v])]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain.from_iterable(parts))


def _products(level: int) -> Iterator[tuple[Moment, ...]]:
    """All products of moments within ``level`` whose indices can be contracted in pairs."""
    moments = [(mu, nu) for mu in range(level) for nu in range(level) if level_of((mu, nu)) <= level]

    def extend(product: tuple[Moment, ...], left: int, start: int) -> Iterator[tuple[Moment, ...]]:
        ranks = [nu for _, nu in product]
        if product and sum(ranks) % 2 == 0 and 2 * max(ranks) <= sum(ranks):
            yield product
        if len(product) < MOST_MOMENTS:
            for i in range(start, len(moments)):
                if level_of(moments[i]) <= left:
                    yield from extend((*product, moments[i]), left - level_of(moments[i]), i)

    return extend((), level, 0)


def _contractions(degrees: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All symmetric matrices of bonds with these row sums and nothing on the diagonal."""
    size = len(degrees)
    pairs = list(itertools.combinations(range(size), 2))
    bonds = [[0] * size for _ in range(size)]
    free = list(degrees)

    def fill(position: int) -> Iterator[tuple[tuple[int, ...], ...]]:
        if position == len(pairs):
            if not any(free):
                yield tuple(tuple(row) for row in bonds)
            return
        v, w = pairs[position]
        last = w == size - 1
        for count in range(free[v] if last else 0, min(free[v], free[w]) + 1):
            bonds[v][w] = bonds[w][v] = count
            free[v] -= count
            free[w] -= count
            yield from fill(position + 1)
            free[v] += count
            free[w] += count
        bonds[v][w] = bonds[w][v] = 0

    return fill(0)
