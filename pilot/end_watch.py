"""Asking SLURM again and again when the allocation ends: administrators change it, and backfill shortens it.

A window for maintenance that begins while we run ends us too: SLURM starts no job that would run into one, but an
administrator may make one later. In a thread, since SLURM may take its time to answer, and the manager must not wait.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pilot import host
from pilot.drain import End
from pilot.orders import EndOrder, Orders
from pilot.slurm.allocation import Allocation
from pilot.slurm.client import Slurm

EVERY_S = 120.0


@contextmanager
def watched_end(
    allocation: Allocation, environ: Mapping[str, str], orders: Orders, every_s: float = EVERY_S
) -> Iterator[None]:
    """While this lasts, an order is given whenever an end is another than it was at the last answer.

    That SLURM does not answer is never a reason to stop: then the last answer holds.
    """
    over = threading.Event()

    def watch() -> None:
        slurm, known = Slurm(environ), dict[End, float | None]()
        while True:
            for end, at in _ends(slurm, allocation).items():
                if at != known.get(end):
                    known[end] = at
                    orders.put(EndOrder(end, at))
            if over.wait(every_s):
                return

    thread = threading.Thread(target=watch, name="end of the allocation", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # a question under way is not waited for
        over.set()


def _ends(slurm: Slurm, allocation: Allocation) -> dict[End, float | None]:
    """The ends of which SLURM says something now; None: it says that there is none."""
    found: dict[End, float | None] = {}
    at = slurm.end_time(allocation.job_id)
    if at is not None:
        found[End.ALLOCATION] = at
    window = slurm.maintenance(allocation.node_names)
    if window is None and not slurm.last_trouble:
        found[End.MAINTENANCE] = None
    # in a window that has begun we run with the administrator's leave
    elif window is not None and window[0] > host.now():
        found[End.MAINTENANCE] = window[0]
    return found
