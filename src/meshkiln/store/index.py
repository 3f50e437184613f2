"""The SQLite index of the disk store: its tables, its connections, and what happens to them at a fork.

Write-ahead log with `synchronous=NORMAL`: a commit costs no fsync (only a checkpoint does), so small records are
cheap. Killing a process loses nothing that was committed; a power cut may lose the last commits, never the index's
consistency (https://www.sqlite.org/pragma.html#pragma_synchronous).

One connection writes, behind a lock; readers borrow from a pool that grows to the number of threads reading at once.
Beside a busy writer four readers get as much from it as from a connection per thread (whose number would grow with the
threads that come by) and a fifth more than from one connection shared by all; a single reader would be served best by
the shared one, which sees its own writes without dropping its cache, but would wait for every checkpoint's fsync
(`benchmarks/disk_store.py`, "connections").
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from meshkiln import salvage

PAGE = 4096
"""Bytes in a page of the index."""

# `artifacts` never change and hold small data inline; what changes with every hit is in the narrow `ranks`, so that
# recording hits does not rewrite artifacts. The rowid of both is derived from the key (`row_id`): one descent of one
# tree finds an artifact. data comes last, behind what listings read.
_SCHEMA = """
CREATE TABLE artifacts(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, cost REAL NOT NULL,
    expires REAL, file TEXT, media_type TEXT NOT NULL, source BLOB, created REAL NOT NULL, provenance TEXT NOT NULL,
    data BLOB);
CREATE INDEX by_source ON artifacts(source) WHERE source IS NOT NULL;
CREATE INDEX by_expiry ON artifacts(expires) WHERE expires IS NOT NULL;
CREATE TABLE ranks(
    id INTEGER PRIMARY KEY, priority REAL NOT NULL, frequency INTEGER NOT NULL, worth REAL NOT NULL,
    charge INTEGER NOT NULL, last_hit REAL);
CREATE INDEX by_priority ON ranks(priority);
CREATE TABLE totals(entries INTEGER NOT NULL, bytes INTEGER NOT NULL, charge INTEGER NOT NULL, clock REAL NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0.0);
CREATE TABLE leases(key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL, boot TEXT NOT NULL)
    WITHOUT ROWID;
