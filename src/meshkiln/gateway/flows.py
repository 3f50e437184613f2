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
        self._lines: dict[Flow, tuple[list[Order], Totals[T]]] = {}
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
        self,
        client: str,
        priority: int,
        needed: float,
        scale: Callable[[T], float],
        begun: Iterable[tuple[Place, float]] = (),
    ) -> float:
        """Seconds that are served before a newcomer of that client.

        needed : seconds of what the newcomer wants
        begun : places, and seconds that are left, of what is in the queue beside what waits here
        """
        # As `FairQueue.ahead`: all of one's own, and of every other flow what has its turn no later than this.
        others: dict[Flow, list[tuple[Order, float]]] = defaultdict(list)
        for place, left in begun:
            others[place.flow].append((place.order, left))
        own = (client, bounded(priority))
        before = sum(left for _, left in others.pop(own, ()))
        if own in self._lines:
            orders, items = self._lines[own]
            before += items.first(len(orders), scale)
        turn = (before + needed) / share(priority)
        bounds = {of: turn * share(of) for of in range(-PRIORITY_BOUND, PRIORITY_BOUND + 1)}
        for flow, begun_of_it in others.items():
            before += self._within(flow, bounds[flow[1]], scale, sorted(begun_of_it))
        for flow, (_, items) in self._lines.items():
            if flow != own and flow not in others:
                before += items.first(items.within(bounds[flow[1]], scale), scale)
        return before

    def _within(self, flow: Flow, bound: float, scale: Callable[[T], float], begun: list[tuple[Order, float]]) -> float:
        """Seconds of the longest beginning of a flow that takes no more than `bound`."""
        orders, items = self._lines.get(flow) or ([], Totals[T]())
        passed = 0.0
        for order, left in begun:
            place = bisect_left(orders, order)
            reached = min(place, items.within(bound - passed, scale))
            seconds = passed + items.first(reached, scale)
            if reached < place or seconds + left > bound:
                return seconds
            passed += left
        return passed + items.first(items.within(bound - passed, scale), scale)
