"""Whose turn it is: clients take turns; within a client priority comes first, then age. Pure, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue that is fair between clients: one client's five hundred do not make another's one wait for them."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, list[tuple[int, T]]] = OrderedDict()

    def add(self, item: T, client: str, priority: int = 0) -> None:
        """Stand in `client`'s line, behind those of the same or a higher priority."""
        line = self._lines.setdefault(client, [])
        place = len(line)
        while place and line[place - 1][0] < priority:
            place -= 1
        line.insert(place, (priority, item))

    def pop(self) -> T | None:
        """Whose turn it is, taken out; None when nobody waits. His client's next turn comes after all others'."""
        if not self._lines:
            return None
        client, line = next(iter(self._lines.items()))
        _, item = line.pop(0)
        self._lines.move_to_end(client)
        if not line:
            del self._lines[client]
        return item

    def remove(self, item: T) -> None:
        """Let `item` leave; nothing when it does not wait."""
        for client, line in list(self._lines.items()):
            kept = [entry for entry in line if entry[1] is not item]
            if kept:
                self._lines[client] = kept
            else:
                del self._lines[client]

    def clear(self) -> None:
        """Let all leave."""
        self._lines.clear()

    def __iter__(self) -> Iterator[T]:
        """All that wait, in the order their turn comes if nobody else arrives."""
        lines = [[item for _, item in line] for line in self._lines.values()]
        for round_ in range(max(map(len, lines), default=0)):
            yield from (line[round_] for line in lines if round_ < len(line))

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))
