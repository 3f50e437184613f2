"""Salvage: a damaged SQLite database is kept aside, and what can still be read of it goes on in a new one.

NAME                     in use
NAME.damaged-TIME        as it was found, for whoever wants to look (TIME in UTC)
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LAST_ROW = 2**63 - 1
PATIENCE = 5000
"""Reads of a damaged table that may fail before what is left of it is given up: a second, when nothing is readable."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

log = logging.getLogger(__name__)


def opened(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> sqlite3.Connection:
    """The database at `path`. One that is damaged is kept aside first, and its readable rows are in the new one.

    connect : opens a database and makes its tables unless they are there. Of tables without a rowid nothing goes on
    Nobody else may have it open meanwhile. Raises sqlite3.Error and OSError.
    """
    wrong = damage(path)
    if wrong:
        aside, kept = _replaced(path, connect)
        told = "%s is damaged (%s): it is kept as %s; rows that can still be read and go on: %d"
        log.error(told, path, wrong, aside, kept)
    return connect(path)


def damage(path: Path) -> str:
    """What is wrong with the database at `path`; empty when nothing is, or it cannot be opened for another reason."""
    if not path.is_file():
        return ""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else " ".join(str(found).split())
    except sqlite3.Error as error:
        return str(error) if is_damage(error) else ""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that what it reads is not what it wrote."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def legible(text: bytes) -> str:
    """A column's text. One that is damaged costs what it says, not the rows that are read with it."""
    return text.decode(errors="replace")


def readable(database: sqlite3.Connection, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a damaged table: each range of rowids that cannot be read whole is halved, widest ranges first."""
    query = f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
    waiting, failed = deque([(1, LAST_ROW)]), 0
    while waiting and failed < PATIENCE:
        low, high = waiting.popleft()
        try:
            for row in database.execute(query, (low, high)):
                yield row[1:]
                low = row[0] + 1
        except sqlite3.Error:
            failed += 1
            middle = (low + high) // 2
            waiting.extend(half for half in ((low, middle), (middle + 1, high)) if low < high and half[0] <= half[1])


def _replaced(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> tuple[Path, int]:
    """Have a new database take the place of the one at `path`: where that is now, and how many rows went on."""
    draft = path.with_name(path.name + ".new")
    _remove(draft)
    with contextlib.closing(connect(draft)) as database, contextlib.closing(sqlite3.connect(path)) as damaged:
        # Nothing is written there: it is how SQLite is told to read a file that is shorter than its header says.
        damaged.execute("PRAGMA writable_schema=ON")
        kept = sum(_carried(damaged, database, table) for table in _tables(database))
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    with contextlib.suppress(FileNotFoundError):
        os.replace(_log_of(path), _log_of(aside))
    # The damaged one has its name until another has: to be killed in between costs nothing.
    aside.unlink(missing_ok=True)
    os.link(path, aside)
    os.replace(draft, path)
    return aside, kept


def _carried(damaged: sqlite3.Connection, database: sqlite3.Connection, table: str) -> int:
    names = _columns(database, table)
    with contextlib.suppress(sqlite3.Error):
        there = set(_columns(damaged, table))
        names = [name for name in names if name in there]
    columns = ", ".join(names)
    into = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})"
    kept = 0
    database.execute("BEGIN")
    for row in readable(damaged, columns, table) if names else ():
        kept += database.execute(into, row).rowcount
    database.execute("COMMIT")
    return kept


def _tables(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _remove(path: Path) -> None:
    for left in (path, _log_of(path), path.with_name(path.name + "-shm")):
        left.unlink(missing_ok=True)