"""

# What is newest of a kind, and what is dearest, is found here without looking at artifacts. Younger than the format:
# added to an index that has none.
_BY_AGE = "CREATE INDEX IF NOT EXISTS by_age ON artifacts(media_type, created, cost, size, expires)"

_LOG_WAIT = 1.0
"""Seconds that a writer waits at most to have the log emptied."""

_LARGEST_PRIME = 2**63 - 25  # the largest prime a rowid can hold


def row_id(key: bytes) -> int:
    """The row of `key`: its value modulo a prime of 63 bits.

    Two keys meet in a row once in about 10⁷ stores of 10⁶ artifacts each; then the first stays and the other is never
    kept. Rows hold the whole key, so a meeting can cost a recomputation but never return the wrong artifact.
    """
    return int.from_bytes(key, "big") % _LARGEST_PRIME


class Index:
    """Connections to one index file. Safe to use from many threads, and across `os.fork`.

    SQLite's locks do not survive a fork: not only inherited connections but new ones to the same file in the child
    would believe in locks that the kernel holds for the parent alone. So `before_fork` every connection is closed (the
    fork waits for running statements), and parent and child open their own when they next need one.
    """

    def __init__(
        self, path: Path, *, wal_bytes: int = 0, read_only: bool = False, unusable: Exception | None = None
    ) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self.unusable = unusable
        self._wal_pages = max(64, wal_bytes // PAGE)
        self._read_only = read_only
        self._gate = threading.Condition()  # guards the pool
        self._pool: list[sqlite3.Connection] = []
        self._borrowed = 0
        self._paused = self.closed = False
        self._write_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection nobody else uses meanwhile. Raises sqlite3.Error."""
        connection = self._borrow()
        try:
            yield connection
        finally:
            self._give_back(connection)

    @contextmanager
    def writing(self, wait: float = 10.0) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, rolled back if anything is raised.

        wait : seconds to wait for other threads and then for other processes. Raises sqlite3.OperationalError (busy)
            after that, and any other sqlite3.Error.
        """
        if not self._write_lock.acquire(timeout=wait):
            raise _busy()
        try:
            if self._writer is None:
                self._writer = self._connect()
            writer = self._writer
            writer.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
                self._bound_log(writer)
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
        finally:
            self._write_lock.release()

    def create(self) -> None:
        """Make the tables unless they are there. Raises sqlite3.DatabaseError when the file is not an index."""
        exist = "SELECT name FROM sqlite_schema WHERE name IN ('artifacts', 'by_age')"
        with self.reading() as connection:
            if len(connection.execute(exist).fetchall()) == 2:
                return
        with self.writing() as connection:
            if not connection.execute(exist).fetchall():
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
            connection.execute(_BY_AGE)

    def close(self) -> None:
        """Close every connection once the statements that are running have ended."""
        with self._write_lock:
            self._pause()
            self.closed = True
            self._resume()

    def _bound_log(self, writer: sqlite3.Connection) -> None:
        # SQLite's own checkpoints let others write meanwhile, and so under many writers never reach the log's end,
        # which therefore grows. This one makes them wait. It is refused while another is going on: then we wait.
        until = time.monotonic() + _LOG_WAIT
        with contextlib.suppress(OSError):
            while os.stat(self._log).st_size > self._wal_pages * PAGE * 3 // 2:
                writer.execute(f"PRAGMA busy_timeout={int(_LOG_WAIT * 1000)}")
                ((refused, _, _),) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                if refused:
                    if time.monotonic() > until:
                        return  # a reader that stands still; the log is bounded again once it goes on
                    time.sleep(0.002)

    def _borrow(self) -> sqlite3.Connection:
        with self._gate:
            while self._paused:
                self._gate.wait()
            self._borrowed += 1
            if self._pool:
                return self._pool.pop()
        try:
            return self._connect()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, connection: sqlite3.Connection | None) -> None:
        with self._gate:
            self._borrowed -= 1
            if connection is not None:
                self._pool.append(connection)
            if self._paused:
                self._gate.notify_all()

    def _connect(self) -> sqlite3.Connection:
        # Not memory-mapped: that makes a read among 10⁶ artifacts 9 % cheaper while nobody writes, but every commit
        # drops the mapping, after which it is 25 % dearer; and a disk that fails to read a mapped page kills the
        # process, where now it costs a miss.
        if self.closed:
            raise sqlite3.ProgrammingError("the store is closed")
        if self.unusable is not None:
            raise self.unusable
        if self._read_only:
            return self._connect_read_only()
        connection = sqlite3.connect(
            self._path, timeout=10.0, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            connection.text_factory = salvage.legible
            # page_size and auto_vacuum count only while the file is empty.
            connection.execute(f"PRAGMA page_size={PAGE}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA secure_delete=OFF")
            connection.execute(f"PRAGMA wal_autocheckpoint={self._wal_pages}")
            connection.execute(f"PRAGMA journal_size_limit={self._wal_pages * PAGE}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        # Without write permission a log that exists can be read, but none can be created. `immutable` says that
        # nobody writes; should somebody do so after all, digests catch what is read wrong.
        mode = "mode=ro" if self._log.exists() else "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?{mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = salvage.legible
        connection.execute("PRAGMA query_only=1")
        return connection

    def _pause(self) -> None:
        """Close all connections and make those who want one wait. The caller holds the write lock."""
        with self._gate:
            self._paused = True
            while self._borrowed:
                self._gate.wait()
            while self._pool:
                self._pool.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _resume(self) -> None:
        with self._gate:
            self._paused = False
            self._gate.notify_all()

    def before_fork(self) -> None:
        """Close every connection, and let nobody open one until `after_fork`."""
        self._write_lock.acquire()
        self._pause()

    def after_fork(self) -> None:
        self._resume()
        self._write_lock.release()

    def after_fork_in_child(self) -> None:
        # Threads that waited on these in the parent do not exist here.
        self._gate = threading.Condition()
        self._write_lock = threading.Lock()
        self._paused = False


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("another thread has been writing for too long")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
