"""Which artifact goes when the memory store is full.

A policy sees an entry when it comes and when it goes. It does not see hits: a hit bumps `Entry.hits` and nothing else,
and the policy reads the count when it must choose. That is what keeps a hit free of locks and heaps.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Protocol

from meshkiln.keys import Key
from meshkiln.store.base import Artifact


class Entry:
    """An artifact in the memory store and what its policy knows about it.

    size : bytes of the artifact
    miss_cost : seconds that losing it costs
    hits : times it was returned since it was put
    expires : when, on the store's clock, it is past its time; infinity for never
    present : False once it has left the store
    rank, seen, past : the policy's own: its priority, the hits that are in it, and hits of earlier stays
    """

    __slots__ = ("artifact", "expires", "hits", "key", "miss_cost", "past", "present", "rank", "seen", "size")

    def __init__(self, key: Key, artifact: Artifact, miss_cost: float, expires: float) -> None:
        self.key = key
        self.artifact = artifact
        self.size = len(artifact.data)
        self.miss_cost = miss_cost
        self.expires = expires
        self.hits = 0
        self.present = True
        self.rank = 0.0
        self.seen = 0
        self.past = 0.0


class Policy(Protocol):
    """What the memory store asks of a policy. The store calls it with its lock held."""

    sees_hits: bool
    """True for a policy that must see every hit: the store then calls `hit` with its lock held."""

    def add(self, entry: Entry) -> None:
        """`entry` has come."""
        ...

    def evict(self) -> Entry:
        """Choose the entry to go and forget it; it may be the one that has just come. Called with at least one held."""
        ...

    def remove(self, entry: Entry) -> None:
        """`entry` has gone for another reason: deleted, replaced or past its time."""
        ...

    def hit(self, entry: Entry) -> None:
        """`entry` was returned. Called only when `sees_hits`."""
        ...


class GreedyDual:
    """Keep what is dear per byte and asked for: GreedyDual-Size-Frequency, lazily.

    The priority of an entry is `age + uses * cost / size`, where `age` is the priority of the last entry that went:
    what is not asked for is overtaken by it in time. Source: Cherkasova, "Improving WWW Proxies Performance with
    Greedy-Dual-Size-Frequency Caching Policy", HPL-98-69R1, 1998. Priorities are brought up to date when an entry is
    about to go, instead of on each hit, so a hit costs an addition.
    """

    sees_hits = False

    def __init__(self) -> None:
        self._age = 0.0
        self._heap: list[tuple[float, int, Entry]] = []
        self._count = 0
        self._gone = 0

    def add(self, entry: Entry) -> None:
        self._push(entry)

    def evict(self) -> Entry:
        while True:
            rank, _, entry = heappop(self._heap)
            if not entry.present:
                self._gone -= 1
            elif entry.hits != entry.seen:
                self._push(entry)
            else:
                self._age = rank
                return entry

    def remove(self, entry: Entry) -> None:
        self._gone += 1
        if self._gone > 64 + len(self._heap) // 2:
            self._heap = [item for item in self._heap if item[2].present]
            heapify(self._heap)
            self._gone = 0

    def hit(self, entry: Entry) -> None:
        raise NotImplementedError

    def _push(self, entry: Entry) -> None:
        entry.seen = entry.hits
        entry.rank = self._age + (1 + entry.hits) * entry.miss_cost / (entry.size + 1)
        self._count += 1
        heappush(self._heap, (entry.rank, self._count, entry))
