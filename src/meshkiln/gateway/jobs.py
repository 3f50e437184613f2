"""Jobs: what was accepted is on disk, in a database of its own outside eviction, before anybody is told so.

A job keeps its *request* (the picture's bytes and the parameters as they were given), never its keys: after an upgrade
it is resolved anew. Its result is pinned for the retention time by a copy of its own.

    <folder>/jobs.sqlite              one row per job, write-ahead log, every commit synced
    <folder>/pictures/<digest>        inputs, one file per content
    <folder>/results/<digest>         results, likewise
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from meshkiln.errors import MeshkilnError, StoreError
from meshkiln.folders import require_local
from meshkiln.keys import digest
from meshkiln.output import write_whole

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
UNFINISHED = (QUEUED, RUNNING)
ROWS_KEPT = 30 * 86400.0
"""Seconds a job's row outlives its files."""


class IdempotencyConflict(MeshkilnError):
    """An idempotency key was used before for another request."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it was given: what a job keeps of it besides the picture."""

    engine: str
    parameters: Mapping[str, Any]
    recipe: str | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request and what became of it. Times in seconds since the epoch.

    picture : digest of the picture's bytes, hexadecimal
    result : once succeeded: key, digest, media_type, bytes, stages, cost_seconds, saved_seconds
    error : once failed: the problem document told to the caller
    """

    id: str
    ask: Ask
    picture: str
    client: str = ""
    priority: int = 0
    deadline: float | None = None
    idempotency: str | None = None
    state: str = QUEUED
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state not in UNFINISHED


_COLUMNS = tuple(f.name for f in fields(Job))
_JSON = {"ask", "result", "error"}


@dataclass(slots=True)
class _Paths:
    pictures: Path
    results: Path


@dataclass(slots=True)
class Jobs:
    """The jobs of one server, safe to use from many threads.

    folder : where; made with mode 0700
    retention : seconds a finished job and its result are kept
    clock : seconds since the epoch
    Raises StoreError when the folder cannot be used: a server that cannot keep what it accepts does not start.
    """

    folder: Path
    retention: float = 86400.0
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connection: sqlite3.Connection = field(init=False)
    _paths: _Paths = field(init=False)

    def __post_init__(self) -> None:
        require_local(self.folder)
        self._paths = _Paths(self.folder / "pictures", self.folder / "results")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._paths.pictures.mkdir(exist_ok=True)
            self._paths.results.mkdir(exist_ok=True)
            self._connection = sqlite3.connect(
                self.folder / "jobs.sqlite", check_same_thread=False, isolation_level=None
            )
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, ask TEXT NOT NULL, picture TEXT NOT NULL,"
                " client TEXT NOT NULL, priority INTEGER NOT NULL, deadline REAL, idempotency TEXT,"
                " state TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL, result TEXT, error TEXT);"
                "CREATE UNIQUE INDEX IF NOT EXISTS once ON jobs (client, idempotency) WHERE idempotency IS NOT NULL;"
                "CREATE INDEX IF NOT EXISTS by_state ON jobs (state, id);"
                "CREATE INDEX IF NOT EXISTS by_picture ON jobs (picture);"
                "CREATE INDEX IF NOT EXISTS by_key ON jobs (json_extract(result, '$.key'));"
                "CREATE TABLE IF NOT EXISTS poisoned (name TEXT PRIMARY KEY);"
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"jobs cannot be kept in {self.folder}: {error}") from error

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
            with self._lock:
                # The picture first, under the lock that expiry takes too: a row never names a file that is not there.
                _write_synced(self._paths.pictures / name, picture)
                if idempotency is not None:
                    before = self._one("client = ? AND idempotency = ?", (client, idempotency))
                    if before is not None:
                        if (before.ask, before.picture) != (ask, name):
                            raise IdempotencyConflict(
                                f"Idempotency-Key {idempotency!r} was used before for another request; choose a new one"
                            )
                        return before, False
                self._connection.execute(
                    f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", _row(job)
                )
        except (OSError, sqlite3.Error, MeshkilnError) as error:
            if isinstance(error, IdempotencyConflict):
                raise
            raise StoreError(f"the job cannot be kept: {error}") from error
        return job, True

    def update(self, job: Job, **changes: Any) -> Job:
        """`job` with `changes`, on disk. A finished job stays as it is (the first end counts)."""
        changed = replace(job, **changes)
        names = [name for name in _COLUMNS if name in changes]
        values = dict(zip(_COLUMNS, _row(changed), strict=True))
        with self._lock:
            self._connection.execute(
                f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ? AND state IN (?, ?)",
                (*(values[name] for name in names), job.id, *UNFINISHED),
            )
            return self._one("id = ?", (job.id,)) or changed

    def get(self, id: str) -> Job | None:
        """The job of that id."""
        with self._lock:
            return self._one("id = ?", (id,))

    def of_key(self, key: str) -> Job | None:
        """The newest job whose result has that key (hexadecimal)."""
        with self._lock:
            return self._one("json_extract(result, '$.key') = ? ORDER BY id DESC LIMIT 1", (key,))

    def newest(self, limit: int, before: str | None = None, state: str | None = None) -> list[Job]:
        """Jobs, newest first: at most `limit`, older than the id `before`, in `state`."""
        conditions, values = ["1"], list[Any]()
        if before is not None:
            conditions.append("id < ?")
            values.append(before)
        if state is not None:
            conditions.append("state = ?")
            values.append(state)
        with self._lock:
            found = self._connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [_job(row) for row in found]

    def unfinished(self) -> list[Job]:
        """What was accepted and not finished, oldest first: what a restarted server goes on with."""
        with self._lock:
            found = self._connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE state IN (?, ?) ORDER BY id", UNFINISHED
            ).fetchall()
        return [_job(row) for row in found]

    def picture(self, job: Job) -> bytes:
        """The picture's bytes. Raises StoreError when they are gone."""
        try:
            return (self._paths.pictures / job.picture).read_bytes()
        except OSError as error:
            raise StoreError(f"the picture of job {job.id} is gone: {error.strerror}") from error

    def pin(self, name: str, data: bytes) -> None:
        """Keep a result's bytes under its digest (hexadecimal) for as long as a job names it."""
        with self._lock, contextlib.suppress(OSError, MeshkilnError):
            # A full disk must not fail a finished generation: its result can be made again.
            _write_synced(self._paths.results / name, data)

    def pinned(self, name: str) -> bytes | None:
        """The bytes of a pinned result, verified, or None."""
        try:
            data = (self._paths.results / name).read_bytes()
        except OSError:
            return None
        return data if digest(data).hex() == name else None

    def expire(self) -> int:
        """Let go of the pictures and results of jobs that ended longer ago than the retention time; how many jobs.

        What is left of such a job is its row, so that its result is "gone" and not "unknown"; rows go later.
        """
        horizon = self.clock() - self.retention
        with self._lock:
            self._connection.execute(
                "DELETE FROM jobs WHERE state NOT IN (?, ?) AND finished < ?",
                (*UNFINISHED, horizon - ROWS_KEPT),
            )
            rows = self._connection.execute(
                "SELECT picture, result FROM jobs WHERE state IN (?, ?) OR finished >= ?", (*UNFINISHED, horizon)
            ).fetchall()
            ended = self._connection.execute(
                "SELECT count(*) FROM jobs WHERE state NOT IN (?, ?) AND finished < ?", (*UNFINISHED, horizon)
            ).fetchone()[0]
            pictures = {row[0] for row in rows}
            results = {json.loads(row[1])["digest"] for row in rows if row[1]}
            for folder, named in ((self._paths.pictures, pictures), (self._paths.results, results)):
                for path in folder.iterdir():
                    if path.name not in named:
                        path.unlink(missing_ok=True)
        return int(ended)

    def poisoned(self) -> list[str]:
        """Names of inputs that killed workers, kept over restarts."""
        with self._lock:
            return [name for (name,) in self._connection.execute("SELECT name FROM poisoned")]

    def remember_poisoned(self, names: tuple[str, ...]) -> None:
        """Keep the names of inputs that killed workers."""
        with self._lock:
            self._connection.executemany("INSERT OR IGNORE INTO poisoned VALUES (?)", [(name,) for name in names])

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _one(self, condition: str, values: tuple[Any, ...]) -> Job | None:
        row = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {condition}", values).fetchone()
        return None if row is None else _job(row)


def _row(job: Job) -> tuple[Any, ...]:
    values: list[Any] = []
    for name in _COLUMNS:
        value = getattr(job, name)
        if name == "ask":
            value = {
                "engine": value.engine,
                "parameters": dict(value.parameters),
                "recipe": value.recipe,
                "refresh": value.refresh,
            }
        values.append(json.dumps(value) if name in _JSON and value is not None else value)
    return tuple(values)


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return Job(**{**values, "ask": Ask(**values["ask"])})


def _write_synced(path: Path, data: bytes) -> None:
    """Write a file named by its content, through to the medium, unless it is there."""
    if path.exists():
        return
    write_whole(path, data)
    for opened in (path, path.parent):
        handle = os.open(opened, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
