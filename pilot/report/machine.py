"""What became of the machine's time: by step, by allocation, on the nodes; failures; times of DFT runs. Pure."""

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilot.report.records import Ran, Records

#: the order in which kinds are drawn
KINDS = ("label", "train", "explore", "select", "evaluate", "command")
#: what became of the time of an attempt
FATES = ("useful", "interrupted", "failed", "under way")


def fate(ran: Ran) -> str:
    """Useful (done, or gone on from), interrupted (run again), failed, or under way."""
    if ran.verdict == "done" or ran.resumable:
        return "useful"
    if not ran.verdict:
        return "under way"
    return "interrupted" if ran.verdict == "interrupted" else "failed"


def core_hours(ran: Sequence[Ran], now: float) -> dict[tuple[str, str], float]:
    """(kind, fate) → core-hours."""
    found: dict[tuple[str, str], float] = {}
    for each in ran:
        key = (each.kind, fate(each))
        found[key] = found.get(key, 0.0) + each.core_s(now) / 3600.0
    return found


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts of a kind with the same verdict; ``example`` is the reason that most of them gave."""

    kind: str
    verdict: str
    attempts: int
    core_h: float
    example: str


def failures(ran: Sequence[Ran], now: float) -> list[Failures]:
    """By kind and verdict, the most frequent first; interruptions among them, marked by their verdict."""
    groups: dict[tuple[str, str], list[Ran]] = {}
    for each in ran:
        if each.verdict not in {"", "done"}:
            groups.setdefault((each.kind, each.verdict), []).append(each)
    found = []
    for (kind, verdict), members in groups.items():
        reasons = Counter(member.reason for member in members if member.reason)
        example = reasons.most_common(1)[0][0] if reasons else ""
        found.append(Failures(kind, verdict, len(members), sum(m.core_s(now) for m in members) / 3600.0, example))
    return sorted(found, key=lambda one: (-one.attempts, one.kind, one.verdict))


def label_times(ran: Sequence[Ran]) -> dict[int, list[float]]:
    """Atoms → core-seconds of each successful reference calculation."""
    found: dict[int, list[float]] = {}
    for each in ran:
        if each.kind == "label" and each.verdict == "done" and each.wall_s is not None:
            found.setdefault(each.size, []).append(each.cores * each.wall_s)
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Clock:
    """Time with what lies between allocations left out.

    Attributes:
        spans: from when to when somebody held nodes, s since 1970, in order and apart.
        begins: hours before each span.
    """

    spans: tuple[tuple[float, float], ...]
    begins: tuple[float, ...]

    def hours(self, at: float) -> float:
        """Hours of allocation until then."""
        place = max(bisect.bisect_right(self.spans, (at, float("inf"))) - 1, 0)
        start, end = self.spans[place]
        return self.begins[place] + (min(max(at, start), end) - start) / 3600.0

    @property
    def length(self) -> float:
        """Hours of all spans."""
        start, end = self.spans[-1]
        return self.begins[-1] + (end - start) / 3600.0


#: pauses shorter than this part of the whole are no gaps
_PAUSE = 0.002


def clock(records: Records) -> Clock | None:
    """The clock of a folder; None if no pilot has lived."""
    spans = sorted(
        (pilot["started_at"], max(pilot["ended_at"] or pilot["seen_at"] or records.now, pilot["started_at"]))
        for pilot in records.pilots
    )
    # what a lost pilot had running ended after it was last seen
    spans += [(ran.started_at, ran.until(records.now)) for ran in records.ran]
    spans.sort()
    if not spans:
        return None
    whole = sum(end - start for start, end in spans[:1]) + spans[-1][1] - spans[0][0]
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] + _PAUSE * whole:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    begins, hours = [], 0.0
    for start, end in merged:
        begins.append(hours)
        hours += (end - start) / 3600.0
    return Clock(tuple(merged), tuple(begins))


@dataclass(slots=True)
class Lane:
    """A node in a timeline.

    Attributes:
        cores: that it has; at least the most that were busy at once.
        busy: kind → mean number of busy cores in each bin.
    """

    node: str
    cores: int
    busy: dict[str, list[float]] = field(default_factory=dict)

    def total(self) -> float:
        """To compare nodes by how much they did."""
        return sum(sum(values) for values in self.busy.values())


def node_sizes(records: Records) -> dict[str, int]:
    """The cores of each node, as the pilots knew them."""
    sizes: dict[str, int] = {}
    for pilot in records.pilots:
        for node, cores in (pilot["nodes"] or {}).items():
            sizes[node] = max(sizes.get(node, 0), int(cores))
    return sizes


def lanes(records: Records, time: Clock, bins: int) -> list[Lane]:
    """How many cores of each node were busy with what kind, in bins of equal length; by the names of the nodes."""
    sizes = node_sizes(records)
    width = max(time.length, 1e-9) / bins
    found: dict[str, Lane] = {}
    for ran in records.ran:
        begin, end = time.hours(ran.started_at), time.hours(ran.until(records.now))
        for node, cores in ran.shares:
            lane = found.setdefault(node, Lane(node, sizes.get(node, 0)))
            _add(lane.busy.setdefault(ran.kind, [0.0] * bins), begin / width, end / width, cores)
    for lane in found.values():
        lane.cores = lane.cores or round(max(sum(column) for column in zip(*lane.busy.values(), strict=True)))
    return sorted(found.values(), key=lambda lane: lane.node)


def _add(bins: list[float], begin: float, end: float, cores: int) -> None:
    """Add cores that are busy from ``begin`` to ``end``, both in bins."""
    first, last = min(int(begin), len(bins) - 1), min(int(end), len(bins) - 1)
    if first == last:
        bins[first] += cores * (end - begin)
        return
    bins[first] += cores * (first + 1 - begin)
    for place in range(first + 1, last):
        bins[place] += cores
    bins[last] += cores * (end - last)


def gathered(found: Sequence[Lane], most: int) -> tuple[list[Lane], int]:
    """At most so many nodes, those that did most, by name; and how many there are."""
    chosen = {id(lane) for lane in sorted(found, key=Lane.total, reverse=True)[:most]}
    return [lane for lane in found if id(lane) in chosen], len(found)


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on a node: a part of its cores from one time to another, hours."""

    node: str
    bottom: int
    cores: int
    begin: float
    end: float
    kind: str
    fate: str


