"""Work on files in a thread of its own, so that a slow disk holds nobody up. It touches no database."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pilot import host

T = TypeVar("T")
#: the longest rest at a time
_REST_S = 1.0


class Pace:
    """How an errand goes: it gives up when it is told to, and rests as long as it works, unless there is hurry."""

    def __init__(self) -> None:
        self.hurried = False
        self._stop = threading.Event()
        self._since = host.monotonic()

    def stop(self) -> None:
        """Give up."""
        self._stop.set()

    def stopped(self) -> bool:
        """Whether it is to give up."""
        return self._stop.is_set()

    def rest(self) -> None:
        """Called between two pieces of work."""
        if not self.hurried:
            self._stop.wait(min(_REST_S, host.monotonic() - self._since))
        self._since = host.monotonic()


class Errand(Generic[T]):
    """A function that is called in a thread at once.

    Args:
        work: the function; it asks its pace whether to go on.
        then: for whoever waits for it: what to do with its outcome.
    """

    def __init__(self, work: Callable[[Pace], T], then: Callable[[T], None]) -> None:
        self.pace = Pace()
        self.error: Exception | None = None
        self._work = work
        self._then = then
        self._outcome: list[T] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name="errand")
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has come back, with an outcome or with an error."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait until it is over, at most so long."""
        self._thread.join(seconds)

    def settle(self) -> None:
        """Do with its outcome what was to be done; nothing if an error has stopped it."""
        for outcome in self._outcome:
            self._then(outcome)

    def _run(self) -> None:
        try:
            self._outcome.append(self._work(self.pace))
        except Exception as error:
            self.error = error
