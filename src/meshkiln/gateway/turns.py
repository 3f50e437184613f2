"""Whose turn it is: clients take turns; within a client priority comes first, then age. Pure, no clock."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

from meshkiln.gateway.totals import Totals

T = TypeVar("T", bound=Hashable)
_Rank = tuple[int, int]
"""(-priority, arrival): what a line is sorted by."""


class Turns(Generic[T]):
    """A queue that is fair between clients: one client's five hundred do not make another's one wait for them.

    What several clients want stands in the line of each, and has its turn as soon as one of them has.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, list[tuple[_Rank, T]]] = OrderedDict()
        self._stands: dict[T, dict[str, _Rank]] = {}
        self._arrivals = itertools.count()
        self._order: _Order[T] = _Order(self._lines)

    def add(self, item: T, client: str, priority: int = 0) -> None:
        """Stand in `client`'s line, behind those of the same or a higher priority; once there, only move forward."""
        line = self._lines.setdefault(client, [])
        stands = self._stands.setdefault(item, {})
        before = stands.get(client)
        if before is not None:
            if -before[0] >= priority:
                return
            del line[_place(line, before)]
        rank = stands[client] = (-priority, next(self._arrivals))
        place = _place(line, rank)
        line.insert(place, (rank, item))
        if place == len(line) - 1 and client == next(reversed(self._lines)):
            self._order.append(place, item)
        else:
            self._order.keep(place)

    def pop(self, but: Collection[str] = ()) -> T | None:
        """Whose turn it is, taken out; None when nobody waits. That client's next turn comes after all others'.

        but : clients that are passed over; they keep their places
        """
        client = next((client for client in self._lines if client not in but), None)
        if client is None:
            return None
        item = self._lines[client][0][1]
        self._lines.move_to_end(client)
        self.remove(item)
        return item

    def remove(self, item: T) -> None:
        """Let `item` leave; nothing when it does not wait."""
        for client, rank in self._stands.pop(item, {}).items():
            line = self._lines[client]
            place = _place(line, rank)
            del line[place]
            if not line:
                del self._lines[client]
            self._order.keep(place)

    def before(self, item: T, scale: Callable[[T], float]) -> tuple[int, float]:
        """How many come before `item` if nobody else arrives, and what they weigh. scale : see `Totals`

        Raises KeyError when it does not wait.
        """
        return self._order.before(item, scale)

    def first(self, count: int) -> list[T]:
        """The first `count` that wait, in the order their turn comes if nobody else arrives."""
        return self._order.first(count)

    def __contains__(self, item: object) -> bool:
        return item in self._stands

    def __len__(self) -> int:
        return len(self._stands)


class _Order(Generic[T]):
    """The order of turns, found as far as somebody asks and kept as far as it stays.

    It goes in rounds: the first of each line, then the second of each. Whoever comes into place i of a line changes
    nothing of the rounds before the i-th.
    """

    def __init__(self, lines: OrderedDict[str, list[tuple[_Rank, T]]]) -> None:
        self._lines = lines
        self._found: Totals[T] = Totals()
        self._places: dict[T, int] = {}
        self._rounds: list[int] = []  # where each begins
        self._longer: list[list[tuple[_Rank, T]]] | None = None  # the lines in the last of them, in order

    def keep(self, rounds: int) -> None:
        """Forget all but the first so many rounds."""
        self._longer = None
        if rounds < len(self._rounds):
            begin = self._rounds[rounds]
            for item in self._found.items[begin:]:
                del self._places[item]
            self._found.cut(begin)
            del self._rounds[rounds:]

    def append(self, place: int, item: T) -> None:
        """Take in who has come to the end of the last line, into that place: his is the last turn of its round."""
        self.keep(place + 1)
        if place < len(self._rounds):
            self._add(item)

    def before(self, item: T, scale: Callable[[T], float]) -> tuple[int, float]:
        while item not in self._places and self._find_round():
            pass
        place = self._places[item]
        return place, self._found.first(place, scale)

    def first(self, count: int) -> list[T]:
        while len(self._found) < count and self._find_round():
            pass
        return self._found.items[:count]

    def _find_round(self) -> bool:
        """Find the next round; False when nobody is left for one."""
        round_ = len(self._rounds)
        self._longer = [line for line in self._longer or self._lines.values() if round_ < len(line)]
        if self._longer:
            self._rounds.append(len(self._found))
        for line in self._longer:
            self._add(line[round_][1])
        return bool(self._longer)

    def _add(self, item: T) -> None:
        if item not in self._places:
            self._places[item] = len(self._found)
            self._found.insert(len(self._found), item)


def _place(line: list[tuple[_Rank, T]], rank: _Rank) -> int:
    return bisect_left(line, rank, key=lambda entry: entry[0])
