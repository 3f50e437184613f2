"""Evaluations that need not be made: a smooth quantity along one trajectory, foretold from its last values.

Step caching by Taylor forecast (Liu et al. 2025, TaylorSeer), with the decision made as in adaptive multistep solvers:
by how far the last forecast was off. All state belongs to one item, so that batch mates decide nothing for each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Forecast:
    """Foretells one quantity linearly from its last two values, and knows how far that may be trusted.

    threshold : error that may be expected of a forecast, in the units of the errors `learn` is told
    """

    ORDER = 1

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._times: list[float] = []
        self._values: list[F32] = []
        self._growth = math.inf
        """The error per time^(order + 1) since the last value."""

    def trusted(self, t: float) -> bool:
        """Whether the forecast for time t is expected to be within the threshold."""
        if self.threshold <= 0 or len(self._times) <= self.ORDER:
            return False
        return self._growth * (t - self._times[-1]) ** (self.ORDER + 1) <= self.threshold

    def value(self, t: float) -> F32:
        """The forecast for time t."""
        (t0, t1), (v0, v1) = self._times, self._values
        share = np.float32((t - t1) / (t1 - t0))
        foretold: F32 = v1 + share * (v1 - v0)
        return foretold

    def learn(self, t: float, value: F32, scale: float) -> None:
        """Take note of the true value at time t; `scale` is the length of which errors are shares."""
        if self.threshold <= 0:
            return
        if self._times and t <= self._times[-1]:
            # The same time asked again, from a better place: a corrector's second look.
            self._times.pop()
            self._values.pop()
        elif len(self._times) > self.ORDER:
            missed = length(value - self.value(t)) / max(scale, 1e-12)
            self._growth = missed / (t - self._times[-1]) ** (self.ORDER + 1)
        self._times = [*self._times, t][-self.ORDER - 1 :]
        self._values = [*self._values, value][-self.ORDER - 1 :]


def length(x: F32) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
