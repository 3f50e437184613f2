"""A flight: one computation in the air, those who wait for it, and what it came to."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshkiln.errors import DeadlinePassed, StageFailed
from meshkiln.keys import Key

FOREVER = float("inf")
"""The deadline of a waiter who has none."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits. wake : called when the flight has landed; a thread waits on `Flight.landed` instead."""

    deadline: float
    priority: int
    wake: Callable[[], None] | None


class Flight:
    """What a function that computes sees of its flight: `key`, `deadline`, `priority`, `cancelled`, `waited`.

    These are safe to read from any thread. Everything else is written by `Flights` only, under its lock.
    """

    def __init__(self, key: Key, lock: threading.Lock) -> None:
        self.key = key
        self.lock = lock
        self.waiters: set[Waiter] = set()
        self.compute: Callable[[Flight], Any] = lambda flight: None
        self.found: Callable[[], Any] | None = None
        self.abandoned = False
        """Whether there was a moment without waiters since the computation began."""
        self.when_cancelled: list[Callable[[], None]] = []
        self.waits_for: list[Flight] = []
        self.waits_since = 0.0
        self.waited = 0.0
        """Seconds this computation has itself spent waiting for other flights: no cost of its own."""
        self.landed = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._deadline = FOREVER
        self._priority = 0

    @property
    def deadline(self) -> float | None:
        """The latest deadline (on the flights' clock) of those who wait, None when one of them waits for ever.

        Once nobody waits it stays what it was.
        """
        return None if self._deadline == FOREVER else self._deadline

    @property
    def priority(self) -> int:
        """The highest priority of those who wait; once nobody waits it stays what it was."""
        return self._priority

    @property
    def cancelled(self) -> bool:
        """True while nobody waits: `compute` may raise `Cancelled`. Somebody who joins makes it False again."""
        return not self.waiters

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the last waiter leaves (now, if that has happened), on whatever thread that is."""
        with self.lock:
            if self.waiters:
                self.when_cancelled.append(callback)
                return
        callback()

    def add(self, waiter: Waiter) -> None:
        """Take in one more waiter."""
        first = not self.waiters
        self.waiters.add(waiter)
        self._deadline = waiter.deadline if first else max(self._deadline, waiter.deadline)
        self._priority = waiter.priority if first else max(self._priority, waiter.priority)

    def remove(self, waiter: Waiter) -> list[Callable[[], None]]:
        """Let a waiter go; returns what is to be called, without the lock, if he was the last."""
        self.waiters.discard(waiter)
        if self.waiters:
            self._deadline = max(other.deadline for other in self.waiters)
            self._priority = max(other.priority for other in self.waiters)
            return []
        self.abandoned = True
        callbacks, self.when_cancelled = self.when_cancelled, []
        return callbacks

    def needs(self, other: Flight) -> bool:
        """Whether this computation waits, directly or through others, for `other` (or is `other`)."""
        ahead = [self]
        while ahead:
            flight = ahead.pop()
            if flight is other:
                return True
            ahead.extend(flight.waits_for)
        return False

    def outcome(self) -> Any:
        """The result, or the error as an exception of the caller's own; DeadlinePassed before the landing."""
        if not self.landed.is_set():
            raise DeadlinePassed("the result was not ready by the deadline; others who wait for it still get it")
        if self.error is not None:
            raise own_exception(self.error)
        return self.result


def own_exception(error: BaseException) -> BaseException:
    """An exception like `error` (type, arguments, attributes) for one waiter, with `error` as its `__cause__`.

    One exception object raised in many threads would collect all their tracebacks. What would stop a thread or a task
    (SystemExit, CancelledError, ...) means the computation, not its waiters: they get StageFailed.
    """
    if not isinstance(error, Exception):
        told = f"the computation ended with {type(error).__name__}"
        own: BaseException = StageFailed(f"{told}: {error}", told)
    else:
        own = _copied(error) or StageFailed(f"{type(error).__name__}: {error}", type(error).__name__)
        if notes := getattr(error, "__notes__", None):
            own.__notes__ = list(notes)
    own.__cause__ = error
    return own


def _copied(error: Exception) -> Exception | None:
    try:
        own = copy.copy(error)
        if type(own) is type(error) and own is not error and own.args == error.args:
            return own
    except Exception:
        # Its constructor wants other arguments than it reports as `args`.
        _log.debug("copying %s the plain way", type(error).__name__)
    try:
        own = type(error).__new__(type(error), *error.args)
        own.args = error.args
        own.__dict__.update(error.__dict__)
    except Exception:
        return None
    return own
