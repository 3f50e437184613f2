"""Which artifact goes when the memory store is full.

A policy sees an entry when it comes and when it goes. It does not see hits: a hit bumps `Entry.hits` and nothing else,
and the policy reads the count when it must choose. That is what keeps a hit free of locks and heaps.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, log2
from typing import Protocol

from meshkiln.keys import Key
from meshkiln.store.base import Artifact


class Entry:
    """An artifact in the memory store and what its policy knows about it.

    artifact : None once it has left the store: whoever still refers to the entry must not keep its bytes
    size : bytes of the artifact
    miss_cost : seconds that losing it costs
    hits : times it was returned since it was put
    expires : when, on the store's clock, it is past its time; infinity for never
    uses, seen, rank : the policy's own: uses it reckons with, how many of the hits are in them, and its priority
    """

    rank: float

    __slots__ = ("artifact", "expires", "hits", "key", "miss_cost", "rank", "seen", "size", "uses")

    def __init__(self, key: Key, artifact: Artifact, miss_cost: float) -> None:
        self.key = key
        self.artifact: Artifact | None = artifact
        self.size = len(artifact.data)
        self.miss_cost = miss_cost
        self.expires = inf
        self.hits = 0
        self.seen = 0
        self.uses = 1


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

    There is no heap of all entries. Worth is rounded down to a quarter of an octave, and entries of one rounded worth
    wait in one queue: as `age` never falls, each queue is in order by itself, and a small heap orders their heads.

    Sources: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy",
    HPL-98-69R1, 1998; Jin and Bestavros, "GreedyDual* Web Caching Algorithm", Computer Communications 24, 2001 (the
    exponent); Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 13, 2017;
    Ghandeharizadeh, Irani, Lam and Yap, "CAMP: A Cost Adaptive Multi-Queue Eviction Policy for Key-Value Stores",
    Middleware 2014 (the queues).
    """

    sees_hits = False

    def __init__(self, exponent: float = 1.4, most_uses: int = 15, ghosts: float = 4.0) -> None:
        self._exponent = exponent
        self._most_uses = most_uses
        self._age = 0.0
        self._queues: dict[float, _Queue] = {}
        self._heads: list[tuple[float, float, _Queue]] = []
        self._gone = 0
        # Two generations: when the newer is full it becomes the older, and the older is forgotten whole. Nothing is
        # moved or scanned, and what went is remembered until one to two times `_generation` others have gone.
        self._ghosts = ghosts
        self._generation = 0
        self._newer: dict[Key, int] = {}
        self._older: dict[Key, int] = {}

    def add(self, entry: Entry) -> None:
        key, uses = entry.key, entry.uses
        if key in self._newer:
            uses += self._newer.pop(key)
        elif key in self._older:
            uses += self._older.pop(key)
        if uses > 1:
            entry.uses = uses = min(uses, self._most_uses)
        worth = uses * entry.miss_cost / (entry.size + 1)
        if not _LEAST_WORTH < worth < _MOST_WORTH:  # NaN too: it would leave the heads without an order
            worth = _MOST_WORTH if worth > 1 else _LEAST_WORTH
        step = log2(worth) // _STEP
        if step in self._queues:
            queue = self._queues[step]
        else:
            rounded = 2.0 ** (step * _STEP * self._exponent)
            queue = self._queues[step] = _Queue(rounded, rounded * _STEP / 2)
        entry.rank = rank = self._age + queue.worth
        entries = queue.entries
        if not entries:
            heappush(self._heads, (rank, step, queue))
        entries.append(entry)

    def evict(self) -> Entry:
        heads = self._heads
        while True:
            rank, step, queue = heads[0]
            entries = queue.entries
            entry = entries.popleft()
            if not entries:
                heappop(heads)
            elif entries[0].rank > rank + queue.slack:
                heapreplace(heads, (entries[0].rank, step, queue))
            if entry.artifact is None:
                self._gone -= 1
            elif entry.hits != entry.seen:
                entry.uses += entry.hits - entry.seen
                entry.seen = entry.hits
                self.add(entry)
            else:
                self._age = rank
                self._newer[entry.key] = entry.uses
                if len(self._newer) > self._generation:
                    self._older, self._newer = self._newer, {}
                    self._generation = min(int(self._ghosts / 2 * self._waiting()), _MOST_GHOSTS)
                return entry

    def remove(self, entry: Entry) -> None:
        # Its place in a queue is skipped when it comes up, unless too many of those are waiting.
        self._gone += 1
        if self._gone % 64 == 0 and self._gone > self._waiting() / 2:
            self._gone = 0
            for queue in self._queues.values():
                queue.entries = deque(e for e in queue.entries if e.artifact is not None and e is not entry)
            self._heads = [(q.entries[0].rank, step, q) for step, q in self._queues.items() if q.entries]
            heapify(self._heads)

    def hit(self, entry: Entry) -> None:
        """Nothing: `Entry.hits` says it."""

    def _waiting(self) -> int:
        return sum(len(queue.entries) for queue in self._queues.values())


class _Queue:
    """Entries of one rounded worth, in order of their priorities.

    worth : what they have on top of the age
    slack : how far its head may be past the place that the queue has among the heads: as much as rounding takes
    """

    __slots__ = ("entries", "slack", "worth")

    def __init__(self, worth: float, slack: float) -> None:
        self.worth = worth
        self.slack = slack
        self.entries: deque[Entry] = deque()


_STEP = 0.25
"""Octaves of worth that share a queue."""
_LEAST_WORTH = 1e-15
_MOST_WORTH = 1e9
"""Seconds per byte. What is beyond is a mistake in somebody's clock."""
_MOST_GHOSTS = 50_000
"""Keys in one generation of ghosts, at some 170 bytes each."""
