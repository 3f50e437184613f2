"""Jobs: what was accepted is on disk, in a database of its own outside eviction, before anybody is told so.

A job keeps its *request* (the picture's bytes and the parameters as they were given), never its keys: after an upgrade
it is resolved anew. Its result is pinned for the retention time by a copy of its own.

    <folder>/jobs.sqlite              one row per job, write-ahead log; acceptance is synced, what can be redone is not
    <folder>/pictures/<digest>        inputs, one file per content
    <folder>/results/<digest>         results, likewise
    <folder>/lock                     held by the server whose jobs these are
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshkiln import salvage
from meshkiln.errors import MeshkilnError, StoreError
from meshkiln.folders import require_local
from meshkiln.gateway.contents import Contents
from meshkiln.gateway.job import COLUMNS, UNFINISHED, Ask, Job, job_of, row_of
from meshkiln.keys import digest
from meshkiln.store.faults import reason, telling

ROWS_KEPT = 30 * 86400.0
"""Seconds a job's row outlives its files."""
_CHANGING = ("state", "started", "finished", "result", "error")
"""What a job has of which more becomes known."""

# What is damaged is no JSON, of which nothing could be extracted: nor could its row be put into an index, or out of it.
_KEY, _DIGEST, _DELETED = (
    f"CASE WHEN json_valid(result) THEN json_extract(result, '$.{name}') END" for name in ("key", "digest", "deleted")
)

log = logging.getLogger(__name__)


class IdempotencyConflict(MeshkilnError):
    """An idempotency key was used before for another request."""


