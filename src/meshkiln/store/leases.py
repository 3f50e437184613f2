"""Leases in the index: which process computes a key.

Their clock is the machine's time since boot (CLOCK_BOOTTIME, which goes on through suspend), stamped with the boot's
id: setting the wall clock neither prolongs nor ends a lease, and a lease from before a reboot counts as expired. All
processes that share an index share the machine (network filesystems are refused), hence this clock. Where the system
has neither (not Linux), the wall clock stands in.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshkiln.errors import StoreError
from meshkiln.keys import Key
from meshkiln.store.index import Index

try:
    BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
except OSError:
    BOOT = ""


def now() -> float:
    """Seconds on the clock that leases expire by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if BOOT else time.time()


def acquire(index: Index, key: Key, owner: str, seconds: float, boot: str = BOOT) -> bool:
    """As `Leases.acquire`. Raises StoreError when the index cannot be written."""
    moment = now()
    with _writing(index) as connection:
        # Leases that nobody released, of processes that died over keys nobody asked for again.
        connection.execute("DELETE FROM leases WHERE expires <= ? OR boot != ?", (moment, boot))
        return bool(
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE owner = excluded.owner",
                (key, owner, moment + seconds, boot),
            ).rowcount
        )


def renew(index: Index, key: Key, owner: str, seconds: float, boot: str = BOOT) -> bool:
    """As `Leases.renew`. A lease that expired but was not taken by anybody is still its owner's to renew."""
    with _writing(index) as connection:
        return bool(
            connection.execute(
                "UPDATE leases SET expires = ? WHERE key = ? AND owner = ? AND boot = ?",
                (now() + seconds, key, owner, boot),
            ).rowcount
        )


def release(index: Index, key: Key, owner: str) -> None:
    """As `Leases.release`."""
    with _writing(index) as connection:
        connection.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (key, owner))


@contextmanager
def _writing(index: Index) -> Iterator[sqlite3.Connection]:
    """A write transaction whose errors are StoreErrors: without leases one computes alone, which is never wrong."""
    try:
        with index.writing() as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the lease cannot be written: {error}") from error
