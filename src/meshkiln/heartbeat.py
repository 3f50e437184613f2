"""A heartbeat: one thread that keeps every lease this process holds from expiring."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from meshkiln.errors import StoreError
from meshkiln.keys import Key
from meshkiln.store.base import Leases

BEATS_PER_LEASE = 3
"""A lease survives two missed beats: a long pause of one process alone does not cost it."""

_log = logging.getLogger(__name__)


class Heartbeat:
    """Takes leases, renews all that are held every `seconds / 3`, and lets go of them.

    A failing medium never stands in the way of a computation: its errors are logged once and counted.

    leases : where they are recorded
    owner : who holds them: unique among all processes and flights that share `leases`
    seconds : how long a lease lasts after its last renewal
    """

    def __init__(self, leases: Leases, owner: str, seconds: float) -> None:
        self.owner = owner
        self.seconds = seconds
        self.faults: Counter[str] = Counter()
        self._leases = leases
        # Each taking has a mark of its own, so that a late answer about an earlier one does not touch a later.
        self._held: dict[Key, object] = {}
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._idle = self._closed = False

    def take(self, key: Key) -> bool | None:
        """True when this process holds `key` now, False when another does, None when leases do not work."""
        try:
            taken = self._leases.acquire(key, self.owner, self.seconds)
        except (StoreError, OSError) as error:
            self._fault("lease", error)
            return None
        if taken:
            with self._changed:
                self._held[key] = object()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._beat, name="meshkiln-heartbeat", daemon=True)
                    self._thread.start()
                elif self._idle:
                    self._changed.notify()
        return taken

    def drop(self, key: Key) -> None:
        """Let go of `key`, unless it has been lost to somebody else."""
        with self._changed:
            held = self._held.pop(key, None)
        if held is not None:
            self._release(key)

    def close(self) -> None:
        """Let go of every lease; computations under them go on without."""
        with self._changed:
            self._closed = True
            held, self._held = self._held, {}
        for key in held:
            self._release(key)

    def _release(self, key: Key) -> None:
        try:
            self._leases.release(key, self.owner)
        except (StoreError, OSError) as error:
            self._fault("release", error)

    def _beat(self) -> None:
        beat = self.seconds / BEATS_PER_LEASE
        while True:
            with self._changed:
                while not self._held:
                    # An idle process does not wake up.
                    self._idle = True
                    self._changed.wait()
                self._idle = False
            # Flights that come and go within a beat cost no wake-up and no renewal.
            time.sleep(beat)
            with self._changed:
                held = list(self._held.items())
            for key, mark in held:
                self._renew(key, mark)

    def _renew(self, key: Key, mark: object) -> None:
        try:
            kept = self._leases.renew(key, self.owner, self.seconds)
        except (StoreError, OSError) as error:
            self._fault("renewal", error)
            return
        if kept:
            return
        with self._changed:
            lost = self._held.get(key) is mark
            if lost:
                del self._held[key]
        # What has been let go of meanwhile is not lost.
        if lost:
            self.faults["lost"] += 1
            _log.warning("lost the lease on %s to another process; computing goes on", key.hex()[:12])

    def _fault(self, what: str, error: Exception) -> None:
        # Computations that nobody waits for may outlive the store.
        if not self.faults[what] and not self._closed:
            _log.warning("%s failed, going on without: %s", what, error)
        self.faults[what] += 1
