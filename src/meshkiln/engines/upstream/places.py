"""Places at upstreams: who is in service, who is left alone for a while, and whose turn it is. No HTTP, no tasks.

Lives on one event loop, which alone writes it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshkiln.engines.upstream.call import Trouble
from meshkiln.errors import UpstreamsDown

IN_A_ROW = 3
"""Failures of one upstream before it is out of service."""
SOON = 5.0
"""Seconds after which it makes sense to ask again when none is in service."""


class Urgency(Protocol):
    """What those who wait want; see `meshkiln.workers.task.Urgency`."""

    @property
    def deadline(self) -> float | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def cancelled(self) -> bool: ...


@dataclass(slots=True, eq=False)
class Upstream:
    """State of one upstream.

    serving : False while it is out of service
    busy : questions it is at; failures : in a row; until : `time.monotonic` before which it wants to be left alone
    done, failed, ejected : how often it answered, failed, was put out of service; words : what was wrong the last time
    """

    url: str
    serving: bool = True
    busy: int = 0
    failures: int = 0
    until: float = 0.0
    last: float = 0.0
    done: int = 0
    failed: int = 0
    ejected: int = 0
    words: str = ""

    @property
    def name(self) -> str:
        """Its address as it may be shown: without a password."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    def succeed(self) -> None:
        """It answered."""
        self.failures = 0
        self.done += 1

    def fail(self, trouble: Trouble) -> bool:
        """It did not; whether that puts it out of service."""
        self.failed += 1
        self.failures += 1
        self.words = trouble.words
        return self.serving and (trouble.away or self.failures >= IN_A_ROW)

    def come_back(self) -> None:
        """It is in service again, on probation: the next failure takes it out."""
        self.serving = True
        self.failures = IN_A_ROW - 1


@dataclass(slots=True, eq=False)
class _Turn:
    """Somebody who waits for a place; `tried` are the last upstreams he wants."""

    order: int
    urgency: Urgency
    tried: Sequence[Upstream]
    given: asyncio.Future[Upstream] = field(repr=False)


class Places:
    """The places at some upstreams. each : how many questions one is asked at one time"""

    def __init__(self, urls: Sequence[str], each: int) -> None:
        self.upstreams = [Upstream(url) for url in urls]
        self.each = each
        self._turns: list[_Turn] = []
        self._orders = itertools.count()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._turns)

    async def take(self, urgency: Urgency, tried: Sequence[Upstream]) -> Upstream:
        """The upstream whose place is taken; `leave` gives it back. Raises UpstreamsDown."""
        turn = _Turn(next(self._orders), urgency, tried, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        self.hand_out()
        try:
            return await turn.given
        except asyncio.CancelledError:
            if turn.given.done() and not turn.given.cancelled() and turn.given.exception() is None:
                self.leave(turn.given.result())  # it was given while its taker went away
            raise
        finally:
            if turn in self._turns:
                self._turns.remove(turn)

    def leave(self, upstream: Upstream) -> None:
        """Give a place back."""
        upstream.busy -= 1
        self.hand_out()

    def rest(self, upstream: Upstream, seconds: float) -> None:
        """Leave it alone for so long: it said that it is busy."""
        upstream.until = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self.hand_out)

    def eject(self, upstream: Upstream) -> None:
        """Put it out of service. When it was the last, all who wait are told so."""
        upstream.serving = False
        upstream.ejected += 1
        self.hand_out()

    def hand_out(self) -> None:
        """Give free places to those whose turn it is: by priority, then in the order they came."""
        serving = [upstream for upstream in self.upstreams if upstream.serving]
        now = time.monotonic()
        for turn in sorted(self._turns, key=lambda turn: (-turn.urgency.priority, turn.order)):
            if turn.given.done():
                continue
            if not serving:
                turn.given.set_exception(self._down())
                continue
            # An upstream that failed at this picture is asked again only when there is no other.
            wanted = [upstream for upstream in serving if upstream not in turn.tried] or serving
            free = [upstream for upstream in wanted if upstream.busy < self.each and upstream.until <= now]
            if free:
                chosen = min(free, key=lambda upstream: (upstream.busy, upstream.last))
                chosen.busy += 1
                chosen.last = now
                turn.given.set_result(chosen)
                self._turns.remove(turn)

    def _down(self) -> UpstreamsDown:
        told = "; ".join(f"{upstream.name} {upstream.words}" for upstream in self.upstreams)
        return UpstreamsDown(f"no upstream is in service, only stored answers are: {told}", SOON)
