"""The nodes that are held for a task which finds no room yet. Pure."""

from bisect import bisect_right
from dataclasses import dataclass

from db.records import Resources
from pilot.scheduler.pool import Pool


@dataclass(frozen=True, slots=True)
class Claim:
    """Nodes that are held for a task, and when all of them will have room for it, as far as is known."""

    resources: Resources
    nodes: frozenset[str]
    from_s: float


def claim(resources: Resources, pool: Pool, now: float, before: Claim | None = None) -> Claim | None:
    """The nodes that will have room first; None if too few could ever have it.

    Nodes that are overdue, or of which nobody knows when they will have room, may have it at any moment. Among these
    the ones claimed ``before`` are claimed again: what has been kept free so far is not given up for nothing. So
    from one claim to the next the time of a task only comes nearer.
    """
    ranking = pool.forecast(resources)
    order, wanted = ranking.order(), resources.nodes
    if len(order) < wanted:
        return None
    at_any_moment = bisect_right(order, now, key=lambda item: item[0][0])
    if at_any_moment <= wanted or before is None or before.resources != resources:
        first = order[:wanted]
        return Claim(resources, frozenset(name for _, name in first), max(now, first[-1][0][0]))
    keys = ((name, ranking.key_of(name)) for name in before.nodes)
    names = {name for name, key in keys if key is not None and key[0] <= now}
    for _, name in order:
        if len(names) >= wanted:
            break
        names.add(name)
    return Claim(resources, frozenset(names), now)
