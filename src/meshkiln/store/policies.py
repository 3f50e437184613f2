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

    artifact : None once it has left the store: whoever still refers to the entry must not keep its bytes
    size, cost : the artifact's, in bytes and seconds
    miss_cost : seconds that losing it costs
    hits : times it was returned since it was put
    expires : when, on the store's clock, it is past its time; infinity for never
    uses, seen : the policy's own: uses it reckons with, and how many of the hits are in them
    """

    __slots__ = ("artifact", "cost", "expires", "hits", "key", "miss_cost", "seen", "size", "uses")

    def __init__(self, key: Key, artifact: Artifact, miss_cost: float, expires: float) -> None:
        self.key = key
        self.artifact: Artifact | None = artifact
        self.size = len(artifact.data)
        self.cost = artifact.cost
        self.miss_cost = miss_cost
        self.expires = expires
        self.hits = 0
        self.seen = 0
        self.uses = 0.0


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
    """Keep what is dear per byte and asked for: GreedyDual-Size-Frequency, lazily, with a memory of what went.

    The priority of an entry is `age + (uses * cost / size) ** exponent`, where `age` is the priority of the last entry
    that went: what is not asked for is overtaken in time, and how long that takes grows with its worth. Priorities are
    brought up to date when an entry is about to go, instead of on each hit, so a hit costs an addition.

    Three things differ from the plain policy; `benchmarks/policies.py` shows what each is worth:

    exponent : above 1, worth counts for more than recency (below 1, for less; 1 is the plain policy)
    most_uses : uses count up to here, so that what was popular once does not stay for ever; a limit like TinyLFU's
    ghosts : uses of entries that went are remembered for up to this many times the entries held

    Sources: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy",
    HPL-98-69R1, 1998; Jin and Bestavros, "GreedyDual* Web Caching Algorithm", Computer Communications 24, 2001 (the
    exponent); Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 13, 2017.
    """

    sees_hits = False

    def __init__(self, exponent: float = 1.4, most_uses: float = 15, ghosts: float = 4.0) -> None:
        self._exponent = exponent
        self._most_uses = most_uses
        self._age = 0.0
        self._heap: list[tuple[float, int, Entry]] = []
        self._pushes = 0
        self._held = 0
        # Two generations: when the newer is full it becomes the older, and the older is forgotten whole. Nothing is
        # moved or scanned, and what went is remembered for one to two times `generation`.
        self._generation = ghosts / 2
        self._newer: dict[Key, float] = {}
        self._older: dict[Key, float] = {}

    def add(self, entry: Entry) -> None:
        self._held += 1
        past = self._newer.pop(entry.key, None)
        if past is None:
            past = self._older.pop(entry.key, 0)
        entry.uses = past + 1
        self._push(entry)

    def evict(self) -> Entry:
        while True:
            rank, _, entry = heappop(self._heap)
            if entry.artifact is None:
                continue
            if entry.hits != entry.seen:
                entry.uses += entry.hits - entry.seen
                self._push(entry)
                continue
            self._age = rank
            self._held -= 1
            self._remember(entry)
            return entry

    def remove(self, entry: Entry) -> None:
        self._held -= 1
        # Its place in the heap is skipped when it comes up, unless there are too many of those to wait.
        if len(self._heap) > 64 + 2 * self._held:
            self._heap = [item for item in self._heap if item[2].artifact is not None and item[2] is not entry]
            heapify(self._heap)

    def hit(self, entry: Entry) -> None:
        """Nothing: `Entry.hits` says it."""

    def _push(self, entry: Entry) -> None:
        cost = entry.miss_cost
        if not 0.0 <= cost < _MOST_COST:  # NaN too: one such priority would leave the heap without an order
            cost = _MOST_COST if cost > 0.0 else 0.0
        entry.seen = entry.hits
        if entry.uses > self._most_uses:
            entry.uses = self._most_uses
        self._pushes += 1
        rank = self._age + (entry.uses * cost / (entry.size + 1)) ** self._exponent
        heappush(self._heap, (rank, self._pushes, entry))

    def _remember(self, entry: Entry) -> None:
        if len(self._newer) >= min(self._generation * max(self._held, 100), _MOST_GHOSTS):
            self._older = self._newer
            self._newer = {}
        self._newer[entry.key] = entry.uses


_MOST_COST = 1e9
"""Seconds, some thirty years: a cost beyond is a mistake, and infinity would end all ageing."""
_MOST_GHOSTS = 50_000
"""Keys in one generation of ghosts, at some 170 bytes each."""
