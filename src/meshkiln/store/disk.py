"""The disk store: what is dear to make stays on this machine, for all its processes and after them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from meshkiln.errors import StoreError
from meshkiln.folders import cache_folder
from meshkiln.keys import Key, digest
from meshkiln.store import generations, leases, room, rows
from meshkiln.store.base import Artifact, Leases, Statistics, Store
from meshkiln.store.faults import MEDIUM, Faults, reason
from meshkiln.store.generations import open_folder
from meshkiln.store.index import row_id
from meshkiln.store.rows import Entry, New, Row, Totals

_T = TypeVar("_T")

INLINE = 32 * 1024
"""Bytes up to which an artifact lives in the index itself (`benchmarks/disk_store.py`, "inline or file")."""
_HITS_IN_A_BATCH = 512
_PAGE_OF_ROWS = 500
_VERIFIED = 2**14


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
        self._faults = Faults(f"disk store {self.folder}")
        self._lock = threading.Lock()  # guards the counts below
        self._hits = self._misses = self._puts = self._refused = 0
        self._seconds_saved = 0.0
        self._evictions: Counter[str] = Counter()
        self._pending: list[int] = []  # rows of hits not yet in the index; appending needs no lock
        self._flushing = False
        # Large artifacts that this process has found to be right. A file's name is used once and the file goes with
        # its row, so whoever finds the file needs not ask the index again.
        self._verified: dict[Key, Row] = {}
        self._generation, self._index, self._files = open_folder(self.folder, max_bytes, self._faults)
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
        row = self._verified.get(key)
        data = None
        if row is not None and not self._is_past(row):
            data = self._read(row)
        if data is None and (row := self._find(key)) is not None:
            data = self._read(row)
        if row is None or data is None:
            with self._lock:
                self._misses += 1
            return None
        with self._lock:
            self._hits += 1
            self._seconds_saved += row.cost
        self._pending.append(row.id)
        if len(self._pending) >= _HITS_IN_A_BATCH and not self._flushing:
            # In a thread of its own, for it may have to wait for the disk.
            self._flushing = True
            threading.Thread(target=self.flush, name="meshkiln-flush-hits", daemon=True).start()
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
            kept, added = self._put_inline([new], replace) if new.inline else self._put_file(new, replace)
        except MEDIUM as error:
            self._fault(error)
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
        try:
            with self._index.writing() as connection:
                row = rows.find(connection, key)
                if row is not None:
                    rows.remove(connection, [(row.id, row.size)])
                    if row.file is not None:
                        self._files.remove(row.file)
        except MEDIUM as error:
            raise StoreError(f"cannot forget an artifact of the store in {self.folder}: {error}") from error
        if row is None or self._is_past(row):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        try:
            with self._index.reading() as connection:
                return rows.holds(connection, cast(Key, key), self._clock())
        except MEDIUM as error:
            self._fault(error)
            return False

    def __iter__(self) -> Iterator[Key]:
        return self._pages(rows.keys)

    def __len__(self) -> int:
        return self._totals().entries

    def clear(self) -> None:
        """Forget everything, what was set aside or put into quarantine included. Raises StoreError."""
        try:
            with self._index.writing() as connection:
                rows.remove_all(connection)
                room.give_back(connection, 0)
            self._files.sweep(lambda name: False)
            self._files.sweep_objects(lambda name: False)
            self._files.empty_quarantine()
            generations.remove_aside(self.folder)
        except MEDIUM as error:
            raise StoreError(f"cannot clear the store in {self.folder}: {error}") from error

    # What is in it.

    def entries(self) -> Iterator[Entry]:
        """What the index says of every artifact, in no order; artifacts put or gone meanwhile may be missing."""
        return self._pages(rows.entries)

    def keys_where(self, source: str) -> list[Key]:
        """Keys of the artifacts whose provenance has this "source" (hex): all that was derived from one picture."""
        try:
            with self._index.reading() as connection:
                return rows.of_source(connection, source)
        except MEDIUM as error:
            self._fault(error)
            return []

    def verify(self) -> Verification:
        """Check every artifact against its digest, put bad ones into quarantine, and remove files nobody names."""
        checked = corrupt = missing = strays = 0
        before = self._faults.counts()
        self._verified.clear()
        for key in self:
            row = self._find(key)
            if row is not None:
                checked += 1
                self._read(row)
        after = self._faults.counts()
        corrupt, missing = (after.get(fault, 0) - before.get(fault, 0) for fault in ("corrupt", "missing"))
        try:
            with self._index.reading() as connection:
                strays = self._files.sweep(lambda name: rows.names_file(connection, name))
                strays += self._files.sweep_objects(lambda name: rows.names_file(connection, name))
        except MEDIUM as error:
            self._fault(error)
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
                dict(self._evictions),
                self._faults.counts(),
            )

    def flush(self, wait: float = 10.0) -> None:
        """Record this process's hits in the index, for all to evict by; waits `wait` seconds for other writers."""
        try:
            with self._index.writing(wait) as connection:
                self._flush(connection)
        except MEDIUM as error:
            if reason(error) != "busy":
                self._fault(error)
        finally:
            self._flushing = False

    def close(self) -> None:
        if self._pending:
            self.flush()
        self._index.close()
        _OPEN.pop(id(self), None)

    # Leases.

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        return leases.acquire(self._index, key, owner, seconds)

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        return leases.renew(self._index, key, owner, seconds)

    def release(self, key: Key, owner: str) -> None:
        leases.release(self._index, key, owner)

    # Forks.

    def _before_fork(self) -> None:
        self._index.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._index.after_fork()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._faults.renew_lock()
        self._pending, self._flushing = [], False
        self._index.after_fork_in_child()

    # Writing.

    def _put_inline(self, news: list[New], replace: bool) -> tuple[int, int]:
        with self._index.writing() as connection:
            self._make_room(connection, sum(new.charge for new in news))
            done = [self._insert(connection, new, None, replace) for new in news]
        self._remove(gone for _, _, gone in done)
        return sum(kept for kept, _, _ in done), sum(added for _, added, _ in done)

    def _put_bulk(self, news: list[New]) -> int:
        try:
            kept, added = self._put_inline(news, False)
        except MEDIUM as error:
            self._fault(error)
            return 0
        with self._lock:
            self._puts += added
        return kept

    def _put_file(self, new: New, replace: bool) -> tuple[int, int]:
        with self._index.writing() as connection:
            self._make_room(connection, new.charge)
            # Made inside the transaction, so that no other writer counts on the room this one has found.
            incoming = self._files.reserve(f"{row_id(new.key):016x}", len(new.artifact.data))
        try:
            incoming.write(new.artifact.data)
            with self._index.writing() as connection:
                # The bound may have been passed by others who have a higher one.
                self._make_room(connection, new.charge, incoming.name)
                kept, added, gone = self._insert(connection, new, incoming.name, replace)
            if added:
                incoming.publish(self._files.place(incoming.name))
        finally:
            incoming.close()
        self._remove([gone])
        return kept, added

    def _insert(
        self, connection: sqlite3.Connection, new: New, file: str | None, replace: bool
    ) -> tuple[bool, bool, str | None]:
        """Whether the key is kept now, whether as this artifact, and the file of the one that it took the place of."""
        row = rows.find(connection, new.key)
        gone = None
        if row is not None:
            past = self._is_past(row)
            if not replace and not past:
                return True, False, None
            rows.remove(connection, [(row.id, row.size)])
            gone = row.file
            with self._lock:
                self._evictions["expired"] += past
        added = rows.add(connection, new, file, self._clock())
        if not added:
            self._faults.add("collision", new.key.hex(), "its row is another key's")
        return added, added, gone

    def _make_room(self, connection: sqlite3.Connection, needed: int, besides: str = "") -> None:
        self._flush(connection)
        evicted = room.make_room(connection, self._files, needed, self.max_bytes, self._clock(), besides)
        with self._lock:
            self._evictions += evicted

    def _flush(self, connection: sqlite3.Connection) -> None:
        hits, self._pending = self._pending, []
        if hits:
            rows.touch(connection, Counter(hits), self._clock())

    def _remove(self, files: Iterable[str | None]) -> None:
        for file in files:
            if file is not None:
                self._files.remove(file)

    # Reading.

    def _find(self, key: Key) -> Row | None:
        try:
            with self._index.reading() as connection:
                row = rows.find(connection, key)
        except MEDIUM as error:
            self._fault(error)
            return None
        if row is not None and self._is_past(row):
            if self._drop(row):
                with self._lock:
                    self._evictions["expired"] += 1
            return None
        return row

    def _read(self, row: Row) -> bytes | None:
        """The bytes of a row's artifact once they are known to be right."""
        if row.file is None:
            data = row.data or b""
            if digest(data) == row.digest:
                return data
            self._quarantine(row, data)
            return None
        try:
            found = self._files.read(row.file, row.size)
        except OSError as error:
            self._fault(error)
            return None
        known = self._verified.get(row.key)
        if found is None:
            self._verified.pop(row.key, None)
            # Mostly evicted or replaced since the row was read; counted only if the row is still there.
            if self._drop(row):
                self._faults.add("missing", row.file, "it is made again")
            return None
        if known is not None and known.file == row.file and len(found) == row.size:
            return found
        if digest(found) != row.digest:
            self._quarantine(row, None)
            return None
        with self._lock:
            if len(self._verified) >= _VERIFIED:
                del self._verified[next(iter(self._verified))]
            self._verified[row.key] = row
        return found

    def _quarantine(self, row: Row, data: bytes | None) -> None:
        self._verified.pop(row.key, None)
        self._faults.add("corrupt", row.file or row.key.hex(), "it is put into quarantine and made again")
        with contextlib.suppress(OSError):
            self._files.quarantine(row.file or f"{row.id:016x}-inline", data, self.max_bytes // 100)
        self._drop(row)

    def _drop(self, row: Row) -> bool:
        """Remove a row, unless it is another's by now or others are writing; True when it was removed."""

        def still_there(connection: sqlite3.Connection) -> bool:
            found = rows.find(connection, row.key)
            return found is not None and (found.file, found.digest) == (row.file, row.digest)

        try:
            with self._index.reading() as connection:
                if not still_there(connection):
                    return False
            with self._index.writing(wait=0.1) as connection:
                removed = still_there(connection) and rows.remove(connection, [(row.id, row.size)])
        except MEDIUM as error:
            self._fault(error)
            return False
        self._remove([row.file])
        return bool(removed)

    def _is_past(self, row: Row) -> bool:
        return row.expires is not None and row.expires <= self._clock()

    def _pages(self, page: Callable[[sqlite3.Connection, int, int, float], list[tuple[int, _T]]]) -> Iterator[_T]:
        after = -1
        while True:
            try:
                with self._index.reading() as connection:
                    found = page(connection, after, _PAGE_OF_ROWS, self._clock())
            except MEDIUM as error:
                self._fault(error)
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
            self._fault(error)
            return Totals(0, 0, 0, 0.0)

    def _fault(self, error: OSError | sqlite3.Error) -> None:
        why = reason(error)
        self._faults.add(why, error)
        if why == "corrupt index":
            generations.mark_broken(self._generation)


_OPEN: weakref.WeakValueDictionary[int, Disk] = weakref.WeakValueDictionary()  # by id: a mapping has no hash
_forking: list[Disk] = []


def _before_fork() -> None:
    _forking[:] = list(_OPEN.values())
    for disk in _forking:
        disk._before_fork()


def _after_fork_in_parent() -> None:
    for disk in _forking:
        disk._after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for disk in _forking:
        disk._after_fork_in_child()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
