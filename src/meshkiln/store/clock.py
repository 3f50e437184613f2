"""Clocks for times to live: a coarse one that costs an attribute to read, and an exact one for tests."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

TICK = 0.25
"""Seconds between two readings of the coarse clock. Each interrupts whoever runs, and times to live are minutes."""


class Coarse:
    """Monotonic seconds in `now`, at most a tick old (and the time its thread waits for the processor) once started.

    Reading a clock costs as much as the whole rest of a memory hit (`benchmarks/memory_store.py` measures both), so a
    daemon thread reads it. The thread runs from `start` until `stop`, or until nobody refers to the clock any more.
    """

    __slots__ = ("__weakref__", "_stopped", "now")

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._stopped: threading.Event | None = None

    def read(self) -> float:
        """The exact time, which is then `now`."""
        self.now = time.monotonic()
        return self.now

    def start(self) -> None:
        """Let `now` follow the time; nothing when it does already."""
        if self._stopped is None:
            self.read()  # it stood still until now
            self._stopped = threading.Event()
            _running.add(self)
            threading.Thread(
                target=_tick, args=(weakref.ref(self), self._stopped), name="meshkiln-clock", daemon=True
            ).start()

    def stop(self) -> None:
        """Let `now` stand still; nothing when it does already."""
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None
            _running.discard(self)


class Exact:
    """A clock that is read each time: `seconds` says what it shows."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    @property
    def now(self) -> float:
        return self._seconds()

    def read(self) -> float:
        return self._seconds()

    def start(self) -> None: ...

    def stop(self) -> None: ...


_running: weakref.WeakSet[Coarse] = weakref.WeakSet()


def _tick(clock: weakref.ref[Coarse], stopped: threading.Event) -> None:
    while not stopped.wait(TICK):
        running = clock()
        if running is None:
            return
        running.now = time.monotonic()
        del running  # while this thread sleeps, it must not be what keeps the clock alive


def _start_again() -> None:
    # Threads do not survive a fork: without this, a child's artifacts would never be past their time.
    for clock in list(_running):
        clock._stopped = None
        clock.start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)
