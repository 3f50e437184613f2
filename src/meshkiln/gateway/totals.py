"""Totals: a list of things, and what its first so many weigh together. No clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Totals(Generic[T]):
    """Items, each weighed once: until something before it changes, or the scale does.

    A scale gives what an item weighs, 0 or more, and the same as long as it is the same scale.
    """

    def __init__(self) -> None:
        self.items: list[T] = []
        self._scale: Callable[[T], float] | None = None
        self._totals = [0.0]

    def __len__(self) -> int:
        return len(self.items)

    def insert(self, at: int, item: T) -> None:
        """Put `item` before the one that is there."""
        self.items.insert(at, item)
        del self._totals[at + 1 :]

    def cut(self, at: int, to: int | None = None) -> None:
        """Take out the items from `at` to before `to`; None is the end."""
        del self.items[at:to]
        del self._totals[at + 1 :]

    def first(self, count: int, scale: Callable[[T], float]) -> float:
        """What the first `count` weigh."""
        self._weigh(count, scale)
        return self._totals[min(count, len(self.items))]

    def within(self, bound: float, scale: Callable[[T], float]) -> int:
        """How many of the first weigh no more than `bound` (0 or more) together."""
        count = len(self.items)
        self._weigh(count, scale)
        # Where it reaches over all of them, as over the short ones of many, there is nothing to search.
        return count if self._totals[count] <= bound else bisect_right(self._totals, bound) - 1

    def _weigh(self, count: int, scale: Callable[[T], float]) -> None:
        if scale is not self._scale:
            self._scale, self._totals = scale, [0.0]
        totals = self._totals
        if len(totals) > count:
            return
        for item in self.items[len(totals) - 1 : count]:
            totals.append(totals[-1] + scale(item))