def bars(records: Records, time: Clock) -> list[Bar]:
    """Every attempt as a bar; each takes the lowest cores of its node that are free, whichever it really had."""
    found: list[Bar] = []
    held: dict[str, list[tuple[float, int, int]]] = {}
    for ran in sorted(records.ran, key=lambda each: each.started_at):
        begin, end = time.hours(ran.started_at), time.hours(ran.until(records.now))
        for node, cores in ran.shares:
            # two attempts may follow each other within the resolution of the clock
            here = [one for one in held.get(node, []) if one[0] > begin + 1e-6]
            bottom = _lowest(here, cores)
            held[node] = [*here, (end, bottom, cores)]
            found.append(Bar(node, bottom, cores, begin, end, ran.kind, fate(ran)))
    return found


def _lowest(held: Sequence[tuple[float, int, int]], cores: int) -> int:
    bottom = 0
    for _, start, many in sorted(held, key=lambda one: one[1]):
        if start - bottom >= cores:
            break
        bottom = max(bottom, start + many)
    return bottom


def shares(pilot: Mapping[str, float]) -> dict[str, float | None]:
    """The shares of an allocation's core-time: useful, interrupted, failed, and the rest (idle, or under way)."""
    reserved = pilot["reserved_core_s"]
    if not reserved:
        return dict.fromkeys(("useful", "interrupted", "failed", "rest"))
    found = {name: min(pilot[f"{name}_core_s"] / reserved, 1.0) for name in ("useful", "interrupted", "failed")}
    return {**found, "rest": max(0.0, 1.0 - sum(found.values()))}
