"""A queue that is fair between clients: weighted fair queueing on estimated cost.

After Demers, Keshav, Shenker: "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM 1989), and Parekh,
Gallager (1993). Each flow (a client's items of one priority) has a start tag; the finish tag of its first item is that
plus cost / weight, and the smallest finish tag is served next. Virtual time is how far an ideal server that divided
itself between the flows would be: every served second moves it by 1 / (sum of the weights of all who wait). A flow that
was away starts at the present virtual time: nobody saves up turns, and nobody waits for more than a share of those who
came before. (Self-clocked and start-time fair queueing, which are simpler, fail where every client has one request:
the former puts an urgent newcomer behind all of them, the latter lets urgent newcomers starve the rest.)

Of two flows that come together, neither gets ahead of the other, while both wait, by more seconds per weight than l / r
of who is behind plus R / r of who is ahead: r is a flow's weight, l its longest item, R the most that comes along on
one turn (a batch without its first). So |W_f/r_f - W_g/r_g| ≤ (l_f + R_f)/r_f + (l_g + R_g)/r_g for what is served
between any two moments, which with R = 0 is theorem 1 of Golestani (1994). For who is served has no later finish tag
than the others, or one later by at most R / r (`take`): his start tag, which becomes that, is then at most R / r past
the other's finish tag, itself at most l / r past the other's start tag; and while both wait, the difference of their
start tags changes by what is served. Coming along further ahead than that would cost nobody his turn, but a batch takes
the longer the more are in it: who queues one of each kind would get but an eighth of a worker next to somebody who
fills his batches of eight.

Differences from the papers: an item's tags are given when it becomes the first of its flow (so one that is cancelled
leaves no hole); the estimate is put right by what the item really cost; items of one flow are in the order in which
their *requests* were asked, so that a generation that has begun is finished before the client's next one is begun.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

PRIORITY_WEIGHT = 4.0
"""One step of priority is worth four shares. Priorities are shares, not ranks: the lowest never starves."""
PRIORITY_BOUND = 3
"""Priorities beyond ± this count as this: 64 shares, or a 64th."""


class Queued(Protocol):
    """What the queue must know of an item.

    group : items of one group may be taken together
    order : its place within its flow; smaller is sooner, unique
    charged, share : written when it is taken: what its flow paid, and how far that moved virtual time, per second
    """

    client: str
    priority: int
    group: Hashable
    order: tuple[float, int]
    charged: float
    share: float


Q = TypeVar("Q", bound=Queued)

_order = attrgetter("order")


@dataclass(slots=True)
class _Flow(Generic[Q]):
    """One client's items of one priority, by group. start : start tag of its first item."""

    weight: float
    start: float
    groups: dict[Hashable, list[Q]] = field(default_factory=dict)

    def head(self) -> Q:
        return min((items[0] for items in self.groups.values()), key=_order)


@dataclass(slots=True)
class _Group(Generic[Q]):
    """What waits of one group, of all flows. one : any item of it, to ask the cost of."""

    one: Q
    count: int = 0


