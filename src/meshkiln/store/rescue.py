"""What a broken index can still tell goes on in the generation that takes its place, files and all.

Nothing that is read there has to be believed: a small artifact is held against its digest here, a large one at its
first read, as always. How often each was asked for is forgotten.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from meshkiln.keys import digest
from meshkiln.salvage import legible, readable
from meshkiln.store import rows
from meshkiln.store.base import Artifact
from meshkiln.store.files import Files
from meshkiln.store.index import Index, row_id

_COLUMNS = "key, digest, size, cost, expires, file, media_type, created, provenance, data"
_AT_ONCE = 200
"""Rows in a transaction: some megabytes of small artifacts."""


def carry(broken: Path, index: Index, files: Files) -> int:
    """Take over what the generation `broken` can still tell; returns how many artifacts that is.

    Files are linked, not copied, so `broken` stays as it is. Raises sqlite3.Error and OSError of the new generation.
    """
    former, carried = Files(broken), 0
    told = _told(broken / "index.sqlite")
    while some := list(itertools.islice(told, _AT_ONCE)):
        with index.writing() as connection:
            for new, file, created in some:
                if file is None or files.link(file, new.size, former):
                    carried += rows.add(connection, new, file, created)
    return carried


def _told(path: Path) -> Iterator[tuple[rows.New, str | None, float]]:
    """What rows that can be read and make sense say; the file of each, and when it was made."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database,
    ):
        # How SQLite is told to read a file that is shorter than its header says.
        database.execute("PRAGMA writable_schema=ON")
        database.text_factory = legible
        for row in readable(database, _COLUMNS, "artifacts"):
            new = _sensible(row)
            if new is not None:
                yield new, row[5], row[7]


def _sensible(row: tuple[Any, ...]) -> rows.New | None:
    """What a row says; None when it cannot be what was once written there."""
    key, its_digest, size, cost, expires, file, media_type, _, provenance, data = row
    kinds = (bytes, bytes, int, float, float | None, str | None, str, float, str, bytes | None)
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)) or len(key) != len(its_digest):
        return None
    if (file is None) == (data is None) or size < 0 or not cost >= 0:
        return None
    if file is not None and (file.partition("-")[0] != f"{row_id(key):016x}" or "/" in file):
        return None
    if data is not None and (len(data) != size or digest(data) != its_digest):
        return None
    told = rows.provenance_of(provenance)
    if not told:  # nothing, or damaged; the rest is right all the same
        provenance = "{}"
    inline = data is not None
    taken = rows.charge(size, provenance, inline)
    artifact = Artifact(data or b"", its_digest, cost, media_type, told)
    return rows.New(artifact, size, key, provenance, taken, cost, inline, expires)
