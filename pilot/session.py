"""One manager from its beginning to its end, whatever its agents are reached by."""

import gc
from collections.abc import Callable

from pilot import host
from pilot.agent.comm import Comm
from pilot.manager import Manager, Shared
from pilot.opening import Opened
from pilot.orders import Orders
from pilot.packing.packer import packer_of
from pilot.publisher import Publisher
from pilot.snapshot import PilotStatus, Snapshot
from pilot.terms import Terms

Observer = Callable[[Snapshot], None]


def manage(
    opened: Opened, comm: Comm, orders: Orders, terms: Terms, status: PilotStatus, observer: Observer | None = None
) -> str:
    """Let a manager work until nothing is left to do, or it has drained; says why it ended.

    Args:
        opened: the folder.
        comm: its agents; closed at the end.
        orders: what the supervisor says meanwhile.
        terms: what it may use, and how it stops.
        status: the pilot as it shows itself.
        observer: called with each snapshot.

    Raises:
        PilotError: the database, the disk or the lease was lost; what was committed is safe.
    """
    status.ends_at = terms.ends.at
    try:
        opened.ledger.load()
        # a hundred thousand tasks live as long as we do: the garbage collector need not look at them again and again
        gc.collect()
        gc.freeze()
        held_s = terms.uncounted_s(host.now())
        publisher = Publisher(opened.folder, opened.writer, opened.protocol, status, observer, held_s=held_s)
        with packer_of(opened.folder, opened.writer, opened.config.run, publisher.room_changed) as packer:
            shared = Shared(
                opened.folder, opened.lease, opened.writer, opened.ledger, comm, publisher, packer, orders, terms
            )
            manager = Manager(shared)
            why = manager.run()
    finally:
        comm.close()
    manager.finish(why)
    return why
