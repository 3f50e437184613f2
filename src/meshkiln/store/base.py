"""What a store is: a mapping from keys to immutable artifacts, bounded, with statistics.

A key names a computation and any complete result under it is valid, so *the first stored stays*: `put` of a key that
is present keeps what is there (unless asked to replace it, as a forced recomputation and a corrected record do).
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from meshkiln.keys import Digest, Key, digest

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """The immutable bytes kept under a key.

    data : bytes             what the stage made
    digest : Digest          BLAKE3-256 of `data`; the strong ETag. It detects corruption, not tampering
    cost : float             compute seconds of the stage that made it (own share of a batch; no queueing, no loading)
    media_type : str         e.g. "model/gltf-binary"
    provenance : mapping     JSON values: engine, stage, library versions, when
    """

    data: bytes
    digest: Digest
    cost: float
    media_type: str = "application/octet-stream"
    provenance: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        data: bytes,
        cost: float,
        media_type: str = "application/octet-stream",
        provenance: Mapping[str, Json] | None = None,
    ) -> Artifact:
        """An artifact of `data`, its digest computed here."""
        return cls(data, digest(data), cost, media_type, provenance or {})


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the store was opened by this process (`entries` and `bytes` are what is held now).

    evictions : reason -> count; the reasons are "size" (over the byte bound), "entries" (over the entry bound),
                "expired" (past its TTL), "resized" (the bound was lowered)
    evicted : the same by what it was: reason -> stage that made it ("other" where none is told) -> count
    refused : artifacts larger than the store, returned to the caller but not kept
    seconds_saved : sum of the costs of the artifacts that hits returned
    faults : reason -> count of what went wrong without failing anybody ("corrupt", "disk full", "read only", ...)
    """

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    puts: int = 0
    refused: int = 0
    seconds_saved: float = 0.0
    evictions: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    evicted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Evictions:
    """Counts of what a store let go of, by reason and by what it was. Not safe to use from many threads."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, Any], int] = defaultdict(int)

    def add(self, reason: str, provenance: Mapping[str, Json]) -> None:
        """Count one artifact of that provenance. In the memory store each eviction pays for it: some 150 ns."""
        try:
            self._counts[reason, provenance.get("stage")] += 1
        except TypeError:  # no name, but something that has no hash
            self._counts[reason, None] += 1

    def update(self, others: Evictions) -> None:
        """Add the counts of `others`."""
        for which, count in others._counts.items():
            self._counts[which] += count

    def by_reason(self) -> dict[str, int]:
        """reason -> count, as in `Statistics.evictions`."""
        return {reason: sum(stages.values()) for reason, stages in self.by_stage().items()}

    def by_stage(self) -> dict[str, dict[str, int]]:
        """reason -> stage -> count, as in `Statistics.evicted`."""
        told: dict[str, dict[str, int]] = {}
        for (reason, stage), count in self._counts.items():
            stages = told.setdefault(reason, {})
            name = stage if isinstance(stage, str) else "other"
            stages[name] = stages.get(name, 0) + count
        return told


class Store(MutableMapping[Key, Artifact]):
    """The contract that memory, disk and tiers owe one another. Safe to use from many threads."""

    name: str = "store"
    """What provenance calls a hit in this tier: "memory", "disk"."""

    @abstractmethod
    def put(
        self,
        key: Key,
        artifact: Artifact,
        *,
        ttl: float | None = None,
        miss_cost: float | None = None,
        replace: bool = False,
        durable: bool = True,
    ) -> bool:
        """Keep `artifact` under `key`; True when it is kept now (or a first one already was).

        ttl : seconds after which it is no longer returned; None means never
        miss_cost : seconds that losing it from *this* tier costs (a read from the next tier, or recomputation);
            None means `artifact.cost`
        replace : put it in place of what is there
        durable : False lets a slower tier write it later; with True it is there when this returns
        Never raises for a full, read-only or failing medium: it returns False and counts the reason.
        """

    def get_tier(self, key: Key) -> tuple[Artifact, str] | None:
        """The artifact under `key` and the name of the tier that held it."""
        artifact = self.get(key)
        return None if artifact is None else (artifact, self.name)

    def delete_many(self, keys: Collection[Key]) -> set[Key]:
        """Forget those of `keys` that are held; which these were. Raises what `del` raises, but for KeyError."""
        gone = set[Key]()
        for key in keys:
            with contextlib.suppress(KeyError):
                del self[key]
                gone.add(key)
        return gone

    @abstractmethod
    def stats(self) -> Statistics:
        """Statistics as of now."""

    def close(self) -> None:
        """Flush what is pending and let go of resources. A closed store is not used again."""
        return

    # The mapping protocol, in terms of get/put. Implementations override `get`, `__delitem__`, `__iter__`, `__len__`.

    def __getitem__(self, key: Key) -> Artifact:
        artifact = self.get(key)
        if artifact is None:
            raise KeyError(key)
        return artifact

    def __setitem__(self, key: Key, artifact: Artifact) -> None:
        self.put(key, artifact, replace=True)

    @abstractmethod
    def __iter__(self) -> Iterator[Key]: ...


class Leases(Protocol):
    """Who computes a key, across processes: held with a heartbeat, taken over when it expires."""

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        """Take the lease on `key` for `seconds` unless somebody else holds an unexpired one. True when taken."""
        ...

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        """Extend a lease that `owner` holds; False when it has been lost to somebody else."""
        ...

    def release(self, key: Key, owner: str) -> None:
        """Let go of the lease if `owner` holds it; nothing otherwise."""
        ...
