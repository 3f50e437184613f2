"""Flights under test: keys, and a computation that stays in the air until it is let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from meshkiln.flights import Flight
from meshkiln.keys import Key

KEY, OTHER = Key(b"k" * 32), Key(b"o" * 32)
PATIENCE = 30.0
"""Seconds after which a test that waits for something gives up: a failure, never a pause."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, which something running is about to make true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        threading.Event().wait(0.001)


class Held:
    """A computation that stays in the air until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.flight: Flight | None = None

    def __call__(self, flight: Flight) -> int:
        self.calls += 1
        self.flight = flight
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return self.calls
