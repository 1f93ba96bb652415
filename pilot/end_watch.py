"""Asking SLURM again and again when the allocation ends: administrators change it, and backfill shortens it.

In a thread, since SLURM may take its time to answer, and the manager must not wait for it.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pilot.orders import EndOrder, Orders
from pilot.slurm.client import Slurm

EVERY_S = 120.0


@contextmanager
def watched_end(job_id: str, environ: Mapping[str, str], orders: Orders, every_s: float = EVERY_S) -> Iterator[None]:
    """While this lasts, an order is given whenever the end is another than it was at the last answer.

    That SLURM does not answer is never a reason to stop: then the last answer holds.
    """
    over = threading.Event()

    def ask() -> None:
        slurm, known = Slurm(environ), None
        while True:
            end = slurm.end_time(job_id)
            if end is not None and end != known:
                known = end
                orders.put(EndOrder(end))
            if over.wait(every_s):
                return

    thread = threading.Thread(target=ask, name="end of the allocation", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # a question under way is not waited for
        over.set()