class Jobs:
    """The jobs of one server, safe to use from many threads.

    folder : where; made with mode 0700, and one server's at a time
    retention : seconds a finished job and its result are kept
    clock : seconds since the epoch
    Raises StoreError when the folder cannot be used: a server that cannot keep what it accepts does not start.
    """

    def __init__(self, folder: Path, retention: float = 86400.0, clock: Callable[[], float] = time.time) -> None:
        self.retention, self.clock = retention, clock
        self._pictures, self._results = Contents(folder / "pictures"), Contents(folder / "results")
        # Writers wait for one another (and for the disk); readers wait only for readers.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._late: dict[str, Job] = {}
        require_local(folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = _hold(folder / "lock")
            self._pictures.make()
            self._results.make()
            self._writer = salvage.opened(folder / "jobs.sqlite", _with_tables)
            self._reader = _connected(folder / "jobs.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"jobs cannot be kept in {folder}: {error}") from error

    def accept(
        self,
        ask: Ask,
        picture: bytes,
        *,
        client: str = "",
        priority: int = 0,
        deadline: float | None = None,
        idempotency: str | None = None,
    ) -> tuple[Job, bool]:
        """The job for `ask`, on disk, and whether it is new: the same idempotency key gives the same job again.

        Raises IdempotencyConflict when the key was used for another request, StoreError when the disk does not take it.
        """
        name = digest(picture).hex()
        now = self.clock()
        # Ids sort by the time of acceptance, and nobody can guess another's.
        id = f"{int(now * 1000):012x}{secrets.token_hex(10)}"
        job = Job(id, ask, name, client, priority, deadline, idempotency, created=now)
        try:
            # Nobody else waits for this; a fresh file is left alone by `expire`, which the check below relies on.
            self._pictures.put(name, picture, durable=True)
            with self._writing:
                before = self._again(ask, name, client, idempotency)
                if before is not None:
                    return before, False
                if name not in self._pictures:
                    self._pictures.put(name, picture, durable=True)
                with self._durably():
                    self._writer.execute(
                        f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", row_of(job)
                    )
        except (OSError, sqlite3.Error, MeshkilnError) as error:
            if isinstance(error, IdempotencyConflict):
                raise
            raise StoreError(f"the job cannot be kept: {error}", f"the job cannot be kept: {reason(error)}") from error
        return job, True

    def asked_before(self, ask: Ask, picture: bytes, client: str, idempotency: str) -> Job | None:
        """The job that this key was used for. Raises IdempotencyConflict when that was another request."""
        name = digest(picture).hex()
        with self._writing, telling("the jobs cannot be read"):
            return self._again(ask, name, client, idempotency)

    def update(self, job: Job, **changes: Any) -> Job:
        """`job` with `changes`, on disk. A finished job stays as it is (the first end counts).

        What the disk does not take is true all the same: it is remembered and written later (`expire`).
        """
        with self._writing:
            late = self._late.get(job.id)
            if late is not None and late.done:
                return late
            changed = replace(late or job, **changes)
            try:
                # What the disk did not take before is written with it, and would else be told in its place.
                self._write(changed, changes if late is None else _CHANGING)
                self._late.pop(job.id, None)
                return self._one(self._writer, "id = ?", (job.id,)) or changed
            except sqlite3.Error as error:
                log.error("job %s is %s, but that cannot be written: %s", job.id, changed.state, error)
                self._late[job.id] = changed
                return changed

    def get(self, id: str) -> Job | None:
        """The job of that id."""
        late = self._late.get(id)
        return late if late is not None else self._read("id = ?", (id,))

    def of_key(self, key: str) -> Job | None:
        """The newest job whose result has that key (hexadecimal)."""
        return self._read(f"{_KEY} = ? ORDER BY id DESC LIMIT 1", (key,))

    def of_pictures(self, key: str) -> list[Job]:
        """Every job of a picture of which a job's result has that key (hexadecimal)."""
        pictures = f"SELECT picture FROM jobs WHERE {_KEY} = ?"
        with self._reads() as reader:
            found = reader.execute(
                f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE picture IN ({pictures})", (key,)
            ).fetchall()
        return [self._late.get(job.id, job) for job in map(job_of, found)]

    def newest(self, limit: int, before: str | None = None, state: str | None = None) -> list[Job]:
        """Jobs, newest first: at most `limit`, older than the id `before`, in `state`."""
        conditions, values = ["1"], list[Any]()
        if before is not None:
            conditions.append("id < ?")
            values.append(before)
        if state is not None:
            conditions.append("state = ?")
            values.append(state)
        with self._reads() as reader:
            found = reader.execute(
                f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [self._late.get(job.id, job) for job in map(job_of, found)]

    def unfinished(self) -> list[Job]:
        """What was accepted and not finished, oldest first: what a restarted server goes on with.

        A row that cannot be read any more is marked as failed, for good.
        """
        with self._reads() as reader:
            # Ids are in the order of acceptance to the millisecond only.
            found = reader.execute(
                f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE state IN (?, ?) ORDER BY rowid", UNFINISHED
            ).fetchall()
        jobs = [job_of(row) for row in found]
        for job in jobs:
            if job.done:
                self._give_up(job)
        return [job for job in jobs if not job.done]

    def _give_up(self, job: Job) -> None:
        log.error("what was kept of job %s cannot be read any more: it has failed", job.id)
        values = (job.state, self.clock(), json.dumps(job.error), job.id)
        # What the disk does not take is found again at the next start.
        with self._writing, contextlib.suppress(sqlite3.Error):
            self._writer.execute("UPDATE jobs SET state = ?, finished = ?, error = ? WHERE id = ?", values)

    def picture(self, job: Job) -> bytes:
        """The picture's bytes. Raises StoreError when they are gone."""
        try:
            return self._pictures.get(job.picture)
        except OSError as error:
            told = f"the picture of job {job.id} is gone: {error.strerror}"
            raise StoreError(told, told) from error

    def keeps_picture(self, job: Job) -> bool:
        """Whether the picture's bytes are still there."""
        return job.picture in self._pictures

    def pin(self, name: str, data: bytes) -> None:
        """Keep a result's bytes under its digest (hexadecimal) for as long as a job names it."""
        # Not synced, and a full disk does not fail a finished generation: a result can be made again.
        with contextlib.suppress(OSError, MeshkilnError):
            self._results.put(name, data)

    def pinned(self, name: str) -> bytes | None:
        """The bytes of a pinned result, verified, or None."""
        return self._results.verified(name)

    def delete_results(self, jobs: Collection[Job]) -> None:
        """Let go of the results of jobs that succeeded, for good, and of pictures that no other job needs.

        Raises StoreError when the disk does not take it.
        """
        now = self.clock()
        deleted = [replace(job, result={**(job.result or {}), "deleted": now}) for job in jobs]
        with telling("the results cannot be deleted"), self._writing, self._durably():
            for job in deleted:
                if job.id in self._late:
                    self._late[job.id] = job
            rows = [(json.dumps(job.result), job.id) for job in deleted]
            self._writer.executemany("UPDATE jobs SET result = ? WHERE id = ?", rows)
        for job in deleted:
            assert job.result is not None
            with contextlib.suppress(sqlite3.Error):  # else `expire` does it
                self._expired(self._results, job.result["digest"], _DIGEST, now)
                self._expired(self._pictures, job.picture, "picture", now)

    def expire(self) -> int:
        """Let go of the pictures and results of jobs that ended longer ago than the retention time; how many files.

        What is left of such a job is its row, so that its result is "gone" and not "unknown"; rows go later.
        """
        now = self.clock()
        with self._writing:
            for job in list(self._late.values()):
                self._write(job, _CHANGING)
                del self._late[job.id]
            self._forget(now - self.retention - ROWS_KEPT)
        gone = 0
        for files, column in ((self._pictures, "picture"), (self._results, _DIGEST)):
            for name in files:
                gone += self._expired(files, name, column, now)
        return gone

    def _forget(self, before: float) -> None:
        """Let go of the rows of jobs that ended before then."""
        forget = ("DELETE FROM jobs WHERE state NOT IN (?, ?) AND finished < ?", (*UNFINISHED, before))
        try:
            self._writer.execute(*forget)
        except sqlite3.DatabaseError as error:
            if not salvage.is_damage(error):
                raise
            # In the indexes a damaged row has the place of what it said before.
            self._writer.execute("REINDEX jobs")
            self._writer.execute(*forget)

    def _expired(self, files: Contents, name: str, column: str, now: float) -> bool:
        """Remove a file that no job needs any more; one lock for each, so that nobody waits for all of them."""
        naming = f"SELECT 1 FROM jobs WHERE {column} = ?"
        needing = f"{naming} AND (state IN (?, ?) OR finished >= ? AND {_DELETED} IS NULL) LIMIT 1"
        with self._writing, contextlib.suppress(OSError):
            if self._writer.execute(needing, (name, *UNFINISHED, now - self.retention)).fetchone():
                return False
            named = self._writer.execute(f"{naming} LIMIT 1", (name,)).fetchone()
            return files.remove(name, spare_fresh=named is None)
        return False

    def poisoned(self) -> list[str]:
        """Names of inputs that killed workers, kept over restarts."""
        with self._reads() as reader:
            return [name for (name,) in reader.execute("SELECT name FROM poisoned")]

    def remember_poisoned(self, names: Iterable[str]) -> None:
        """Keep the names of inputs that killed workers."""
        with self._writing:
            self._writer.executemany("INSERT OR IGNORE INTO poisoned VALUES (?)", [(name,) for name in names])

    def close(self) -> None:
        """Close the database; another server may have the folder then."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
            os.close(self._held)

    @contextlib.contextmanager
    def _durably(self) -> Iterator[None]:
        """What is written meanwhile is on the medium when it is done.

        Everything else can be done again: a result is found in the store, a cancelled job is asked for by nobody.
        """
        self._writer.execute("PRAGMA synchronous=FULL")
        try:
            yield
        finally:
            self._writer.execute("PRAGMA synchronous=NORMAL")

    def _again(self, ask: Ask, picture: str, client: str, idempotency: str | None) -> Job | None:
        if idempotency is None:
            return None
        before = self._one(self._writer, "client = ? AND idempotency = ?", (client, idempotency))
        if before is not None and (before.ask, before.picture) != (ask, picture):
            raise IdempotencyConflict(
                f"Idempotency-Key {idempotency!r} was used before for another request; choose a new one"
            )
        return before and self._late.get(before.id, before)

    def _write(self, job: Job, names: Iterable[str]) -> None:
        values = dict(zip(COLUMNS, row_of(job), strict=True))
        self._writer.execute(
            f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ? AND state IN (?, ?)",
            (*(values[name] for name in names), job.id, *UNFINISHED),
        )

    def _read(self, condition: str, values: tuple[Any, ...]) -> Job | None:
        with self._reads() as reader:
            return self._one(reader, condition, values)

    @contextlib.contextmanager
    def _reads(self) -> Iterator[sqlite3.Connection]:
        with self._reading, telling("the jobs cannot be read"):
            yield self._reader

    def _one(self, connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]) -> Job | None:
        row = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {condition}", values).fetchone()
        return None if row is None else job_of(row)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.text_factory = salvage.legible
    return connection


def _with_tables(path: Path) -> sqlite3.Connection:
    connection = _connected(path)
    connection.executescript(
        "PRAGMA journal_mode=WAL;"
        "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, ask TEXT NOT NULL, picture TEXT NOT NULL,"
        " client TEXT NOT NULL, priority INTEGER NOT NULL, deadline REAL, idempotency TEXT,"
        " state TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL, result TEXT, error TEXT);"
        "CREATE UNIQUE INDEX IF NOT EXISTS once ON jobs (client, idempotency) WHERE idempotency IS NOT NULL;"
        "CREATE INDEX IF NOT EXISTS by_state ON jobs (state, id);"
        "CREATE INDEX IF NOT EXISTS by_picture ON jobs (picture);"
        # Those of former versions, which a damaged result cannot be taken out of.
        "DROP INDEX IF EXISTS by_key;"
        "DROP INDEX IF EXISTS by_digest;"
        f"CREATE INDEX IF NOT EXISTS by_key_told ON jobs ({_KEY});"
        f"CREATE INDEX IF NOT EXISTS by_digest_told ON jobs ({_DIGEST});"
        "CREATE TABLE IF NOT EXISTS poisoned (name TEXT PRIMARY KEY);"
    )
    return connection


def _hold(path: Path) -> int:
    """Hold the folder for this server; the system lets go of it should the process die."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreError(
            f"the jobs in {path.parent} are another running server's; stop it, or set data_dir to another folder"
        ) from None
    return handle
