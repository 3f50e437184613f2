"""What happens to generations, as numbered events that a client can take up again where it lost them."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

KEPT = 100
"""Events of one generation that can be taken up again, after `PASSING` ones were left out."""
PASSING = ("queue", "step")
"""Kinds of which only the latest in a row is kept: nobody wants to know where he stood before."""
HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
LOGS = 1000
"""Ended generations whose events are kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. number : rising; kind : "state", "queue", "stage" or "step" """

    number: int
    kind: str
    data: dict[str, Any]

    def encoded(self) -> bytes:
        """The event as server-sent text (WHATWG HTML, section 9.2)."""
        return f"id: {self.number}\nevent: {self.kind}\ndata: {json.dumps(self.data)}\n\n".encode()


@dataclass(slots=True)
class Log:
    """The events of one generation. Written and read on the event loop only."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT))
    last: int = 0
    ended: bool = False
    stopped: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, kind: str, data: dict[str, Any], end: bool = False) -> None:
        """Tell those who follow. Nothing is added after the end."""
        if self.ended:
            return
        self.last += 1
        if kind in PASSING and self.events and self.events[-1].kind == kind:
            self.events.pop()
        self.events.append(Event(self.last, kind, data))
        self.ended = end
        self._wake()

    def stop(self) -> None:
        """Let those who follow go: the server stops, and the next one goes on with the generation."""
        self.stopped = True
        self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def follow(self, after: int = 0) -> AsyncIterator[bytes]:
        """Events numbered above `after` as server-sent text, up to the end."""
        # A number from before a restart of the server is smaller than any here. Where the clock was set back since, it
        # is larger: begin anew then.
        sent = after if after <= self.last else 0
        while True:
            changed = self.changed
            for event in [event for event in self.events if event.number > sent]:
                yield event.encoded()
                sent = event.number
            if self.stopped or (self.ended and sent >= self.last):
                return
            if changed is not self.changed:
                continue
            try:
                await asyncio.wait_for(changed.wait(), HEARTBEAT)
            except TimeoutError:
                yield b": still here\n\n"


def at_its_end(data: dict[str, Any]) -> Log:
    """The log of a generation of which only the end is known."""
    log = Log()
    log.add("state", data, end=True)
    return log


class Logs:
    """The events of all generations that live, and of the latest that ended. On the event loop only.

    first : above all numbers that a former server gave: milliseconds since the epoch are, as less happens than that
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self._logs: OrderedDict[str, Log] = OrderedDict()
        self._living = 0
        self._stopped = False

    def open(self, id: str) -> None:
        """Begin to keep the events of a generation; nothing when they are kept already."""
        if id not in self._logs:
            self._logs[id] = Log(last=self._first, stopped=self._stopped)
            self._living += 1
            self._trim()

    def tell(self, id: str, kind: str, data: dict[str, Any], end: bool = False) -> None:
        """Tell those who follow a generation; nothing when its events are not kept."""
        log = self._logs.get(id)
        if log is not None and not log.ended:
            log.add(kind, data, end)
            self._living -= end

    def follow(self, id: str, after: int) -> AsyncIterator[bytes] | None:
        """`Log.follow` of a generation; None when its events are not kept."""
        log = self._logs.get(id)
        return None if log is None else log.follow(after)

    def stop(self) -> None:
        """Let all go who follow: the server stops."""
        self._stopped = True
        for log in self._logs.values():
            log.stop()

    def _trim(self) -> None:
        """Let go of the oldest that ended. Two at most, as one comes at a time: nobody waits for a long search."""
        for _ in range(2 if len(self._logs) > LOGS + self._living else 0):
            oldest = next(iter(self._logs))
            if self._logs[oldest].ended:
                del self._logs[oldest]
            else:
                self._logs.move_to_end(oldest)
