"""The disk store: what is dear to make stays on this machine, for all its processes and after them."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from meshkiln.errors import StoreError
from meshkiln.folders import cache_folder
from meshkiln.keys import Key
from meshkiln.store import generations, leases, rows
from meshkiln.store.base import Artifact, Leases, Statistics, Store
from meshkiln.store.faults import MEDIUM, Faults, reason
from meshkiln.store.rows import Entry, New, Totals
from meshkiln.store.shelf import Shelf

_T = TypeVar("_T")

INLINE = 32 * 1024
"""Bytes up to which an artifact lives in the index itself (`benchmarks/disk_store.py`, "inline or file")."""
_PAGE_OF_ROWS = 500


@dataclass(frozen=True)
class Verification:
    """What `Disk.verify` found: artifacts checked, of those corrupt and missing, and stray files removed."""

    checked: int
    corrupt: int
    missing: int
    strays: int


class Disk(Store):
    """Artifacts in a folder on a local disk, bounded by bytes, shared by any number of processes.

    folder : where; None means `meshkiln.folders.cache_folder()`. Made with mode 0700
    max_bytes : int    bytes of disk taken at most: artifacts, rounded up to blocks, and what the index says about them.
                       Files being written have their room reserved. Processes that open one folder with different
                       bounds each keep to their own, so that the smallest rules
    inline : int       bytes up to which an artifact lives in the index and not in a file of its own
    clock : () -> s    wall-clock seconds, for times to live (which have to mean the same in every process)

    Raises StoreError when the folder is on a network filesystem or was written by a newer version. Whatever else is
    wrong with the folder (read only, no permission, full) fails nobody: the store then finds what it can and keeps
    nothing, counts why in `stats().faults`, and logs each reason once.

    Guarantees. `put` returns True when the artifact is there for every process; killing any of them at any instant
    leaves no half artifact and no broken index. Large artifacts have been through fsync by then; the index's last
    commits may be lost by a power cut, not by a kill. A large artifact is verified against its digest on its first
    read in each process, a small one on every read; one that fails is a miss, put into quarantine and counted.
    Digests detect corruption, not tampering: whoever can write the folder can write a matching digest.

    Threads and forks. Safe from any number of threads. Connections are closed before `os.fork` and opened anew on
    both sides; hits not yet flushed stay with the parent.
    """

    name = "disk"

    def __init__(
        self,
        folder: Path | str | None = None,
        max_bytes: int = 10 * 2**30,
        *,
        inline: int = INLINE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < 0:
            raise StoreError(f"max_bytes is {max_bytes}; it must be 0 or more")
        self.folder = cache_folder() if folder is None else Path(folder).absolute()
        self.max_bytes = max_bytes
        self._inline = inline
        self._clock = clock
        self._lock = threading.Lock()  # guards the counts below
        self._hits = self._misses = self._puts = self._refused = 0
        self._seconds_saved = 0.0
        self._shelf = Shelf(self.folder, max_bytes, Faults(f"disk store {self.folder}"), clock)
        self._index = self._shelf.index
        _OPEN[id(self)] = self

    @property
    def leases(self) -> Leases:
        """Leases on keys among the processes that share this store: the store itself."""
        return self

    # The mapping.

    def get(self, key: Key, default: Any = None) -> Any:
        """The artifact under `key`, verified, or `default`."""
        found = self.lookup(key)
        return default if found is None else found[0]

    def lookup(self, key: Key) -> tuple[Artifact, float | None] | None:
        """As `get`, with the seconds until it is past its time (None: never)."""
        found = self._shelf.get(key)
        if found is None:
            with self._lock:
                self._misses += 1
            return None
        row, data = found
        with self._lock:
            self._hits += 1
            self._seconds_saved += row.cost
        self._shelf.count_hit(row)
        return row.artifact(data), None if row.expires is None else row.expires - self._clock()

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
        """As `Store.put`. There is no slower tier, so what is not `durable` is written at once as well."""
        expires = None if ttl is None else self._clock() + ttl
        new = New.of(key, artifact, miss_cost, expires, self._inline)
        if new.charge > self.max_bytes:
            with self._lock:
                self._refused += 1
            return False
        try:
            if not replace and key in self:
                return True
            kept, added = self._shelf.put(new, replace)
        except MEDIUM as error:
            self._shelf.fault(error)
            return False
        with self._lock:
            self._puts += added
        return bool(kept)

    def put_many(self, artifacts: Iterable[tuple[Key, Artifact]]) -> int:
        """Keep many artifacts, the small ones among them in one transaction; returns how many are kept now.

        As `put` with its defaults for each.
        """
        kept, bulk, taken = 0, list[New](), 0
        for key, artifact in artifacts:
            new = New.of(key, artifact, None, None, self._inline)
            if not new.inline or new.charge > self.max_bytes:
                kept += self.put(key, artifact)
                continue
            bulk.append(new)
            taken += new.charge
            # A transaction stays in the log until it ends, and the log is part of what the store takes.
            if len(bulk) >= _PAGE_OF_ROWS or taken >= self.max_bytes // 100:
                kept += self._put_bulk(bulk)
                bulk, taken = [], 0
        return kept + self._put_bulk(bulk)

    def __delitem__(self, key: Key) -> None:
        if not self.delete_many([key]):
            raise KeyError(key)

    def delete_many(self, keys: Collection[Key]) -> set[Key]:
        """As `Store.delete_many`, in one transaction. Raises StoreError."""
        try:
            return self._shelf.delete(keys)
        except MEDIUM as error:
            told = f"cannot forget an artifact of the store: {reason(error)}"
            raise StoreError(f"cannot forget an artifact of the store in {self.folder}: {error}", told) from error

    def __contains__(self, key: object) -> bool:
        try:
            with self._index.reading() as connection:
                return rows.holds(connection, cast(Key, key), self._clock())
        except MEDIUM as error:
            self._shelf.fault(error)
            return False

    def __iter__(self) -> Iterator[Key]:
        return self._pages(rows.keys)

    def __len__(self) -> int:
        return self._totals().entries

    def clear(self) -> None:
        """Forget everything, what was set aside or put into quarantine included. Raises StoreError."""
        try:
            self._shelf.clear()
            generations.remove_aside(self.folder, self._shelf.generation.name)
        except MEDIUM as error:
            raise StoreError(f"cannot clear the store in {self.folder}: {error}") from error

    # What is in it.

    def entries(self) -> Iterator[Entry]:
        """What the index says of every artifact, in no order; artifacts put or gone meanwhile may be missing."""
        return self._pages(rows.entries)

    def newest(
        self, media_types: Iterable[str], limit: int, before: float, fits: Callable[[Entry], bool]
    ) -> list[Entry]:
        """At most `limit` entries of these types that fit, newest first, of those created before then."""
        found = list[Entry]()
        try:
            with self._index.reading() as connection:
                for media_type in media_types:
                    young = rows.newest(connection, media_type, before, self._clock())
                    found += itertools.islice(filter(fits, young), limit)
        except MEDIUM as error:
            self._shelf.fault(error)
        return sorted(found, key=lambda entry: -entry.created)[:limit]

    def dearest(self, limit: int, besides: str) -> list[Entry]:
        """The entries with the most cost per byte, dearest first, but for those of the type `besides`."""
        try:
            with self._index.reading() as connection:
                return rows.dearest(connection, limit, besides, self._clock())
        except MEDIUM as error:
            self._shelf.fault(error)
            return []

    def keys_where(self, source: str) -> list[Key]:
        """Keys of the artifacts whose provenance has this "source" (hex): all that was derived from one picture."""
        try:
            with self._index.reading() as connection:
                return rows.of_source(connection, source)
        except MEDIUM as error:
            self._shelf.fault(error)
            return []

    def verify(self) -> Verification:
        """Check every artifact against its digest, put bad ones into quarantine, and remove files nobody names."""
        checked = corrupt = missing = strays = 0
        before = self._shelf.faults.counts()
        for key in self:
            checked += 1
            self._shelf.verify(key)
        after = self._shelf.faults.counts()
        corrupt, missing = (after.get(fault, 0) - before.get(fault, 0) for fault in ("corrupt", "missing"))
        try:
            strays = self._shelf.sweep()
        except MEDIUM as error:
            self._shelf.fault(error)
        return Verification(checked, corrupt, missing, strays)

    def stats(self) -> Statistics:
        held = self._totals()
        with self._lock:
            return Statistics(
                held.entries,
                held.bytes,
                self._hits,
                self._misses,
                self._puts,
                self._refused,
                self._seconds_saved,
                self._shelf.evictions.by_reason(),
                self._shelf.faults.counts(),
                self._shelf.evictions.by_stage(),
            )

    def count_hits(self, hits: Mapping[Key, int]) -> None:
        """Have hits that another tier has answered count here as well, for what is asked for to stay."""
        self._shelf.count_hits(hits)

    def flush(self, wait: float = 10.0) -> None:
        """Record this process's hits in the index, for all to evict by; waits `wait` seconds for other writers."""
        self._shelf.flush(wait)

    def close(self) -> None:
        self._shelf.flush()
        self._index.close()
        _OPEN.pop(id(self), None)

    # Leases.

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        return leases.acquire(self._index, key, owner, seconds)

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        return leases.renew(self._index, key, owner, seconds)

    def release(self, key: Key, owner: str) -> None:
        leases.release(self._index, key, owner)

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._shelf.after_fork_in_child()

    def _put_bulk(self, news: list[New]) -> int:
        try:
            kept, added = self._shelf.put_small(news, False)
        except MEDIUM as error:
            self._shelf.fault(error)
            return 0
        with self._lock:
            self._puts += added
        return kept

    def _pages(self, page: Callable[[sqlite3.Connection, int, int, float], list[tuple[int, _T]]]) -> Iterator[_T]:
        after = -1
        while True:
            try:
                with self._index.reading() as connection:
                    found = page(connection, after, _PAGE_OF_ROWS, self._clock())
            except MEDIUM as error:
                self._shelf.fault(error)
                return
            if not found:
                return
            yield from (item for _, item in found)
            after = found[-1][0]

    def _totals(self) -> Totals:
        try:
            with self._index.reading() as connection:
                return rows.totals(connection)
        except MEDIUM as error:
            self._shelf.fault(error)
            return Totals(0, 0, 0, 0.0)


_OPEN: weakref.WeakValueDictionary[int, Disk] = weakref.WeakValueDictionary()  # by id: a mapping has no hash
_forking: list[Disk] = []


def _before_fork() -> None:
    _forking[:] = list(_OPEN.values())
    for disk in _forking:
        disk._shelf.before_fork()


def _after_fork_in_parent() -> None:
    for disk in _forking:
        disk._shelf.after_fork()
    _forking.clear()


def _after_fork_in_child() -> None:
    for disk in _forking:
        disk._after_fork_in_child()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
