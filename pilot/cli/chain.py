"""A pilot in a chain of allocations: while it works, the next one waits in the queue."""

import logging
import os
import threading

from pilot.cli.submitting import end_chain, queue_next
from pilot.folder import Folder

log = logging.getLogger("pilot")

#: handing in a job may take SLURM a while; the pilot's end waits for that so long
_PATIENCE_S = 120.0


class Chain:
    """What is done for the chain at the two ends of an allocation; outside of a chain, nothing.

    The next allocation is queued in a thread, beside the work: a busy SLURM must not hold that up.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._queueing: threading.Thread | None = None

    def begin(self) -> None:
        """The folder is ours: queue the next allocation."""
        self._queueing = threading.Thread(target=self._queue_next, name="the next allocation", daemon=True)
        self._queueing.start()

    def _queue_next(self) -> None:
        _say(queue_next(self._folder, os.environ))

    def end(self) -> None:
        """All is published: take the next allocation out again if it would find nothing to do."""
        if self._queueing is not None:
            self._queueing.join(_PATIENCE_S)
            _say(end_chain(self._folder, os.environ))


def _say(what: str) -> None:
    if what:
        log.info("%s", what)
