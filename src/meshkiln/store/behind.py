"""Writing behind: what is on its way to a slower tier, which one thread writes in the order in which it came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from meshkiln.keys import Key
from meshkiln.store.base import Artifact, Leases


class Waiting(NamedTuple):
    """An artifact on its way to the slower tier."""

    artifact: Artifact
    until: float | None  # time.monotonic() at which its time to live ends
    miss_cost: float | None
    replace: bool

    def ttl(self) -> float | None:
        """Seconds it has left to live; None is for ever."""
        return None if self.until is None else self.until - time.monotonic()


class Behind:
    """The queue to a slower tier, and the thread that is there while something waits in it.

    write : (Key, Waiting) → anything    puts an artifact into that tier; must not raise
    let_go : (Key, str) → None           releases a lease there; must not raise
    most_bytes : int                     bytes that may wait

    `changed` guards the queue. It may be held around several calls, which nothing comes between then.
    """

    def __init__(
        self, write: Callable[[Key, Waiting], object], let_go: Callable[[Key, str], None], most_bytes: int
    ) -> None:
        self._write, self._let_go, self._most_bytes = write, let_go, most_bytes
        self.begin()

    def begin(self) -> None:
        """Anew, with nothing waiting; after a fork: the thread that writes what waited is the parent's."""
        self.changed = threading.Condition()
        self.waiting: dict[Key, Waiting] = {}
        self.bytes = 0
        self._writing: Key | None = None
        self._running = False
        self._releases: list[tuple[Key, str]] = []
        self._releasing = threading.Lock()

    def put(self, key: Key, waiting: Waiting) -> bool:
        """Leave an artifact for the thread; False when too much is waiting."""
        size = len(waiting.artifact.data)
        with self.changed:
            before = self.waiting.get(key)
            if before is not None and not waiting.replace:
                return True
            if self.bytes + size > self._most_bytes:
                return False
            if before is not None:
                size -= len(before.artifact.data)
            self.waiting[key] = waiting
            self.bytes += size
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="meshkiln-write-behind", daemon=True).start()
        return True

    def take(self, keys: Collection[Key]) -> dict[Key, Waiting]:
        """What waited under `keys`, which is not written any more; waits for the one of them that is being written."""
        with self.changed:
            taken = {key: waiting for key in keys if (waiting := self._dequeue(key)) is not None}
            while self._writing in keys:
                self.changed.wait()
        return taken

    def clear(self) -> None:
        """Forget everything that waits, once what is being written is."""
        with self.changed:
            self.waiting.clear()
            self.bytes = 0
            while self._writing is not None:
                self.changed.wait()

    def wait(self, timeout: float | None) -> bool:
        """Until nothing waits or is being written; False when that takes more than `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: not self._busy(), timeout)

    def release(self, key: Key, owner: str) -> None:
        """Let go of a lease as soon as nothing waits."""
        with self.changed:
            busy = self._busy()
            if busy:
                self._releases.append((key, owner))
        if not busy:
            self._let_go(key, owner)

    def keep(self, key: Key, owner: str) -> None:
        """Do not let go of a lease after all: its owner wants it again."""
        with self.changed:
            self._releases = [release for release in self._releases if release != (key, owner)]

    def release_all(self) -> None:
        """Let go of the leases that waited for the slower tier."""
        with self._releasing:  # whoever flushes also waits for what another thread is letting go of
            with self.changed:
                releases, self._releases = self._releases, []
            for key, owner in releases:
                self._let_go(key, owner)

    def _busy(self) -> bool:
        return bool(self.waiting) or self._writing is not None

    def _dequeue(self, key: Key) -> Waiting | None:
        waiting = self.waiting.pop(key, None)
        if waiting is not None:
            self.bytes -= len(waiting.artifact.data)
        return waiting

    def _run(self) -> None:
        """Write what waits, first come first, until nothing does."""
        while True:
            with self.changed:
                self._writing = next(iter(self.waiting), None)
                if self._writing is None:
                    self._running = False
                    self.changed.notify_all()
                    break
                key, waiting = self._writing, self.waiting[self._writing]
            self._write(key, waiting)
            with self.changed:
                # It was found in the queue until now that the tier has it. It may have been deleted or replaced.
                if self.waiting.get(key) is waiting:
                    self._dequeue(key)
                self._writing = None
                self.changed.notify_all()
        self.release_all()


class LeasesBehind:
    """A slower tier's leases, whose release waits for what is being written behind.

    Otherwise another process could take the lease on a key, look for its artifact before the tier has it, and compute
    it a second time.
    """

    def __init__(self, leases: Leases, behind: Behind) -> None:
        self._leases, self._behind = leases, behind

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        self._behind.keep(key, owner)
        return self._leases.acquire(key, owner, seconds)

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        return self._leases.renew(key, owner, seconds)

    def release(self, key: Key, owner: str) -> None:
        self._behind.release(key, owner)
