"""The memory store: the tier whose hits cost nanoseconds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

from meshkiln.errors import StoreError
from meshkiln.keys import Key
from meshkiln.store.base import Artifact, Evictions, Statistics, Store
from meshkiln.store.clock import Coarse, Exact
from meshkiln.store.policies import Entry, GreedyDual, Policy

SWEEP = 1.0
"""Seconds at least between two searches for what is past its time, which look at every entry."""


class Memory(Store):
    """Artifacts in this process's memory, bounded by bytes and by entries. What is dear per byte stays.

    max_bytes : int       bytes of artifacts held at most; keys and bookkeeping (some 700 bytes an entry) come on top
    max_entries : int     artifacts held at most
    ttl : float, seconds  the default of `put`; None means never past its time
    policy : Policy       who goes when it is full; one policy serves one store
    clock : () -> float   seconds, for tests. By default a coarse monotonic clock: an artifact may be returned for up to
                          a quarter of a second (`clock.TICK`) longer than its TTL

    Raises StoreError when a bound is negative.

    Threads. Whatever changes what is held has the lock. A hit has none: it is one dictionary lookup and one addition,
    `entry.hits += 1`. CPython with the GIL switches threads at calls, backward jumps and function entries, and there is
    none from the lookup to the end of the addition. So no hit is lost, and none is counted on an entry whose count has
    already been taken: whoever removes an entry takes it out of the dictionary first and adds its count to the totals
    then, and `stats` adds up the counts of the entries that are there. Misses are counted the same way.

    On a free-threaded Python the store stays whole: dictionaries lock themselves, so lookups are safe beside changes,
    the bounds hold, and what is returned is a complete artifact of that key. But two threads that hit one entry in the
    same instant may count once: `hits`, `misses` and `seconds_saved` are lower bounds there, and so is the frequency
    that the policy goes by.
    """

    name = "memory"

    def __init__(
        self,
        max_bytes: int = 512 * 2**20,
        max_entries: int = 100_000,
        ttl: float | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._entries: dict[Key, Entry] = {}
        self._misses = 0
        self._clock: Coarse | Exact = Coarse() if clock is None else Exact(clock)
        self._lock = threading.Lock()
        self._policy: Policy = GreedyDual() if policy is None else policy
        self._max_bytes = _bound("max_bytes", max_bytes)
        self._max_entries = _bound("max_entries", max_entries)
        self._ttl = ttl
        if ttl is not None:
            self._clock.start()
        self._next_expiry = math.inf
        self._swept = -math.inf
        self._bytes = 0
        self._puts = 0
        self._refused = 0
        self._evictions = Evictions()
        # Of entries that are no longer here:
        self._past_hits = 0
        self._past_seconds = 0.0
        if self._policy.sees_hits:
            self.get = self._get_and_tell  # type: ignore[method-assign]

    def get(self, key: Key, default: Any = None) -> Any:
        """The artifact under `key`, or `default`."""
        # No call between the lookup and the last line of the block: see "Threads" above.
        try:
            entry = self._entries[key]
            entry.hits += 1
            artifact = entry.artifact
        except KeyError:
            self._misses += 1
            return default
        if artifact is not None and entry.expires > self._clock.now:
            return artifact
        self._take_back(entry, artifact)
        return default

    def put(
        self,
        key: Key,
        artifact: Artifact,
        *,
        ttl: float | None = None,
        miss_cost: float | None = None,
        replace: bool = False,
        durable: bool = True,
    ) -> bool:
        """Keep `artifact` under `key` in place of what is worth less per byte; False when it is itself worth least.

        With `replace`, what was there is gone in any case: it was asked to go. The other parameters are the contract's.
        """
        if ttl is not None:
            self._clock.start()
        else:
            ttl = self._ttl
        entry = Entry(key, artifact, artifact.cost if miss_cost is None else miss_cost)
        with self._lock:
            now = self._clock.now
            if now >= self._next_expiry and now >= self._swept + SWEEP:
                self._drop_expired()
            if ttl is not None:
                entry.expires = now + ttl
                if entry.expires < self._next_expiry:
                    self._next_expiry = entry.expires
            if key in self._entries and not self._make_way(key, now, replace):
                return True
            if entry.size > self._max_bytes:
                self._refused += 1
                return False
            self._entries[key] = entry
            self._bytes += entry.size
            self._puts += 1
            self._policy.add(entry)
            while self._bytes > self._max_bytes:
                self._evict("size")
            while len(self._entries) > self._max_entries:
                self._evict("entries")
            return entry.artifact is not None

    def resize(self, max_bytes: int | None = None, max_entries: int | None = None) -> None:
        """Set new bounds, now: what does not fit any more goes. None leaves a bound as it is."""
        with self._lock:
            self._max_bytes = self._max_bytes if max_bytes is None else _bound("max_bytes", max_bytes)
            self._max_entries = self._max_entries if max_entries is None else _bound("max_entries", max_entries)
            self._drop_expired()
            while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
                self._evict("resized")

    def stats(self) -> Statistics:
        with self._lock:
            self._drop_expired()
            counts = [(e.hits, e.artifact.cost) for e in self._entries.values() if e.artifact is not None]
            return Statistics(
                entries=len(self._entries),
                bytes=self._bytes,
                hits=self._past_hits + sum(hits for hits, _ in counts),
                misses=self._misses,
                puts=self._puts,
                refused=self._refused,
                seconds_saved=self._past_seconds + sum(hits * cost for hits, cost in counts),
                evictions=self._evictions.by_reason(),
                evicted=self._evictions.by_stage(),
            )

    def close(self) -> None:
        self._clock.stop()

    def clear(self) -> None:
        """Forget everything but the statistics."""
        with self._lock:
            for entry in list(self._entries.values()):
                self._remove(entry)
            self._next_expiry = math.inf

    def __delitem__(self, key: Key) -> None:
        with self._lock:
            self._drop_expired()
            self._remove(self._entries[key])

    def __contains__(self, key: object) -> bool:
        """Whether `get` would find it; neither a hit nor a miss."""
        entry = self._entries.get(key)  # type: ignore[call-overload]
        return entry is not None and entry.expires > self._clock.now

    def __iter__(self) -> Iterator[Key]:
        """The keys held now; the store may change meanwhile."""
        with self._lock:
            self._drop_expired()
            return iter(list(self._entries))

    def __len__(self) -> int:
        with self._lock:
            self._drop_expired()
            return len(self._entries)

    def _get_and_tell(self, key: Key, default: Any = None) -> Any:
        """`get` for a policy that must see every hit: it pays for a lock."""
        found = Memory.get(self, key)
        if found is None:
            return default
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._policy.hit(entry)
        return found

    def _take_back(self, entry: Entry, artifact: Artifact | None) -> None:
        """Make the hit just counted on `entry`, which is past its time or gone, the miss that it was."""
        with self._lock:
            self._misses += 1
            if entry.artifact is not None:
                entry.hits -= 1
                self._expire(entry)
            else:  # its count was taken meanwhile, with this hit in it
                self._past_hits -= 1
                self._past_seconds -= artifact.cost if artifact is not None else 0.0

    # All below is called with the lock held.

    def _make_way(self, key: Key, now: float, replace: bool) -> bool:
        """Remove what is under `key` if it is to be replaced or past its time; False when it stays."""
        there = self._entries[key]
        if there.expires <= now:
            self._expire(there)
            return True
        if replace:
            self._remove(there)
        return replace

    def _evict(self, reason: str) -> None:
        entry = self._policy.evict()
        if entry.artifact is not None:
            self._evictions.add(reason, entry.artifact.provenance)
        self._take_out(entry)

    def _expire(self, entry: Entry) -> None:
        if entry.artifact is not None:
            self._evictions.add("expired", entry.artifact.provenance)
        self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        self._policy.remove(entry)
        self._take_out(entry)

    def _take_out(self, entry: Entry) -> None:
        del self._entries[entry.key]  # first: from here on nobody can add to its count
        self._bytes -= entry.size
        if entry.hits and entry.artifact is not None:
            self._past_hits += entry.hits
            self._past_seconds += entry.hits * entry.artifact.cost
        entry.artifact = None

    def _drop_expired(self) -> None:
        now = self._clock.read()
        if now < self._next_expiry:
            return
        self._swept, self._next_expiry = now, math.inf
        for entry in list(self._entries.values()):
            if entry.expires <= now:
                self._expire(entry)
            elif entry.expires < self._next_expiry:
                self._next_expiry = entry.expires


def _bound(name: str, value: int) -> int:
    if value < 0:
        raise StoreError(f"{name} is {value}: a store's bound is 0 or more")
    return value
