"""Rows of the index and who of them goes first: GreedyDual-Size-Frequency, kept in SQLite for all processes at once.

An artifact's priority is `clock + frequency · worth`, where worth is the seconds that losing it costs per byte it
takes, and the clock is the highest priority evicted so far: what is not asked for grows old against it (Cherkasova,
"Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy", HPL-98-69R1, 1998). As in the
memory store a hit itself changes nothing here; priorities move when a batch of hits is flushed.

Functions on a connection inside a write transaction; they raise sqlite3.Error.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from meshkiln.keys import Digest, Key
from meshkiln.store.base import Artifact, Json
from meshkiln.store.index import PAGE, row_id


class Row(NamedTuple):
    """An artifact as the index has it. `file` names the file its bytes are in; None when they are in `data`."""

    id: int
    key: Key
    digest: Digest
    size: int
    cost: float
    expires: float | None
    file: str | None
    media_type: str
    provenance: str
    data: bytes | None

    def artifact(self, data: bytes) -> Artifact:
        return Artifact(data, self.digest, self.cost, self.media_type, provenance_of(self.provenance))


COLUMNS = "id, key, digest, size, cost, expires, file, media_type, provenance, data"
_FIND = f"SELECT {COLUMNS} FROM artifacts WHERE id = ?"


def find(connection: sqlite3.Connection, key: Key) -> Row | None:
    """The row of `key`, or None. Past its time or not."""
    row = connection.execute(_FIND, (row_id(key),)).fetchone()
    return Row._make(row) if row is not None and row[1] == key else None


def holds(connection: sqlite3.Connection, key: Key, now: float) -> bool:
    """Whether `key` has a row that is not past its time."""
    row = connection.execute("SELECT key, expires FROM artifacts WHERE id = ?", (row_id(key),)).fetchone()
    return row is not None and row[0] == key and (row[1] is None or row[1] > now)


def charge(size: int, provenance: str, inline: bool) -> int:
    """Bytes of disk that an artifact of `size` bytes takes, what the index says about it included.

    Follows how SQLite lays rows out (https://www.sqlite.org/fileformat2.html, section 1.6): what a page cannot hold
    spills into pages of its own, and of the rows that would fit into a page some three quarters are there, because
    keys come in no order. `benchmarks/disk_store.py` compares the sum of charges with what the folder takes.
    """
    payload = 160 + len(provenance) + (size if inline else 0)
    spilled = 0
    if payload > PAGE - 35:
        local = 489 + (payload - 489) % (PAGE - 4)
        local = local if local <= PAGE - 35 else 489
        spilled = -(-(payload - local) // (PAGE - 4)) * PAGE
        payload = local
    in_a_page = max(1, (PAGE - 8) // (payload + 6))
    row = PAGE if in_a_page == 1 else PAGE * 4 // (3 * in_a_page)
    return row + spilled + _IN_OTHER_TREES + (0 if inline else -(-size // PAGE) * PAGE)


_IN_OTHER_TREES = 176


class Totals(NamedTuple):
    """What the store holds, and its clock. bytes: of artifacts; charge: of disk."""

    entries: int
    bytes: int
    charge: int
    clock: float


def totals(connection: sqlite3.Connection) -> Totals:
    return Totals(*connection.execute("SELECT entries, bytes, charge, clock FROM totals").fetchone())


@dataclass(frozen=True)
class New:
    """What is about to be put. size: bytes of its data, which need not be in hand when a file has them already."""

    artifact: Artifact
    size: int
    key: Key
    provenance: str
    charge: int
    miss_cost: float
    inline: bool
    expires: float | None

    @classmethod
    def of(cls, key: Key, artifact: Artifact, miss_cost: float | None, expires: float | None, inline_limit: int) -> New:
        provenance = json.dumps(dict(artifact.provenance), separators=(",", ":"))
        size = len(artifact.data)
        inline = size <= inline_limit
        return cls(
            artifact,
            size,
            key,
            provenance,
            charge(size, provenance, inline),
            artifact.cost if miss_cost is None else miss_cost,
            inline,
            expires,
        )


def add(connection: sqlite3.Connection, new: New, file: str | None, now: float) -> bool:
    """Insert a row; False when its place is taken."""
    artifact, id_ = new.artifact, row_id(new.key)
    added = connection.execute(
        "INSERT INTO artifacts"
        "(id, key, digest, size, cost, expires, file, media_type, source, created, provenance, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            id_,
            new.key,
            artifact.digest,
            new.size,
            artifact.cost,
            new.expires,
            file,
            artifact.media_type,
            _source(artifact.provenance),
            now,
            new.provenance,
            artifact.data if new.inline else None,
        ),
    ).rowcount
    if added:
        worth = new.miss_cost / new.charge
        connection.execute(
            "INSERT INTO ranks(id, priority, frequency, worth, charge) SELECT ?, clock + ?, 1, ?, ? FROM totals",
            (id_, worth, worth, new.charge),
        )
        _account(connection, 1, new.size, new.charge)
    return bool(added)


def remove(connection: sqlite3.Connection, rows: list[tuple[int, int]]) -> int:
    """Delete rows, given as (id, size); returns how many were there."""
    removed = freed = charged = 0
    for id_, size in rows:
        found = connection.execute("DELETE FROM ranks WHERE id = ? RETURNING charge", (id_,)).fetchall()
        if found:
            connection.execute("DELETE FROM artifacts WHERE id = ?", (id_,))
            removed, freed, charged = removed + 1, freed + size, charged + found[0][0]
    if removed:
        _account(connection, -removed, -freed, -charged)
    return removed


def remove_all(connection: sqlite3.Connection) -> None:
    """Delete every row; the clock stays."""
    connection.execute("DELETE FROM artifacts")
    connection.execute("DELETE FROM ranks")
    connection.execute("UPDATE totals SET entries = 0, bytes = 0, charge = 0")


def touch(connection: sqlite3.Connection, hits: Mapping[int, int], now: float) -> None:
    """Record a batch of hits: row id -> how many."""
    clock = totals(connection).clock
    connection.executemany(
        "UPDATE ranks SET frequency = frequency + ?1, priority = ?2 + (frequency + ?1) * worth, last_hit = ?3"
        " WHERE id = ?4",
        [(count, clock, now, id_) for id_, count in hits.items()],
    )


def provenance_of(text: str) -> Mapping[str, Json]:
    """What a row tells of its artifact; nothing when it is damaged."""
    try:
        told = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


class Going(NamedTuple):
    """A row that may have to go, and what is told of what it holds."""

    id: int
    size: int
    file: str | None
    provenance: str
    priority: float = 0.0
    charge: int = 0


def lowest(connection: sqlite3.Connection, limit: int) -> list[Going]:
    """The rows to evict first."""
    found = connection.execute(
        "SELECT ranks.id, size, file, provenance, priority, charge FROM ranks JOIN artifacts USING (id)"
        " ORDER BY priority LIMIT ?",
        (limit,),
    )
    return [Going._make(row) for row in found]


def expired(connection: sqlite3.Connection, now: float, limit: int) -> list[Going]:
    """Rows past their time."""
    found = connection.execute(
        "SELECT id, size, file, provenance FROM artifacts WHERE expires <= ? LIMIT ?", (now, limit)
    )
    return [Going(*row) for row in found]


def advance(connection: sqlite3.Connection, clock: float) -> None:
    """Let the clock show the priority of what was evicted."""
    connection.execute("UPDATE totals SET clock = max(clock, ?)", (clock,))


def _account(connection: sqlite3.Connection, entries: int, size: int, charged: int) -> None:
    connection.execute(
        "UPDATE totals SET entries = entries + ?, bytes = bytes + ?, charge = charge + ?", (entries, size, charged)
    )


def _source(provenance: Mapping[str, Json]) -> bytes | None:
    """The source named in a provenance (hex), as bytes; None when it names none."""
    source = provenance.get("source")
    try:
        return bytes.fromhex(source) if isinstance(source, str) else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Entry:
    """What the index says about an artifact, without its bytes. Times in seconds since the epoch, sizes in bytes."""

    key: Key
    size: int
    cost: float
    media_type: str
    provenance: Mapping[str, Json]
    created: float
    last_hit: float | None
    hits: int
    expires: float | None

    @property
    def cost_per_byte(self) -> float:
        """Seconds."""
        return self.cost / max(1, self.size)


_ENTRIES = (
    "SELECT id, key, size, cost, media_type, provenance, created, last_hit, frequency - 1, expires"
    " FROM artifacts JOIN ranks USING (id)"
)
_IN_TIME = "(expires IS NULL OR expires > ?)"


def entries(connection: sqlite3.Connection, after: int, limit: int, now: float) -> list[tuple[int, Entry]]:
    """The next entries behind row `after` that are not past their time, with their rows."""
    found = connection.execute(f"{_ENTRIES} WHERE id > ? AND {_IN_TIME} ORDER BY id LIMIT ?", (after, now, limit))
    return [(row[0], _entry(row)) for row in found]


def newest(connection: sqlite3.Connection, media_type: str, before: float, now: float) -> Iterator[Entry]:
    """Entries of that type created before then and not past their time, newest first; as many as are asked for."""
    where = f"media_type = ? AND created < ? AND {_IN_TIME} ORDER BY created DESC"
    return map(_entry, connection.execute(f"{_ENTRIES} WHERE {where}", (media_type, before, now)))


def dearest(connection: sqlite3.Connection, limit: int, besides: str, now: float) -> list[Entry]:
    """Entries with the most cost per byte that are not of the type `besides`, dearest first."""
    dear = f"SELECT id FROM artifacts WHERE media_type != ? AND {_IN_TIME} ORDER BY cost / max(size, 1) DESC LIMIT ?"
    found = connection.execute(f"{_ENTRIES} WHERE id IN ({dear})", (besides, now, limit))
    return sorted(map(_entry, found), key=lambda entry: -entry.cost_per_byte)


def _entry(row: tuple[Any, ...]) -> Entry:
    _, key, size, cost, media_type, provenance, *rest = row
    return Entry(key, size, cost, media_type, provenance_of(provenance), *rest)


def keys(connection: sqlite3.Connection, after: int, limit: int, now: float) -> list[tuple[int, Key]]:
    """The next keys behind row `after`, with their rows."""
    return connection.execute(
        "SELECT id, key FROM artifacts WHERE id > ? AND (expires IS NULL OR expires > ?) ORDER BY id LIMIT ?",
        (after, now, limit),
    ).fetchall()


def of_source(connection: sqlite3.Connection, source: str) -> list[Key]:
    """Keys of the artifacts whose provenance names `source` (hex)."""
    found = connection.execute("SELECT key FROM artifacts WHERE source = ?", (bytes.fromhex(source),)).fetchall()
    return [key for (key,) in found]


def names_file(connection: sqlite3.Connection, file: str) -> bool:
    """Whether a row names `file`. A file's name begins with its row."""
    try:
        id_ = int(file.partition("-")[0], 16)
    except ValueError:
        return False
    if id_ >= 2**63:  # somebody else's file: rows have no such numbers
        return False
    return connection.execute("SELECT 1 FROM artifacts WHERE id = ? AND file = ?", (id_, file)).fetchone() is not None
