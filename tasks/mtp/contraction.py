"""The evaluation program of a moment tensor potential: which moments to multiply and add, in which order.

The program is a list of steps (i, j, multiplicity, k), each of which adds multiplicity · m[i] · m[j] to
m[k]. It starts from the *basic* moments, the independent components of the tensors M_{μ,ν}, and ends with
the scalars of the basis. Contractions that leave tensors are made once and shared.

How components are counted. A hole with c legs has (c+1)(c+2)/2 components, one for each (x, y, z) with
x+y+z = c: how often each direction occurs among its legs. If all legs come from one moment, the tensor is
symmetric in them, and the component is the value of that element of the tensor. If they come from several,
the component is the *sum* over all distinct words of x letters X, y letters Y, z letters Z: this is what
the contraction with a symmetric tensor needs, and it keeps all multiplicities whole numbers.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.mtp.graphs import Graph, Normal, is_single, normal, split

Component = tuple[int, int, int]
"""How many legs point along x, y and z."""

Part = tuple[int, ...]
"""The vertices of a part of a graph."""


@functools.cache
def components(legs: int) -> tuple[Component, ...]:
    """All components of a hole with that many legs, x first."""
    return tuple((x, y, legs - x - y) for x in range(legs, -1, -1) for y in range(legs - x, -1, -1))


@dataclass(frozen=True)
class Cut:
    """One way to make a graph from two parts of it.

    The legs across the cut are gathered in holes of the first part, one hole for each vertex of the second
    part that they go to; so in the second part each of these holes has the legs of one vertex only.

    Attributes:
        first: the first part; its holes are those holes of the whole that it reaches, then the cut's.
        second: the second part, likewise.
        kept: for each hole of the whole, how many of its legs each part has.
        counted: for each hole of the whole, whether each part gives an element there where the sum over
            the words is wanted, so that its words must be counted.
        crossed: for each hole of the cut, its number of legs.
        weighted: the same as ``counted`` for each hole of the cut, for the first part.
    """

    first: Normal
    second: Normal
    kept: tuple[tuple[int, int], ...]
    counted: tuple[tuple[bool, bool], ...]
    crossed: tuple[int, ...]
    weighted: tuple[bool, ...]

    def steps(self) -> int:
        """How many steps it takes, before equal ones are joined."""
        ways = [len(components(a)) * len(components(b)) for a, b in self.kept]
        return math.prod(ways) * math.prod(len(components(c)) for c in self.crossed)


@functools.cache
def cuts(graph: Graph) -> tuple[Cut, ...]:
    """All ways to make a graph of two or more moments from two parts of it."""
    found = []
    for small, large in split(graph):
        crossing = any(graph.bonds[v][w] for v in small for w in large)
        found.append(_cut(graph, small, large))
        if crossing:
            found.append(_cut(graph, large, small))
    return tuple(found)


def _cut(graph: Graph, part: Part, rest: Part) -> Cut:
    across = [w for w in rest if any(graph.bonds[v][w] for v in part)]
    gathered = [tuple(graph.bonds[v][w] for v in part) for w in across]
    single = [tuple(sum(legs) if w == v else 0 for v in rest) for w, legs in zip(across, gathered, strict=True)]
    of_part = [tuple(legs[v] for v in part) for legs in graph.holes]
    of_rest = [tuple(legs[v] for v in rest) for legs in graph.holes]
    kept = tuple((sum(a), sum(b)) for a, b in zip(of_part, of_rest, strict=True))
    counted = tuple(
        (not is_single(whole) and is_single(a), not is_single(whole) and is_single(b))
        for whole, a, b in zip(graph.holes, of_part, of_rest, strict=True)
    )
    return Cut(
        first=_piece(graph, part, [legs for legs in of_part if any(legs)] + gathered),
        second=_piece(graph, rest, [legs for legs in of_rest if any(legs)] + single),
        kept=kept,
        counted=counted,
        crossed=tuple(sum(legs) for legs in gathered),
        weighted=tuple(is_single(legs) for legs in gathered),
    )


def _piece(graph: Graph, part: Part, holes: list[tuple[int, ...]]) -> Normal:
    return normal(
        Graph(
            tuple(graph.moments[v] for v in part),
            tuple(tuple(graph.bonds[v][w] for w in part) for v in part),
            tuple(holes),
        )
    )


def _words(component: Component) -> int:
    x, y, z = component
    return math.factorial(x + y + z) // (math.factorial(x) * math.factorial(y) * math.factorial(z))


@functools.cache
def _halves(whole: Component, legs: int) -> tuple[tuple[Component, Component], ...]:
    """All ways to give ``legs`` of the legs of a component to one part and the others to the other."""
    x, y, z = whole
    return tuple(
        (half, (x - half[0], y - half[1], z - half[2]))
        for half in components(legs)
        if half[0] <= x and half[1] <= y and half[2] <= z
    )


@dataclass
class Program:
    """A program that grows; see the module's text.

    Attributes:
        basic: (μ, x, y, z) of each basic moment.
        steps: (i, j, multiplicity, k).
        moments: how many moments there are by now.
    """

    basic: list[tuple[int, int, int, int]] = field(default_factory=list)
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    moments: int = 0
    _made: dict[Graph, dict[tuple[Component, ...], int]] = field(default_factory=dict)

    def add_basic(self, mu: int, nu: int) -> None:
        """Add the components of M_{μ,ν}; before any scalar."""
        holes = ((nu,),) if nu else ()
        own: dict[tuple[Component, ...], int] = {}
        for component in components(nu):
            own[(component,) if nu else ()] = self.moments
            self.basic.append((mu, *component))
            self.moments += 1
        self._made[Graph(((mu, nu),), ((0,),), holes)] = own

    def add(self, graph: Graph) -> int:
        """Add what is missing to evaluate a scalar, and return the index of its moment."""
        form = normal(graph)
        self._make(form)
        return self._made[form.graph][()]

    def _make(self, form: Normal) -> None:
        if form.graph in self._made:
            return
        cut = min(cuts(form.graph), key=self._price)
        self._make(cut.first)
        self._make(cut.second)
        own: dict[tuple[Component, ...], int] = {}
        for wanted in itertools.product(*(components(sum(legs)) for legs in form.graph.holes)):
            twin = min(tuple(wanted[h] for h in order) for order in form.symmetries)
            if twin in own:
                own[wanted] = own[twin]
                continue
            terms: Counter[tuple[int, int]] = Counter()
            for i, j, times in self._terms(cut, wanted):
                terms[min(i, j), max(i, j)] += times
            self.steps.extend((i, j, times, self.moments) for (i, j), times in terms.items())
            own[twin] = own[wanted] = self.moments
            self.moments += 1
        self._made[form.graph] = own

    def _price(self, cut: Cut) -> int:
        """How many steps a cut needs, with those of its parts that are not there yet."""
        pieces = {cut.first.graph, cut.second.graph}
        return cut.steps() + sum(
            min(self._price(inner) for inner in cuts(piece)) for piece in pieces if piece not in self._made
        )

    def _terms(self, cut: Cut, wanted: tuple[Component, ...]) -> Iterator[tuple[int, int, int]]:
        """The products that add up to one component, equal ones not yet joined."""
        shared = [_halves(whole, legs) for whole, (legs, _) in zip(wanted, cut.kept, strict=True)]
        for halves in itertools.product(*shared):
            times = 1
            for (a, b), (count_a, count_b) in zip(halves, cut.counted, strict=True):
                times *= (_words(a) if count_a else 1) * (_words(b) if count_b else 1)
            outer_a = [a for (a, _), (legs, _) in zip(halves, cut.kept, strict=True) if legs]
            outer_b = [b for (_, b), (_, legs) in zip(halves, cut.kept, strict=True) if legs]
            for across in itertools.product(*(components(legs) for legs in cut.crossed)):
                weight = math.prod(_words(c) for c, w in zip(across, cut.weighted, strict=True) if w)
                i = self._find(cut.first, [*outer_a, *across])
                j = self._find(cut.second, [*outer_b, *across])
                yield i, j, times * weight

    def _find(self, form: Normal, wanted: list[Component]) -> int:
        """The moment of a component of a tensor, its holes in the order in which they were asked for."""
        totals = [[0, 0, 0] for _ in form.graph.holes]
        for slot, component in zip(form.slots, wanted, strict=True):
            for axis in range(3):
                totals[slot][axis] += component[axis]
        return self._made[form.graph][tuple((x, y, z) for x, y, z in totals)]
