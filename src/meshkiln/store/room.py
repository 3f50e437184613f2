"""Making room: what is past its time goes first, then what has the lowest priority.

Whoever makes room is inside a write transaction, so of all processes one evicts at a time.
"""

from __future__ import annotations

import sqlite3

from meshkiln.store import rows
from meshkiln.store.base import Evictions
from meshkiln.store.files import Files
from meshkiln.store.index import PAGE

_BATCH = 64


def make_room(
    connection: sqlite3.Connection, files: Files, needed: int, limit: int, now: float, besides: str = ""
) -> Evictions:
    """Evict until `needed` more bytes of disk fit under `limit`; returns what went, and why.

    Files being written count as held, apart from the one named `besides`. Files go before the transaction ends: a
    kill in between leaves rows without files, which are misses, and never files without rows, which nobody counts.
    Raises sqlite3.Error and OSError.
    """
    evicted = Evictions()
    in_flight = files.reserved(besides)
    if _excess(connection, needed + in_flight, limit) <= 0:
        return evicted
    if in_flight:
        files.sweep(lambda name: rows.names_file(connection, name))
        in_flight = files.reserved(besides)
    while gone := rows.expired(connection, now, _BATCH):
        _evict(connection, files, gone, "expired", evicted)
    while (excess := _excess(connection, needed + in_flight, limit)) > 0:
        lowest = rows.lowest(connection, _BATCH)
        if not lowest:
            break
        gone = []
        for row in lowest:
            gone.append(row)
            clock, excess = row.priority, excess - row.charge
            if excess <= 0:
                break
        _evict(connection, files, gone, "size", evicted)
        rows.advance(connection, clock)
    give_back(connection, limit // 64)
    return evicted


def give_back(connection: sqlite3.Connection, spare: int) -> None:
    """Return free pages of the index to the filesystem when they exceed `spare` bytes."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free * PAGE > spare:
        connection.execute(f"PRAGMA incremental_vacuum({max(1, free - spare // PAGE // 2)})").fetchall()


def _excess(connection: sqlite3.Connection, needed: int, limit: int) -> int:
    return rows.totals(connection).charge + needed - limit


def _evict(
    connection: sqlite3.Connection, files: Files, gone: list[rows.Going], reason: str, evicted: Evictions
) -> None:
    rows.remove(connection, [(row.id, row.size) for row in gone])
    for row in gone:
        evicted.add(reason, rows.provenance_of(row.provenance))
        if row.file is not None:
            files.remove(row.file)
