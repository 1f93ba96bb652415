"""How long a task is expected to need: learned from finished attempts of the same kind and size. Pure."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from db.states import TaskKind

#: As many attempts of a kind and size are remembered.
MEMORY = 200
#: What a task needs is the time that this part of its like have needed at most.
QUANTILE = 0.9
#: A guess is trusted less than a measurement: with fewer attempts than this, the longest counts.
FEW = 5
#: One that was ended before it was done needs longer than it had: so much longer, for all that is known.
LONGER = 1.5


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a task is expected to need (s; None: nobody knows), and how that is known, for people."""

    seconds: float | None
    why: str


class Times:
    """What tasks have needed so far.

    Args:
        guesses: seconds for a kind of which nothing is known yet.
    """

    def __init__(self, guesses: Mapping[TaskKind, float] | None = None) -> None:
        self._guesses = dict(guesses or {})
        self._seen: dict[tuple[TaskKind, int], deque[float]] = defaultdict(lambda: deque(maxlen=MEMORY))
        self._known: dict[tuple[TaskKind, int], float] = {}

    def learn(self, kind: TaskKind, size: int, wall_s: float) -> None:
        """A task of this kind and size has been done in ``wall_s``."""
        self._seen[kind, size].append(wall_s)
        self._known.pop((kind, size), None)

    def learn_all(self, durations: Iterable[tuple[TaskKind, int, float]]) -> None:
        """Many at once, the latest last."""
        for kind, size, wall_s in durations:
            self.learn(kind, size, wall_s)

    def expected(
        self, kind: TaskKind, size: int, request_s: float | None = None, at_least_s: float = 0.0
    ) -> float | None:
        """Seconds that a task is expected to need; None if nobody has said and nothing is known.

        A plain command has no size that we know of: what others needed says nothing, so only the request
        counts.

        Args:
            kind, size: of the task.
            request_s: what its user, or pilot.toml, has said.
            at_least_s: so long it has run before it was interrupted, and would start over.
        """
        found = request_s
        if kind is not TaskKind.COMMAND:
            learned = self._learned(kind, size)
            found = learned if learned is not None else request_s if request_s is not None else self._guesses.get(kind)
        return max(found or 0.0, LONGER * at_least_s) if at_least_s else found

    def explain(
        self, kind: TaskKind, size: int, request_s: float | None = None, at_least_s: float = 0.0
    ) -> Expectation:
        """The same as :meth:`expected`, with where it comes from."""
        seconds = self.expected(kind, size, request_s, at_least_s)
        if at_least_s and seconds == LONGER * at_least_s:
            return Expectation(seconds, f"{LONGER:g} × what it had when it was interrupted")
        number = 0 if kind is TaskKind.COMMAND else len(self._seen.get((kind, size), ()))
        if number:
            if number == 1:
                return Expectation(seconds, "what the only one like it that is done needed")
            few = f"the longest of {number} like it that are done"
            return Expectation(seconds, few if number < FEW else f"{QUANTILE:.0%} of {number} like it needed no more")
        if seconds is None:
            return Expectation(None, "nothing is known of it")
        return Expectation(seconds, "as requested" if request_s is not None else "as pilot.toml says; none is done yet")

    def _learned(self, kind: TaskKind, size: int) -> float | None:
        if (kind, size) not in self._seen:
            return None
        if (kind, size) not in self._known:
            ordered = sorted(self._seen[kind, size])
            last = len(ordered) - 1
            self._known[kind, size] = ordered[last if len(ordered) < FEW else round(QUANTILE * last)]
        return self._known[kind, size]
