"""The history: the last quarter of an hour finely, in memory; the last day coarsely, on disk, over restarts.

Every few seconds a sample is added; those of a minute become one row. Rows older than a day go, so the file stays at
some 1,440 rows of a few kB. It is beside the jobs and not in the store, which evicts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from meshkiln import salvage
from meshkiln.telemetry.form import sample_of
from meshkiln.telemetry.sample import Counts, Levels, Sample, between, together

FINE = 3.0
"""Seconds between samples."""
LIVE = 900.0
"""Seconds for which they are kept."""
COARSE = 60.0
"""Seconds of a row."""
DAY = 86400.0
"""Seconds for which rows are kept."""

log = logging.getLogger(__name__)


class History:
    """What happened lately. Safe to use from several threads.

    path : of the SQLite database; None keeps nothing on disk
    clock : () -> seconds since the epoch
    running : () -> seconds for which this machine has run, which stand still while it sleeps; None is `clock`
    A disk that does not take it costs the day, and nobody's answer: it is logged once.
    """

    def __init__(
        self, path: Path | None, clock: Callable[[], float], running: Callable[[], float] | None = None
    ) -> None:
        self.clock = clock
        self._running = running or clock
        self._lock = threading.Lock()  # guards everything below
        self._fine: deque[Sample] = deque(maxlen=int(LIVE / FINE))
        self._minute: list[Sample] = []
        self._rows: deque[Sample] = deque(maxlen=int(DAY / COARSE))
        self._before: tuple[float, float, Counts] | None = None
        self._database = None if path is None else self._opened(path)

    def _opened(self, path: Path) -> sqlite3.Connection | None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = salvage.opened(path, _connected)
            database.text_factory = bytes  # else one damaged byte would fail the reading of all rows
            now = self.clock()
            query = "SELECT at, sample FROM minutes WHERE at > ? AND at < ? ORDER BY at"
            for at, text in database.execute(query, (now - DAY, now + DAY)):
                # A row that nobody can read, or add to others, costs its minute.
                with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
                    self._rows.append(sample_of(at, *json.loads(text)))
        except (sqlite3.Error, OSError) as error:
            log.warning("the history of this server's counts cannot be kept in %s: %s", path, error)
            return None
        return database

    def add(self, counts: Counts, levels: Levels) -> None:
        """Take in how counts and levels stand now. The first look after a start tells no growth."""
        now, running = self.clock(), self._running()
        with self._lock:
            before, self._before = self._before, (now, running, counts)
            if before is None or now <= before[0] or running <= before[1]:
                return
            sample = Sample(now, running - before[1], between(before[2], counts), levels)
            if now - sample.seconds - before[0] > COARSE:
                self._close_minute()  # the machine slept: what was before is not of this minute
            self._fine.append(sample)
            self._minute.append(sample)
            if now - self._minute[0].at >= COARSE - FINE:
                self._close_minute()

    def _close_minute(self) -> None:
        if not self._minute:
            return
        row, self._minute = together(self._minute), []
        self._rows.append(row)
        if self._database is None:
            return
        try:
            text = json.dumps((row.seconds, row.grown, row.levels), separators=(",", ":"))
            self._database.execute("INSERT OR REPLACE INTO minutes VALUES (?, ?)", (row.at, text))
            self._database.execute("DELETE FROM minutes WHERE at <= ?", (row.at - DAY,))
        except sqlite3.Error as error:
            log.warning("the history of this server's counts cannot be written any more: %s", error)
            self._database = None

    def live(self) -> list[Sample]:
        """The samples of the last quarter of an hour, oldest first."""
        with self._lock:
            return [sample for sample in self._fine if sample.at > self.clock() - LIVE]

    def day(self) -> list[Sample]:
        """The last day by the minute, oldest first; the minute that is going on is the last."""
        with self._lock:
            rows = [row for row in self._rows if row.at > self.clock() - DAY]
            return [*rows, together(self._minute)] if self._minute else rows

    def close(self) -> None:
        """Keep the minute that was going on."""
        with self._lock:
            self._close_minute()
            database, self._database = self._database, None
            if database is not None:
                with contextlib.suppress(sqlite3.Error):
                    database.close()


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE IF NOT EXISTS minutes (at REAL PRIMARY KEY, sample TEXT NOT NULL)")
    return database
