"""Whose turn it is: clients take turns; within a client priority comes first, then age. Pure, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """A queue that is fair between clients: one client's five hundred do not make another's one wait for them.

    What several clients want stands in the line of each, and has its turn as soon as one of them has.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, list[tuple[int, T]]] = OrderedDict()
        self._stands: dict[T, set[str]] = {}

    def add(self, item: T, client: str, priority: int = 0) -> None:
        """Stand in `client`'s line, behind those of the same or a higher priority; once there, only move forward."""
        line = self._lines.setdefault(client, [])
        for at, (before, other) in enumerate(line):
            if other is item:
                if before >= priority:
                    return
                del line[at]
                break
        place = len(line)
        while place and line[place - 1][0] < priority:
            place -= 1
        line.insert(place, (priority, item))
        self._stands.setdefault(item, set()).add(client)

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
        for client in self._stands.pop(item, ()):
            line = [entry for entry in self._lines[client] if entry[1] is not item]
            if line:
                self._lines[client] = line
            else:
                del self._lines[client]

    def clear(self) -> None:
        """Let all leave."""
        self._lines.clear()
        self._stands.clear()

    def __iter__(self) -> Iterator[T]:
        """All that wait, in the order their turn comes if nobody else arrives."""
        seen = set()
        lines = [[item for _, item in line] for line in self._lines.values()]
        for round_ in range(max(map(len, lines), default=0)):
            for line in lines:
                if round_ < len(line) and line[round_] not in seen:
                    seen.add(line[round_])
                    yield line[round_]

    def __contains__(self, item: object) -> bool:
        return item in self._stands

    def __len__(self) -> int:
        return len(self._stands)