class FairQueue(Generic[Q]):
    """Items waiting for their turn. Pure: no clock, no threads.

    cost : estimated seconds of an item, the same for all of a group; asked when they are needed
    weights : client -> share; 1 for who is not named
    """

    def __init__(self, cost: Callable[[Q], float], weights: Mapping[str, float] | None = None) -> None:
        self._cost = cost
        self._weights = dict(weights or {})
        self._flows: dict[tuple[str, int], _Flow[Q]] = {}
        self._groups: dict[Hashable, _Group[Q]] = {}
        self._length = 0
        self._now = 0.0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Q]:
        for flow in self._flows.values():
            for items in flow.groups.values():
                yield from items

    def count(self, group: Hashable) -> int:
        """How many items of `group` wait."""
        return self._groups[group].count if group in self._groups else 0

    def seconds(self) -> float:
        """Estimated seconds of all that waits."""
        return sum(group.count * self._cost(group.one) for group in self._groups.values())

    def push(self, item: Q) -> None:
        """Put `item` in the place that its order gives it within its flow."""
        name = _flow_name(item)
        flow = self._flows.get(name)
        if flow is None:
            weight = self._weights.get(item.client, 1.0) * share(item.priority)
            flow = self._flows[name] = _Flow(weight, self._now)
        elif not flow.groups:
            flow.start = max(flow.start, self._now)
        insort(flow.groups.setdefault(item.group, []), item, key=_order)
        self._groups.setdefault(item.group, _Group(item)).count += 1
        self._length += 1

    def remove(self, item: Q) -> None:
        """Take `item` out without a charge. Raises KeyError when it is not here."""
        name = _flow_name(item)
        self._out(self._flows[name], item)
        if not self._length:
            self._flows.clear()

    def head(self) -> Q | None:
        """Whose turn it is, or None when nobody waits. Of equal tags the older."""
        heads = [(self._finish(flow, item := flow.head()), item.order, item) for flow in self._busy()]
        return min(heads)[2] if heads else None

    def take(self, count: int) -> list[Q]:
        """The head and up to `count` - 1 others of its group, in the order in which their turns would come.

        Each is charged to its own flow, also who comes along before his turn; as long as others wait, nobody comes
        along who would then be further ahead of them than had he filled a batch of `count` in a turn of his own.
        """
        first = self.head()
        if first is None:
            return []
        taken = [first]
        self._charge(first)
        soonest = self._soonest()
        while len(taken) < count and (mate := self._mate(first, soonest, count - 1)) is not None:
            taken.append(mate)
            self._charge(mate)
        if not self._length:
            # The end of a busy period: who took the last turns is not punished in the next.
            self._flows.clear()
        else:
            idle = [name for name, flow in self._flows.items() if not flow.groups and flow.start <= self._now]
            for name in idle:
                del self._flows[name]
        return taken

    def correct(self, item: Q, seconds: float) -> None:
        """Charge the flow of `item`, which was taken, `seconds` instead of what was estimated."""
        surplus = seconds - item.charged
        flow = self._flows.get(_flow_name(item))
        if flow is not None:
            flow.start += surplus / flow.weight
            self._now += surplus * item.share

    def ahead(self, item: Q) -> tuple[int, float]:
        """(items, estimated seconds) that are served before `item`, if nothing else comes."""
        flow = self._flows[_flow_name(item)]
        own = [other for items in flow.groups.values() for other in items if other.order < item.order]
        seconds = sum(map(self._cost, own))
        count, turn = len(own), flow.start + (seconds + self._cost(item)) / flow.weight
        for other in self._busy():
            if other is flow:
                continue
            tag = other.start
            for queued in sorted((q for items in other.groups.values() for q in items), key=_order):
                cost = self._cost(queued)
                tag += cost / other.weight
                if (tag, queued.order) > (turn, item.order):
                    break
                count, seconds = count + 1, seconds + cost
        return count, seconds

    def _busy(self) -> Iterator[_Flow[Q]]:
        return (flow for flow in self._flows.values() if flow.groups)

    def _finish(self, flow: _Flow[Q], item: Q) -> float:
        return flow.start + self._cost(item) / flow.weight

    def _soonest(self) -> float:
        return min((self._finish(flow, flow.head()) for flow in self._busy()), default=0.0)

    def _mate(self, first: Q, soonest: float, ride: int) -> Q | None:
        """The next of the group of `first` that comes along: of its own flow, or within `ride` items of `soonest`."""
        own, cost = self._flows[_flow_name(first)], self._cost(first)
        mates = []
        for flow in self._busy():
            if first.group in flow.groups:
                mate, finish = flow.groups[first.group][0], flow.start + cost / flow.weight
                if flow is own or finish <= soonest + ride * cost / flow.weight:
                    mates.append((finish, mate.order, mate))
        return min(mates)[2] if mates else None

    def _charge(self, item: Q) -> None:
        flow = self._flows[_flow_name(item)]
        item.charged, item.share = self._cost(item), 1.0 / sum(busy.weight for busy in self._busy())
        self._out(flow, item)
        flow.start += item.charged / flow.weight
        self._now += item.charged * item.share

    def _out(self, flow: _Flow[Q], item: Q) -> None:
        items = flow.groups.get(item.group, [])
        if item not in items:
            raise KeyError(f"{item!r} is not in the queue")
        items.remove(item)
        if not items:
            del flow.groups[item.group]
        self._groups[item.group].count -= 1
        if not self._groups[item.group].count:
            del self._groups[item.group]
        self._length -= 1


def bounded(priority: int) -> int:
    """The priority that counts."""
    return max(-PRIORITY_BOUND, min(PRIORITY_BOUND, priority))


def share(priority: int) -> float:
    """The weight of a flow of that priority, of a client whose own weight is 1."""
    return PRIORITY_WEIGHT ** bounded(priority)


def _flow_name(item: Queued) -> tuple[str, int]:
    return (item.client, bounded(item.priority))
