"""Flows: what waits, as the workers' queue (`workers.fair`) will see it: by client and priority, each in order of age.

What is served before a newcomer is told from it without making that queue anew for each who asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshkiln.gateway.totals import Totals
from meshkiln.workers.fair import PRIORITY_BOUND, bounded, share

T = TypeVar("T", bound=Hashable)
Order = tuple[float, int]
Flow = tuple[str, int]
_Line = tuple[list[Order], Totals[T]]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a flow. order : within it, smaller is sooner, unique"""

    client: str
    priority: int
    order: Order

    @property
    def flow(self) -> Flow:
        """Whose, and how urgent."""
        return (self.client, bounded(self.priority))


class Flows(Generic[T]):
    """What waits. scale, wherever it is given : seconds of an item, see `Totals`"""

    def __init__(self) -> None:
        self._lines: dict[Flow, _Line[T]] = {}
        self._places: dict[T, Place] = {}

    def put(self, item: T, place: Place) -> None:
        """Have `item` stand at `place`, wherever it stood before."""
        if self._places.get(item) == place:
            return
        self.remove(item)
        self._places[item] = place
        orders, items = self._lines.setdefault(place.flow, ([], Totals()))
        at = bisect_left(orders, place.order)
        orders.insert(at, place.order)
        items.insert(at, item)

    def remove(self, item: T) -> None:
        """Let `item` go; nothing when it is not here."""
        place = self._places.pop(item, None)
        if place is not None:
            orders, items = self._lines[place.flow]
            at = bisect_left(orders, place.order)
            del orders[at]
            items.cut(at, at + 1)
            if not orders:
                del self._lines[place.flow]

    def before(
        self, place: Place, needed: float, scale: Callable[[T], float], begun: Iterable[tuple[Place, float]] = ()
    ) -> float:
        """Seconds that are served before somebody who is not here and would stand at `place`.

        needed : seconds of what he wants
        begun : places, and seconds that are left, of what is in the queue beside what waits here
        """
        # As `FairQueue.ahead`: the older ones of his own flow, and of every other what has its turn before him.
        others: dict[Flow, list[tuple[Order, float]]] = defaultdict(list)
        for other, left in begun:
            others[other.flow].append((other.order, left))
        own, order = place.flow, place.order
        before = sum(left for other, left in others.pop(own, ()) if other < order)
        if own in self._lines:
            orders, items = self._lines[own]
            before += items.first(bisect_left(orders, order), scale)
        turn = (before + needed) / share(place.priority)
        bounds = {of: turn * share(of) for of in range(-PRIORITY_BOUND, PRIORITY_BOUND + 1)}
        for flow, begun_of_it in others.items():
            line = self._lines.get(flow) or ([], Totals[T]())
            before += _within(line, sorted(begun_of_it), bounds[flow[1]], order, scale)
        for flow, line in self._lines.items():
            if flow != own and flow not in others:
                before += line[1].first(_reached(line, bounds[flow[1]], order, scale), scale)
        return before


def _within(
    line: _Line[T], begun: list[tuple[Order, float]], bound: float, order: Order, scale: Callable[[T], float]
) -> float:
    """Seconds of those of a flow whose turn comes within `bound` of its seconds, of equal ones the older."""
    orders, items = line
    passed = 0.0
    for other, left in begun:
        place = bisect_left(orders, other)
        reached = min(place, _reached(line, bound - passed, order, scale))
        seconds = passed + items.first(reached, scale)
        if reached < place or (seconds + left, other) > (bound, order):
            return seconds
        passed += left
    return passed + items.first(_reached(line, bound - passed, order, scale), scale)


def _reached(line: _Line[T], bound: float, order: Order, scale: Callable[[T], float]) -> int:
    orders, items = line
    reached = items.within(bound, scale)
    while reached and orders[reached - 1] > order and items.first(reached, scale) == bound:
        reached -= 1
    return reached
