"""Two tiers as one store: memory in front of a slower one, which is written behind where that is allowed."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import replace as changed
from typing import Any

from meshkiln.keys import Key
from meshkiln.store.base import Artifact, Leases, Statistics, Store
from meshkiln.store.behind import Behind, LeasesBehind, Waiting
from meshkiln.store.disk import Disk
from meshkiln.store.faults import Faults
from meshkiln.store.readcost import ReadCost

_HITS_TOLD = 4096


class Tiers(Store):
    """Memory over disk. A hit on disk is promoted; each hit says which tier it came from (`get_tier`).

    memory : Store        asked first. Losing an artifact costs it a read from the disk (measured as it happens), and
                          what the artifact cost to make only while the disk does not keep things
    disk : Disk           the last tier, to which losing an artifact costs making it again
    behind_bytes : int    bytes that may wait to be written to the disk; a put that would exceed them writes at once

    `put(durable=True)` returns when the disk has the artifact (or has failed to keep it); with `durable=False` one
    background thread writes it later, in the order of the puts. Until then it is found here, as in memory. Nothing
    that goes wrong on the disk reaches the caller: it is counted in `stats().faults`.

    In the statistics, `entries`, `bytes`, `puts` and `evictions` are the disk's, with what is kept in memory alone
    counted as put; hits are those of either tier. What another process deletes from the disk stays in this one's
    memory until it is evicted there.
    """

    name = "tiers"

    def __init__(self, memory: Store, disk: Disk, *, behind_bytes: int = 64 * 2**20) -> None:
        self.memory, self.disk = memory, disk
        self.read_cost = ReadCost()
        self._behind = Behind(self._write, self._let_go, behind_bytes)
        self._faults = Faults("tiers")
        self._disk_keeps = True
        self._disk_hits = self._misses = self._memory_puts = self._refused = 0
        self._disk_seconds = 0.0
        # What memory answers the disk never hears of, and would take for unwanted; so it is told with the next write.
        # Appending needs no lock and costs some 30 ns; of more hits than fit, the latest count.
        self._memory_hits: deque[Key] = deque(maxlen=_HITS_TOLD)
        self._forgotten = 0  # goes up when something is deleted or replaced: see `_get_slower`
        self._closed = False
        _ALIVE[id(self)] = self

    @property
    def leases(self) -> Leases:
        """The disk's, let go of only when what was put before is there for the other processes to find."""
        return LeasesBehind(self.disk, self._behind)

    # The mapping.

    def get(self, key: Key, default: Any = None) -> Any:
        """The artifact under `key`, or `default`."""
        artifact = self.memory.get(key)
        if artifact is None:
            found = self._get_slower(key)
            return default if found is None else found[0]
        self._memory_hits.append(key)
        return artifact

    def get_tier(self, key: Key) -> tuple[Artifact, str] | None:
        """The artifact under `key` and the name of the tier that had it."""
        artifact = self.memory.get(key)
        if artifact is None:
            return self._get_slower(key)
        self._memory_hits.append(key)
        return artifact, self.memory.name

    def _get_slower(self, key: Key) -> tuple[Artifact, str] | None:
        forgotten = self._forgotten
        with self._behind.changed:
            waiting = self._behind.waiting.get(key)
        found: tuple[Artifact, float | None] | None = None
        if waiting is None:
            started = time.perf_counter()
            with self._guarded("get"):
                found = self.disk.lookup(key)
            seconds = time.perf_counter() - started
        elif (ttl := waiting.ttl()) is None or ttl > 0:
            found = waiting.artifact, ttl
        with self._behind.changed:
            if found is None:
                self._misses += 1
                return None
            artifact, ttl = found
            self._disk_hits += 1
            self._disk_seconds += artifact.cost
        if waiting is not None:
            return artifact, self.memory.name
        self.read_cost.observe(len(artifact.data), seconds)
        with self._behind.changed:
            # Had it been deleted while it was being read, this would bring it back.
            if self._forgotten == forgotten:
                self.memory.put(key, artifact, ttl=ttl, miss_cost=self.read_cost.of(len(artifact.data)))
        return artifact, self.disk.name

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
        """As `Store.put`; `miss_cost` is the last tier's. True when either tier keeps it."""
        size = len(artifact.data)
        waiting = Waiting(artifact, None if ttl is None else time.monotonic() + ttl, miss_cost, replace)
        if durable or not self._behind.put(key, waiting):
            kept = self._write_now(key, waiting)
        else:
            kept = self._disk_keeps
        with self._behind.changed:
            self._forgotten += replace
            read_cost = self.read_cost.of(size) if kept else miss_cost
            remembered = self.memory.put(key, artifact, ttl=ttl, miss_cost=read_cost, replace=replace)
            self._memory_puts += remembered and not kept
            self._refused += not (remembered or kept)
        return remembered or kept

    def __delitem__(self, key: Key) -> None:
        if not self.delete_many([key]):
            raise KeyError(key)

    def delete_many(self, keys: Collection[Key]) -> set[Key]:
        """As `Store.delete_many`, in both tiers."""
        with self._behind.changed:
            self._forgotten += 1
            gone = set(self._behind.take(keys))
            return gone.union(self.memory.delete_many(keys), self.disk.delete_many(keys))

    def __contains__(self, key: object) -> bool:
        return key in self.memory or key in self._behind.waiting or key in self.disk

    def __iter__(self) -> Iterator[Key]:
        ahead = {*self.memory, *list(self._behind.waiting)}
        yield from ahead
        yield from (key for key in self.disk if key not in ahead)

    def __len__(self) -> int:
        ahead = {*self.memory, *list(self._behind.waiting)}
        return len(self.disk) + sum(key not in self.disk for key in ahead)

    def clear(self) -> None:
        """Forget everything, in both tiers. Raises StoreError when the disk cannot be cleared."""
        with self._behind.changed:
            self._forgotten += 1
            self._behind.clear()
            self.memory.clear()
            self.disk.clear()

    def stats(self) -> Statistics:
        memory, disk = self.memory.stats(), self.disk.stats()
        with self._behind.changed:
            return changed(
                disk,
                entries=disk.entries + len(self._behind.waiting),
                bytes=disk.bytes + self._behind.bytes,
                hits=memory.hits + self._disk_hits,
                misses=self._misses,
                puts=disk.puts + len(self._behind.waiting) + self._memory_puts,
                refused=self._refused,
                seconds_saved=memory.seconds_saved + self._disk_seconds,
                faults=dict(Counter(memory.faults) + Counter(disk.faults) + Counter(self._faults.counts())),
            )

    # Writing behind.

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the disk has what was put; False when that takes more than `timeout` seconds."""
        done = self._behind.wait(timeout)
        self._tell_hits()
        self.disk.flush()
        self._behind.release_all()
        return done

    def close(self) -> None:
        """Write what is waiting, and close both tiers."""
        self.flush()
        self._closed = True
        self.memory.close()
        self.disk.close()
        _ALIVE.pop(id(self), None)

    def _write_now(self, key: Key, waiting: Waiting) -> bool:
        before = self._behind.take([key]).get(key)
        # The first stored stays, also when it is still on its way.
        return self._write(key, waiting if before is None or waiting.replace else before)

    def _let_go(self, key: Key, owner: str) -> None:
        with self._guarded("release"):
            self.disk.release(key, owner)

    def _tell_hits(self) -> None:
        hits = Counter[Key]()
        with contextlib.suppress(IndexError):
            while True:
                hits[self._memory_hits.popleft()] += 1
        if hits:
            self.disk.count_hits(hits)

    def _write(self, key: Key, waiting: Waiting) -> bool:
        kept = False
        with self._guarded("put"):
            self._tell_hits()
            ttl = waiting.ttl()
            kept = self.disk.put(key, waiting.artifact, ttl=ttl, miss_cost=waiting.miss_cost, replace=waiting.replace)
        self._disk_keeps = kept
        return kept

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """A tier does not raise here; should one do so all the same, it costs its answer and nothing else.

        Computations that nobody waits for may outlive the store: that it was closed under them is no fault.
        """
        try:
            yield
        except Exception as error:
            if not self._closed:
                self._faults.add(f"{what} failed", repr(error))

    def _after_fork_in_child(self) -> None:
        # The parent's thread, which does not exist here, writes what is waiting.
        self._faults.renew_lock()
        self._behind.begin()
        self._closed = False


_ALIVE: weakref.WeakValueDictionary[int, Tiers] = weakref.WeakValueDictionary()  # by id: a mapping has no hash


def _flush_all() -> None:
    for tiers in list(_ALIVE.values()):
        tiers.flush(timeout=10.0)


def _after_fork_in_child() -> None:
    for tiers in list(_ALIVE.values()):
        tiers._after_fork_in_child()


atexit.register(_flush_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
