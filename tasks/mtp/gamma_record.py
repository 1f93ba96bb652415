"""What is kept of γ along a run: a histogram, a thinned record, mean and spread over all steps."""

import math
from typing import Any

import numpy as np

#: ten bins a decade from 10⁻² to 10⁴; what lies outside is counted in the first and the last
_EDGES = np.logspace(-2.0, 4.0, 61)
_MOST_POINTS = 1000


class GammaRecord:
    """Takes γ step by step.

    Args:
        steps: the steps that are wanted: decides how wide a window of the thinned record is.
    """

    def __init__(self, steps: int) -> None:
        self._window = steps // _MOST_POINTS + 1
        self._counts = [0] * (len(_EDGES) - 1)
        self._points: list[tuple[int, float]] = []
        self._count = 0
        self._sum = 0.0
        self._squares = 0.0
        self.highest = 0.0

    def add(self, step: int, gamma: float) -> None:
        """γ of one step; inf or nan (nonsense) counts as the highest there is in the record but not in the mean."""
        if not math.isfinite(gamma):
            gamma = 1e300
        else:
            self._count += 1
            self._sum += gamma
            self._squares += gamma * gamma
        self.highest = max(self.highest, gamma)
        place = int((math.log10(max(gamma, 1e-12)) + 2.0) * 10.0) if gamma > 0.0 else 0
        self._counts[min(max(place, 0), len(self._counts) - 1)] += 1
        window = step // self._window
        if self._points and self._points[-1][0] // self._window == window:
            if gamma > self._points[-1][1]:
                self._points[-1] = (step, gamma)
        else:
            self._points.append((step, gamma))

    def state(self) -> dict[str, Any]:
        """All it remembers, to the last digit."""
        return {
            "counts": list(self._counts),
            "points": list(self._points),
            "sums": [self._count, self._sum, self._squares, self.highest],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be what :meth:`state` told of."""
        self._counts = [int(count) for count in state["counts"]]
        self._points = [(int(step), float(gamma)) for step, gamma in state["points"]]
        count, self._sum, self._squares, self.highest = state["sums"]
        self._count = int(count)

    @property
    def mean(self) -> float:
        """Over all steps."""
        return self._sum / self._count if self._count else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation over all steps."""
        if not self._count:
            return 0.0
        return math.sqrt(max(self._squares / self._count - self.mean**2, 0.0))

    def to_json(self) -> dict[str, Any]:
        """For gamma.json: plain numbers."""
        return {
            "edges": [float(f"{edge:.6g}") for edge in _EDGES],
            "counts": list(self._counts),
            "window": self._window,
            "steps": [step for step, _ in self._points],
            "gamma": [float(f"{gamma:.5g}") for _, gamma in self._points],
            "mean": self.mean,
            "std": self.deviation,
            "max": self.highest,
        }
