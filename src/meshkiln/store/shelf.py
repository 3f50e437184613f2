"""One generation's index and files, kept in step: what is in the one is in the other, and right."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from meshkiln.keys import Key, digest
from meshkiln.store import generations, room, rows
from meshkiln.store.base import Evictions
from meshkiln.store.faults import MEDIUM, Faults, reason
from meshkiln.store.generations import open_folder
from meshkiln.store.index import row_id
from meshkiln.store.rows import New, Row

_HITS_IN_A_BATCH = 4096
_VERIFIED = 2**14


class Shelf:
    """Artifacts of a store's folder as rows and bytes. Safe to use from many threads.

    Reading and dropping raise nothing: what goes wrong is counted in `faults`. Writing raises `faults.MEDIUM`.

    evictions : what this process evicted, and why
    generation : its folder
    """

    def __init__(self, folder: Path, max_bytes: int, faults: Faults, clock: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self.faults = faults
        self.evictions = Evictions()
        self._clock = clock
        self._lock = threading.Lock()  # guards evictions and additions to _verified
        self._pending: list[int] = []  # rows of hits not yet in the index; appending needs no lock
        self._flushing = False
        # Large artifacts that this process has found to be right. A file's name is used once and the file goes with
        # its row, so whoever finds the file needs not ask the index again.
        self._verified: dict[Key, Row] = {}
        self.generation, self.index, self.files = open_folder(folder, max_bytes, faults)

    # Reading.

    def get(self, key: Key) -> tuple[Row, bytes] | None:
        """The row of `key` and its bytes, verified; None when there is none, it is past its time, or damaged."""
        row = self._verified.get(key)
        if row is not None and not self.is_past(row):
            data = self._read(row)
            if data is not None:
                return row, data
        row = self._find(key)
        data = None if row is None else self._read(row)
        return None if row is None or data is None else (row, data)

    def verify(self, key: Key) -> None:
        """Read what is kept under `key` and check it, though it may have been found right before."""
        self._verified.pop(key, None)
        self.get(key)

    def count_hit(self, row: Row) -> None:
        """Have a hit recorded with the next batch."""
        self._pending.append(row.id)
        if len(self._pending) >= _HITS_IN_A_BATCH and not self._flushing:
            # In a thread of its own, for it may have to wait for the disk.
            self._flushing = True
            threading.Thread(target=self.flush, name="meshkiln-flush-hits", daemon=True).start()

    def count_hits(self, hits: Mapping[Key, int]) -> None:
        """Have many hits recorded with the next batch."""
        self._pending.extend(id_ for key, count in hits.items() for id_ in [row_id(key)] * count)

    def is_past(self, row: Row) -> bool:
        return row.expires is not None and row.expires <= self._clock()

    def fault(self, error: Exception) -> None:
        """Count what the medium raised; a store that was closed under a computation has no fault."""
        if self.index.closed:
            return
        why = reason(error)
        self.faults.add(why, error)
        if why == "corrupt index":
            generations.mark_broken(self.generation)

    def sweep(self) -> int:
        """Remove files that no row names, and settle what dead writers left; returns how many were removed."""
        with self.index.reading() as connection:
            removed = self.files.sweep(lambda name: rows.names_file(connection, name))
            return removed + self.files.sweep_objects(lambda name: rows.names_file(connection, name))

    # Writing.

    def put(self, new: New, replace: bool) -> tuple[int, int]:
        """Whether the key is kept now, and whether as this artifact (1) or as the first stored (0)."""
        return self.put_small([new], replace) if new.inline else self._put_file(new, replace)

    def put_small(self, news: list[New], replace: bool) -> tuple[int, int]:
        """As `put`, for artifacts that all live in the index, in one transaction: how many of each."""
        with self.index.writing() as connection:
            self._make_room(connection, sum(new.charge for new in news))
            done = [self._insert(connection, new, None, replace) for new in news]
        self._remove(gone for _, _, gone in done)
        return sum(kept for kept, _, _ in done), sum(added for _, added, _ in done)

    def _put_file(self, new: New, replace: bool) -> tuple[int, int]:
        with self.index.writing() as connection:
            self._make_room(connection, new.charge)
            # Made inside the transaction, so that no other writer counts on the room this one has found.
            incoming = self.files.reserve(f"{row_id(new.key):016x}", len(new.artifact.data))
        try:
            incoming.write(new.artifact.data)
            with self.index.writing() as connection:
                # The bound may have been passed by others who have a higher one.
                self._make_room(connection, new.charge, incoming.name)
                kept, added, gone = self._insert(connection, new, incoming.name, replace)
            if added:
                incoming.publish(self.files.place(incoming.name))
        finally:
            incoming.close()
        self._remove([gone])
        return kept, added

    def delete(self, keys: Collection[Key]) -> set[Key]:
        """Forget those of `keys` that are there; which these were."""
        if self.index.unusable is not None:
            return set()
        # Nothing is written for what is not there: a medium that takes no writes need not let go of that.
        with self.index.reading() as connection:
            if not any(rows.find(connection, key) for key in keys):
                return set()
        with self.index.writing() as connection:
            there = [row for key in keys if (row := rows.find(connection, key)) is not None]
            rows.remove(connection, [(row.id, row.size) for row in there])
            self._remove(row.file for row in there)
        return {row.key for row in there if not self.is_past(row)}

    def clear(self) -> None:
        """Forget everything."""
        with self.index.writing() as connection:
            rows.remove_all(connection)
            room.give_back(connection, 0)
        self.files.sweep(lambda name: False)
        self.files.sweep_objects(lambda name: False)
        self.files.empty_quarantine()

    def flush(self, wait: float = 10.0) -> None:
        """Record this process's hits in the index; waits `wait` seconds for other writers."""
        try:
            if self._pending:
                with self.index.writing(wait) as connection:
                    self._flush(connection)
        except MEDIUM as error:
            if reason(error) != "busy":
                self.fault(error)
        finally:
            self._flushing = False

    def _insert(
        self, connection: sqlite3.Connection, new: New, file: str | None, replace: bool
    ) -> tuple[bool, bool, str | None]:
        """Whether the key is kept now, whether as this artifact, and the file of the one that it took the place of."""
        row = rows.find(connection, new.key)
        gone = None
        if row is not None:
            past = self.is_past(row)
            if not replace and not past:
                return True, False, None
            rows.remove(connection, [(row.id, row.size)])
            gone = row.file
            if past:
                self._count_expired(row)
        added = rows.add(connection, new, file, self._clock())
        if not added:
            self.faults.add("collision", new.key.hex(), "its row is another key's")
        return added, added, gone

    def _make_room(self, connection: sqlite3.Connection, needed: int, besides: str = "") -> None:
        self._flush(connection)
        evicted = room.make_room(connection, self.files, needed, self.max_bytes, self._clock(), besides)
        with self._lock:
            self.evictions.update(evicted)

    def _count_expired(self, row: Row) -> None:
        with self._lock:
            self.evictions.add("expired", rows.provenance_of(row.provenance))

    def _flush(self, connection: sqlite3.Connection) -> None:
        hits, self._pending = self._pending, []
        if hits:
            rows.touch(connection, Counter(hits), self._clock())

    def _remove(self, files: Iterable[str | None]) -> None:
        for file in files:
            if file is not None:
                self.files.remove(file)

    def _find(self, key: Key) -> Row | None:
        try:
            with self.index.reading() as connection:
                row = rows.find(connection, key)
        except MEDIUM as error:
            self.fault(error)
            return None
        if row is not None and self.is_past(row):
            if self._drop(row):
                self._count_expired(row)
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
            found = self.files.read(row.file, row.size)
        except OSError as error:
            self.fault(error)
            return None
        known = self._verified.get(row.key)
        if found is None:
            self._verified.pop(row.key, None)
            # Mostly evicted or replaced since the row was read; counted only if the row is still there.
            if self._drop(row):
                self.faults.add("missing", row.file, "it is made again")
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
        self.faults.add("corrupt", row.file or row.key.hex(), "it is put into quarantine and made again")
        with contextlib.suppress(OSError):
            self.files.quarantine(row.file or f"{row.id:016x}-inline", data, self.max_bytes // 100)
        self._drop(row)

    def _drop(self, row: Row) -> bool:
        """Remove a row, unless it is another's by now or others are writing; True when it was removed."""

        def still_there(connection: sqlite3.Connection) -> bool:
            found = rows.find(connection, row.key)
            return found is not None and (found.file, found.digest) == (row.file, row.digest)

        try:
            with self.index.reading() as connection:
                if not still_there(connection):
                    return False
            with self.index.writing(wait=0.1) as connection:
                removed = still_there(connection) and rows.remove(connection, [(row.id, row.size)])
        except MEDIUM as error:
            if reason(error) != "busy":  # whoever is writing may be removing it
                self.fault(error)
            return False
        self._remove([row.file])
        return bool(removed)

    # Forks.

    def before_fork(self) -> None:
        self.index.before_fork()

    def after_fork(self) -> None:
        self.index.after_fork()

    def after_fork_in_child(self) -> None:
        """Threads that held the locks do not exist here; the parent records the hits it has had."""
        self._lock = threading.Lock()
        self.faults.renew_lock()
        self._pending, self._flushing = [], False
        self.index.after_fork_in_child()
