"""A sample of what an exploration met, as uniform in γ as the run allows: the Pb report's ``sample_query_error``.

γ from ``low`` to ``high`` is divided into bins of equal width. Each bin keeps a random sample of all that fell into it
(Vitter's reservoir, ACM Trans. Math. Softw. 11, 37 (1985), algorithm R), and the bins share the places as evenly as
what they were offered allows: who needs a place takes it from a bin that has most.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.mtp.keeping import Moment

_BINS = 20
#: the sampler's random numbers are not those of the velocities
_OWN = 20_812


class Sampler:
    """Takes moments one by one, and has at each time a uniform sample of those so far.

    Args:
        count: how many are wanted; no more are ever kept.
        low: γ of those wanted is above this …
        high: … and below this.
        seed: of the run.
    """

    def __init__(self, count: int, low: float, high: float, seed: int) -> None:
        self._count = max(count, 1)
        self._low, self._high = low, high
        self._rng = np.random.default_rng([seed, _OWN])
        self._seen = [0] * _BINS
        self._bins: list[list[Moment]] = [[] for _ in range(_BINS)]

    def offer(self, gamma: float, make: Callable[[], Moment]) -> None:
        """One more; ``make`` is asked for it only if it is taken."""
        if not self._low < gamma < self._high:
            return
        place = min(int((gamma - self._low) / (self._high - self._low) * _BINS), _BINS - 1)
        mine = self._bins[place]
        was_cut = self._seen[place] > len(mine)
        self._seen[place] += 1
        if was_cut:
            number = int(self._rng.integers(self._seen[place]))
            if number < len(mine):
                mine[number] = make()
            return
        mine.append(make())
        if sum(map(len, self._bins)) > self._count:
            fullest = max(self._bins, key=len)
            fullest.pop(int(self._rng.integers(len(fullest))))

    @property
    def kept(self) -> list[Moment]:
        """The sample, in the order of the run."""
        return sorted((moment for some in self._bins for moment in some), key=lambda moment: moment.step)

    def state(self) -> dict[str, Any]:
        """All it remembers, to the last digit."""
        return {
            "seen": list(self._seen),
            "bins": [[moment.state() for moment in some] for some in self._bins],
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self._seen = [int(number) for number in state["seen"]]
        self._bins = [[Moment.restored(moment) for moment in some] for some in state["bins"]]
        self._rng.bit_generator.state = state["rng"]


def choose_uniform(grades: Sequence[float], count: int, low: float, high: float, seed: int) -> list[int]:
    """Which of many, of these ``grades``, make a sample of ``count`` that is as uniform in γ as they allow.

    Args:
        grades: γ of each; those outside ``low`` to ``high`` are left out.
        count: how many are wanted; fewer where there are not so many.
        low: γ.
        high: γ.
        seed: the same seed chooses the same.

    Returns:
        their indices, ascending.
    """
    given = np.asarray(grades, dtype=float)
    inside = np.flatnonzero((given > low) & (given < high))
    order: npt.NDArray[np.int64] = np.random.default_rng([seed, _OWN]).permutation(inside)
    places = np.minimum(((given[order] - low) / (high - low) * _BINS).astype(int), _BINS - 1)
    bins = [order[places == place].tolist() for place in range(_BINS)]
    # each bin has one place in each round, until there is none left
    rounds = [some[number] for number in range(max(map(len, bins), default=0)) for some in bins if number < len(some)]
    return sorted(int(index) for index in rounds[:count])
