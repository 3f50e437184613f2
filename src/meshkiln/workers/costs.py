"""What stages cost, learned from what they cost: moving averages that admission, fairness and deadlines go by."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

FIRST_GUESS = 1.0
"""Seconds of a stage that has never run."""
_SHARE = 0.2
"""Weight of the newest measurement, once there are five: a change of load is followed within about ten of them."""
_CLIPPED = 4.0
"""A measurement counts as at most so many times what was known. One that took far longer (a machine that slept, a cold
disk) tells little of the next; were it believed, its whole kind would wait behind everything cheap for a while."""
_TRIFLE = 0.01
"""Seconds that are believed whatever was known, so that a kind that seemed to cost nothing can grow."""
_BOUND = 2048


class Costs:
    """Seconds an item takes, by group (a stage with the parameters that shape its batches), else by its stage."""

    def __init__(self) -> None:
        self._averages: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def learn(self, stage: Hashable, group: Hashable, seconds: float) -> None:
        """Take in that one item of `group`, which is of `stage`, took `seconds`."""
        for name in (("group", group), ("stage", stage)):
            known, count = self._averages.get(name, (seconds, 0))
            weight = max(_SHARE, 1 / (count + 1))
            self._averages[name] = known + weight * (min(seconds, max(_TRIFLE, _CLIPPED * known)) - known), count + 1
            self._averages.move_to_end(name)
        while len(self._averages) > _BOUND:
            self._averages.popitem(last=False)

    def measured(self, stage: Hashable, group: Hashable) -> float | None:
        """Seconds an item of `group` takes, as far as measurements tell; None for a stage that has never run."""
        known = self._averages.get(("group", group)) or self._averages.get(("stage", stage))
        return None if known is None else known[0]

    def estimate(self, stage: Hashable, group: Hashable) -> float:
        """The same, with a first guess for the unknown."""
        known = self.measured(stage, group)
        return FIRST_GUESS if known is None else known
