"""Flights: one computation per key, however many threads, tasks or processes ask for it at once.

A flight belongs to no waiter. It computes on a thread of its own, takes the latest deadline and the highest priority
of those who wait *now*, and goes on as long as anybody waits; a waiter that gives up, even the first, leaves the others
alone. Everybody gets the result, or an exception of his own. What a flight came to is remembered by the store, not
here: a failed one leaves no trace, and the next who asks starts afresh.

The way of a flight:

    join ── lease ── found? ── compute ── land
             │  └ held by another process: ask `found` and for the lease again after 10, 20, 40, 80, 160, 250, 250 … ms
             └ leases do not work: go on without

No lock is held while anything is computed, looked for or leased.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from meshkiln.errors import Cancelled, DeadlinePassed, StoreError
from meshkiln.flight import FOREVER, Flight, Waiter
from meshkiln.heartbeat import Heartbeat
from meshkiln.keys import Key
from meshkiln.store.base import Leases

__all__ = ["Flight", "FlightCounts", "Flights"]

FIRST_POLL = 0.010
LAST_POLL = 0.250
"""Seconds between looks at what another process is computing: the first, doubled up to the last."""

_log = logging.getLogger(__name__)
_current: contextvars.ContextVar[Flight | None] = contextvars.ContextVar("meshkiln-flight", default=None)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FlightCounts:
    """What happened since these flights were made.

    started : flights begun; joined : callers who found theirs in the air; computed : times `compute` was called
    found : flights that found the result in the store after all; waited : flights that waited for another process
    failed, cancelled : flights that ended in an error; because nobody waited any more
    unasked : times the store could not be asked
    faults : what went wrong with leases without failing anybody ("lease", "renewal", "release", "lost") -> count
    """

    started: int = 0
    joined: int = 0
    computed: int = 0
    found: int = 0
    waited: int = 0
    failed: int = 0
    cancelled: int = 0
    unasked: int = 0
    faults: dict[str, int] = field(default_factory=dict)


class Flights:
    """The flights of this process.

    executor : where flights compute; None gives each a daemon thread of its own, so that flights which wait for other
        flights never starve them. A bounded executor must have room for as many as wait for one another
    leases : who computes a key across processes; None when this process is alone
    lease_seconds : how long a process that stopped without a word keeps others waiting
    clock : what deadlines are moments of, in seconds
    """

    def __init__(
        self,
        executor: Executor | None = None,
        leases: Leases | None = None,
        lease_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not lease_seconds > 0:
            raise ValueError(f"lease_seconds={lease_seconds!r} is not a number of seconds above 0")
        self._executor = executor
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._reset()
        _everybody.add(self)

    def _reset(self) -> None:
        # Also runs in a forked child: the threads that would land its parent's flights are not there.
        self._lock = threading.Lock()
        self._flights: dict[Key, Flight] = {}
        self._counts: Counter[str] = Counter()
        self._heart: Heartbeat | None = None
        if self._leases is not None:
            owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
            self._heart = Heartbeat(self._leases, owner, self._lease_seconds)

    def run(
        self,
        key: Key,
        compute: Callable[[Flight], T],
        *,
        found: Callable[[], T | None] | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> T:
        """The result of the flight of `key`, which is started if there is none. Blocks this thread.

        compute : called once, on the flight's own thread; stores what it makes before it returns, and may stop with
            `Cancelled` once `flight.cancelled`. Who joins a flight does not get his own `compute` called, unless
            everybody before him left and the computation stopped for it
        found : looks for the result in the store: asked once the lease is held, and while another process holds it
        deadline : moment on the clock until which this caller waits
        priority : of this caller; higher is sooner
        Raises DeadlinePassed, what `compute` raised (an exception of this caller's own, whose `__cause__` is the
        original), or RecursionError for a computation that waits for itself.
        """
        current = _current.get()
        flight, waiter = self._join(current, key, compute, found, deadline, priority, None)
        try:
            flight.landed.wait(None if deadline is None else self._patience(deadline))
        finally:
            self._leave(current, flight, waiter)
        return cast(T, flight.outcome())

    async def arun(
        self,
        key: Key,
        compute: Callable[[Flight], T],
        *,
        found: Callable[[], T | None] | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> T:
        """`run` for asyncio, on any loop, which is never blocked: `compute` and `found` run on the flight's thread."""
        loop = asyncio.get_running_loop()
        landed = loop.create_future()

        def land() -> None:
            if not landed.done():
                landed.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(land)

        current = _current.get()
        flight, waiter = self._join(current, key, compute, found, deadline, priority, wake)
        try:
            if deadline is None:
                await landed
            else:
                await asyncio.wait((landed,), timeout=self._patience(deadline))
        finally:
            self._leave(current, flight, waiter)
        return cast(T, flight.outcome())

    def waiters(self, key: Key) -> int:
        """How many wait for `key` now."""
        with self._lock:
            flight = self._flights.get(key)
            return 0 if flight is None else len(flight.waiters)

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def joined(self) -> int:
        """How many callers found their flight in the air."""
        return self._counts["joined"]

    def counts(self) -> FlightCounts:
        """What happened so far."""
        with self._lock:
            return FlightCounts(**self._counts, faults={} if self._heart is None else dict(self._heart.faults))

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def close(self) -> None:
        """Let go of the leases held, for others to take; what is in the air goes on. Also done at exit."""
        if self._heart is not None:
            self._heart.close()

    # What waiters do.

    def _patience(self, deadline: float) -> float:
        return min(max(0.0, deadline - self._clock()), threading.TIMEOUT_MAX)

    def _join(
        self,
        current: Flight | None,
        key: Key,
        compute: Callable[[Flight], Any],
        found: Callable[[], Any] | None,
        deadline: float | None,
        priority: int,
        wake: Callable[[], None] | None,
    ) -> tuple[Flight, Waiter]:
        if deadline is not None and deadline <= self._clock():
            raise DeadlinePassed("the deadline had passed when the result was asked for")
        waiter = Waiter(FOREVER if deadline is None else deadline, priority, wake)
        with self._lock:
            flight = self._flights.get(key)
            started = flight is None
            if flight is None:
                flight = self._flights[key] = Flight(key, self._lock)
            elif current is not None and flight.needs(current):
                raise RecursionError(f"the computation of {current.key.hex()[:12]} waits for its own result")
            self._counts["started" if started else "joined"] += 1
            if not flight.waiters:
                flight.compute, flight.found = compute, found
            flight.add(waiter)
            if current is not None:
                if not current.waits_for:
                    current.waits_since = time.perf_counter()
                current.waits_for.append(flight)
        if started:
            self._launch(flight)
        return flight, waiter

    def _leave(self, current: Flight | None, flight: Flight, waiter: Waiter) -> None:
        callbacks: list[Callable[[], None]] = []
        with self._lock:
            if current is not None:
                current.waits_for.remove(flight)
                if not current.waits_for:
                    current.waited += time.perf_counter() - current.waits_since
            if not flight.landed.is_set():
                callbacks = flight.remove(waiter)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.exception("a cancellation callback failed")

    # What the flight does, on its own thread.

    def _launch(self, flight: Flight) -> None:
        try:
            if self._executor is None:
                name = f"flight-{flight.key.hex()[:8]}"
                threading.Thread(target=self._fly, args=(flight,), name=name, daemon=True).start()
            else:
                submitted = self._executor.submit(contextvars.Context().run, self._fly, flight)
                submitted.add_done_callback(lambda future: self._dismiss(flight, future))
        except BaseException as error:
            # No thread to be had (at interpreter shutdown, say): nobody may wait for a flight that is not in the air.
            self._land(flight, None, error)
            if not isinstance(error, Exception):
                raise

    def _dismiss(self, flight: Flight, submitted: Future[None]) -> None:
        if submitted.cancelled():
            self._land(flight, None, Cancelled("the executor was shut down before it came to this computation"))

    def _fly(self, flight: Flight) -> None:
        _current.set(flight)
        while True:
            result, error = None, None
            try:
                result = self._attempt(flight)
            except BaseException as raised:
                error = raised
            if self._land(flight, result, error):
                return

    def _attempt(self, flight: Flight) -> Any:
        with self._lock:
            compute, found = flight.compute, flight.found
            flight.abandoned = not flight.waiters
            flight.when_cancelled = []
        if flight.cancelled:
            raise Cancelled("nobody waited any more when the computation was to begin")
        result = self._claim(flight, found)
        try:
            if result is None:
                # Asked again now that nobody else can be computing it: somebody may just have finished.
                result = self._look(found)
            self._count("computed" if result is None else "found")
            return compute(flight) if result is None else result
        finally:
            # Before landing: the next flight of this process on this key takes its lease under the same name.
            if self._heart is not None:
                self._heart.drop(flight.key)

    def _claim(self, flight: Flight, found: Callable[[], Any] | None) -> Any:
        """None once this process may compute, or what another process made while it held the lease."""
        left: threading.Event | None = None
        pause = FIRST_POLL
        while self._heart is not None and self._heart.take(flight.key) is False:
            result = self._look(found)
            if result is not None:
                return result
            if left is None:
                left = threading.Event()
                flight.on_cancel(left.set)
                self._count("waited")
            if left.wait(pause):
                raise Cancelled("nobody waited any more for what another process is computing")
            pause = min(2 * pause, LAST_POLL)
        return None

    def _look(self, found: Callable[[], Any] | None) -> Any:
        if found is None:
            return None
        try:
            return found()
        except (StoreError, OSError) as error:
            self._count("unasked")
            _log.warning("the store could not be asked, computing instead: %s", error)
            return None

    def _land(self, flight: Flight, result: Any, error: BaseException | None) -> bool:
        """Give everybody the outcome. False when the computation stopped for want of waiters and there are some now."""
        with self._lock:
            if flight.landed.is_set():
                return True
            if isinstance(error, Cancelled) and flight.abandoned and flight.waiters:
                return False
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            if error is not None:
                self._counts["cancelled" if not flight.waiters else "failed"] += 1
            flight.result, flight.error = result, error
            flight.when_cancelled = []
            waiters = list(flight.waiters)
            flight.landed.set()
        for waiter in waiters:
            if waiter.wake is not None:
                try:
                    waiter.wake()
                except RuntimeError:
                    # Its loop has been closed: there is nobody to tell.
                    continue
        return True


_everybody: weakref.WeakSet[Flights] = weakref.WeakSet()


def _after_fork() -> None:
    for flights in list(_everybody):
        flights._reset()


def _at_exit() -> None:
    for flights in list(_everybody):
        flights.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
