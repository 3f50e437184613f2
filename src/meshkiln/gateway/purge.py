"""Purging: which stored artifacts fit what an operator names, and letting them go; and which are dearest per byte.

Where there is a disk, it holds what is to be found. Memory has the same, and nothing else for long unless the disk does
not keep things.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meshkiln.generation import RECORD
from meshkiln.keys import Key
from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from meshkiln.store.rows import Entry
from meshkiln.store.tiers import Tiers

_AT_ONCE = 200
"""Artifacts let go of in a transaction, for which whoever reads or writes the store waits."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """What is to go: everything that fits all that is given.

    before : made earlier than that (seconds since the epoch); key : what its hexadecimal key begins with
    """

    before: float | None = None
    engine: str | None = None
    key: str = ""

    def __contains__(self, entry: Entry) -> bool:
        return (
            (self.before is None or entry.created < self.before)
            and (self.engine is None or entry.provenance.get("engine") == self.engine)
            and entry.key.hex().startswith(self.key)
        )


def doomed(store: Store, wanted: Doomed) -> tuple[list[Key], int]:
    """Keys of what fits `wanted`, and their bytes together. Blocks."""
    found = [(entry.key, entry.size) for entry in entries(store) if entry in wanted]
    return [key for key, _ in found], sum(size for _, size in found)


def purge(store: Store, wanted: Doomed) -> tuple[int, int]:
    """Let go of what fits `wanted`, wherever it is held; how many went, and their bytes. Blocks."""
    count = freed = 0
    fitting = ((entry.key, entry.size) for entry in entries(store) if entry in wanted)
    while some := dict(itertools.islice(fitting, _AT_ONCE)):
        gone = store.delete_many(some)  # others were evicted meanwhile
        count, freed = count + len(gone), freed + sum(some[key] for key in gone)
    return count, freed


def dearest(store: Store, limit: int) -> list[dict[str, Any]]:
    """The artifacts with the most compute seconds per byte, dearest first. Blocks."""
    # Records are 32 bytes each, and would be all there is to see.
    disk = disk_of(store)
    if disk is not None:
        found = disk.dearest(limit, besides=RECORD)
    else:
        artifacts = (entry for entry in entries(store) if entry.media_type != RECORD)
        found = heapq.nlargest(limit, artifacts, key=lambda entry: entry.cost_per_byte)
    return [
        {
            "key": entry.key.hex(),
            "engine": entry.provenance.get("engine"),
            "stage": entry.provenance.get("stage"),
            "bytes": entry.size,
            "cost_seconds": entry.cost,
            "seconds_per_megabyte": entry.cost_per_byte * 1e6,
            "hits": entry.hits,
            "created": entry.created,
        }
        for entry in found
    ]


def disk_of(store: Store) -> Disk | None:
    """The disk where there is one, with what memory has not brought there yet."""
    if isinstance(store, Tiers):
        store.flush(1.0)
        store = store.disk
    return store if isinstance(store, Disk) else None


def entries(store: Store) -> Iterator[Entry]:
    """What is held, without its bytes; a memory store alone does not know when things were put, and says when made."""
    disk = disk_of(store)
    if isinstance(store, Tiers):
        store = store.memory
    if disk is not store:
        yield from _in_memory(store, disk)
    if disk is not None:
        yield from disk.entries()


def _in_memory(store: Store, disk: Disk | None) -> Iterator[Entry]:
    for key in store:
        if disk is not None and key in disk:
            continue
        artifact = store.get(key)
        if artifact is not None:
            made = artifact.provenance.get("made")
            created = made if isinstance(made, float) else 0.0
            yield Entry(
                key, len(artifact.data), artifact.cost, artifact.media_type, artifact.provenance, created, None, 0, None
            )
