"""Two tiers as one store: memory in front of a slower one, which is written behind where that is allowed."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import replace as changed
from typing import Any, NamedTuple

from meshkiln.keys import Key
from meshkiln.store.base import Artifact, Leases, Statistics, Store
from meshkiln.store.disk import Disk
from meshkiln.store.faults import Faults
from meshkiln.store.readcost import ReadCost

_HITS_TOLD = 4096


class _Waiting(NamedTuple):
    """An artifact on its way to the slower tier."""

    artifact: Artifact
    until: float | None  # time.monotonic() at which its time to live ends
    miss_cost: float | None
    replace: bool

    def ttl(self) -> float | None:
        return None if self.until is None else self.until - time.monotonic()


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
        self._behind_bytes = behind_bytes
        self._faults = Faults("tiers")
        self._disk_keeps = True
        self._disk_hits = self._misses = self._memory_puts = self._refused = 0
        self._disk_seconds = 0.0
        # What memory answers the disk never hears of, and would take for unwanted; so it is told with the next write.
        # Appending needs no lock and costs some 30 ns; of more hits than fit, the latest count.
        self._memory_hits: deque[Key] = deque(maxlen=_HITS_TOLD)
        self._forgotten = 0  # goes up when something is deleted or replaced: see `_get_slower`
        self._begin()
        _ALIVE[id(self)] = self

    def _begin(self) -> None:
        self._changed = threading.Condition()  # guards what is below, and the counts above
        self._waiting: dict[Key, _Waiting] = {}
        self._waiting_bytes = 0
        self._writing: Key | None = None
        self._writing_behind = False
        self._releases: list[tuple[Key, str]] = []
        self._releasing = threading.Lock()
        self._closed = False

    @property
    def leases(self) -> Leases:
        """The disk's, let go of only when what was put before is there for the other processes to find."""
        return _Leases(self)

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
        with self._changed:
            waiting = self._waiting.get(key)
        found: tuple[Artifact, float | None] | None = None
        if waiting is None:
            started = time.perf_counter()
            with self._guarded("get"):
                found = self.disk.lookup(key)
            seconds = time.perf_counter() - started
        elif (ttl := waiting.ttl()) is None or ttl > 0:
            found = waiting.artifact, ttl
        with self._changed:
            if found is None:
                self._misses += 1
                return None
            artifact, ttl = found
            self._disk_hits += 1
            self._disk_seconds += artifact.cost
        if waiting is not None:
            return artifact, self.memory.name
        self.read_cost.observe(len(artifact.data), seconds)
        with self._changed:
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
        waiting = _Waiting(artifact, None if ttl is None else time.monotonic() + ttl, miss_cost, replace)
        if durable or not self._queue(key, waiting):
            kept = self._write_now(key, waiting)
        else:
            kept = self._disk_keeps
        with self._changed:
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
        with self._changed:
            self._forgotten += 1
            gone = {key for key in keys if self._dequeue(key) is not None}
            while self._writing in keys:
                self._changed.wait()
            return gone.union(self.memory.delete_many(keys), self.disk.delete_many(keys))

    def __contains__(self, key: object) -> bool:
        return key in self.memory or key in self._waiting or key in self.disk

    def __iter__(self) -> Iterator[Key]:
        ahead = {*self.memory, *list(self._waiting)}
        yield from ahead
        yield from (key for key in self.disk if key not in ahead)

    def __len__(self) -> int:
        ahead = {*self.memory, *list(self._waiting)}
        return len(self.disk) + sum(key not in self.disk for key in ahead)

    def clear(self) -> None:
        """Forget everything, in both tiers. Raises StoreError when the disk cannot be cleared."""
        with self._changed:
            self._forgotten += 1
            self._waiting.clear()
            self._waiting_bytes = 0
            while self._writing is not None:
                self._changed.wait()
            self.memory.clear()
            self.disk.clear()

    def stats(self) -> Statistics:
        memory, disk = self.memory.stats(), self.disk.stats()
        with self._changed:
            return changed(
                disk,
                entries=disk.entries + len(self._waiting),
                bytes=disk.bytes + self._waiting_bytes,
                hits=memory.hits + self._disk_hits,
                misses=self._misses,
                puts=disk.puts + len(self._waiting) + self._memory_puts,
                refused=self._refused,
                seconds_saved=memory.seconds_saved + self._disk_seconds,
                faults=dict(Counter(memory.faults) + Counter(disk.faults) + Counter(self._faults.counts())),
            )

    # Writing behind.

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the disk has what was put; False when that takes more than `timeout` seconds."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._waiting and self._writing is None, timeout)
        self._tell_hits()
        self.disk.flush()
        self._release()
        return done

    def close(self) -> None:
        """Write what is waiting, and close both tiers."""
        self.flush()
        self._closed = True
        self.memory.close()
        self.disk.close()
        _ALIVE.pop(id(self), None)

    def _queue(self, key: Key, waiting: _Waiting) -> bool:
        """Leave an artifact for the background thread; False when too much is waiting."""
        size = len(waiting.artifact.data)
        with self._changed:
            before = self._waiting.get(key)
            if before is not None and not waiting.replace:
                return True
            if self._waiting_bytes + size > self._behind_bytes:
                return False
            if before is not None:
                size -= len(before.artifact.data)
            self._waiting[key] = waiting
            self._waiting_bytes += size
            if not self._writing_behind:
                self._writing_behind = True
                threading.Thread(target=self._write_behind, name="meshkiln-write-behind", daemon=True).start()
        return True

    def _write_behind(self) -> None:
        """Write what waits, first come first, until nothing does."""
        while True:
            with self._changed:
                self._writing = next(iter(self._waiting), None)
                if self._writing is None:
                    self._writing_behind = False
                    self._changed.notify_all()
                    break
                key, waiting = self._writing, self._waiting[self._writing]
            self._write(key, waiting)
            with self._changed:
                # It was found in the queue until now that the disk has it. It may have been deleted or replaced.
                if self._waiting.get(key) is waiting:
                    self._dequeue(key)
                self._writing = None
                self._changed.notify_all()
        self._release()

    def _release(self) -> None:
        """Let go of the leases that waited for the disk."""
        with self._releasing:  # whoever flushes also waits for what another thread is letting go of
            with self._changed:
                releases, self._releases = self._releases, []
            for key, owner in releases:
                with self._guarded("release"):
                    self.disk.release(key, owner)

    def _write_now(self, key: Key, waiting: _Waiting) -> bool:
        with self._changed:
            before = self._dequeue(key)
            while self._writing == key:
                self._changed.wait()
        # The first stored stays, also when it is still on its way.
        return self._write(key, waiting if before is None or waiting.replace else before)

    def _tell_hits(self) -> None:
        hits = Counter[Key]()
        with contextlib.suppress(IndexError):
            while True:
                hits[self._memory_hits.popleft()] += 1
        if hits:
            self.disk.count_hits(hits)

    def _dequeue(self, key: Key) -> _Waiting | None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._waiting_bytes -= len(waiting.artifact.data)
        return waiting

    def _write(self, key: Key, waiting: _Waiting) -> bool:
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
        self._begin()


class _Leases:
    """The disk's leases, whose release waits for what is being written behind.

    Otherwise another process could take the lease on a key, look for its artifact before the disk has it, and compute
    it a second time.
    """

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        tiers = self._tiers
        with tiers._changed:
            tiers._releases = [release for release in tiers._releases if release != (key, owner)]
        return tiers.disk.acquire(key, owner, seconds)

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        return self._tiers.disk.renew(key, owner, seconds)

    def release(self, key: Key, owner: str) -> None:
        tiers = self._tiers
        with tiers._changed:
            pending = bool(tiers._waiting) or tiers._writing is not None
            if pending:
                tiers._releases.append((key, owner))
        if not pending:
            tiers.disk.release(key, owner)


_ALIVE: weakref.WeakValueDictionary[int, Tiers] = weakref.WeakValueDictionary()  # by id: a mapping has no hash


def _flush_all() -> None:
    for tiers in list(_ALIVE.values()):
        tiers.flush(timeout=10.0)


def _after_fork_in_child() -> None:
    for tiers in list(_ALIVE.values()):
        tiers._after_fork_in_child()


atexit.register(_flush_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
