"""The upstreams: who is asked next, who is left alone for a while, and what is tried again.

    run ─ turn (priority, then who came first) ─ least loaded upstream in service ─ answer
             └ trouble: another one, while the deadline and the tries allow

An upstream that cannot be reached, or fails three times in a row, is out of service until it answers a probe. Idle ones
are probed too; one that is at work is not, as the known servers answer nothing while they generate. Everything happens
on one event loop on a thread of its own, which alone writes the state; callers wait on their threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from meshkiln.engines.base import Work
from meshkiln.engines.upstream import addresses
from meshkiln.engines.upstream.call import Question, Trouble, alive, client, send_and_poll
from meshkiln.engines.upstream.call import generate as by_generate
from meshkiln.errors import Cancelled, DeadlinePassed, PoolClosed, QueueFull, UpstreamFailed, UpstreamsDown
from meshkiln.settings import load

if TYPE_CHECKING:
    import httpx

    from meshkiln.engines.base import Value

TRIES = 3
"""Times a picture is asked for, over all upstreams."""
SAID = 2
"""Errors that upstreams answered with: after so many it is the picture or the model, and not the place."""
IN_A_ROW = 3
"""Failures of one upstream before it is out of service."""
LOOK = 0.25
"""Seconds between looks at whether anybody still waits, and until when."""
WATCH = 5.0
"""Seconds between probes of idle upstreams; also what a probe may take."""
BACK = 0.5, 30.0
"""Seconds until an upstream that is out is probed: the first time, and at most."""
LENIENT = 5.0
"""The first of these for one that answers, but with errors: it would answer the probe at once."""


class Urgency(Protocol):
    """What those who wait want; see `meshkiln.workers.task.Urgency`."""

    @property
    def deadline(self) -> float | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def cancelled(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Patient:
    """The urgency of somebody who waits as long as it takes."""

    deadline: float | None = None
    priority: int = 0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamStats:
    """One upstream: whether it is in service, what it is at, and what became of what it was asked."""

    url: str
    serving: bool
    busy: int
    done: int
    failed: int
    ejected: int


@dataclass(slots=True, eq=False)
class _Upstream:
    """State of one upstream. failures : in a row; until : `time.monotonic` before which it is not asked (it said so)"""

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

    def fail(self, trouble: Trouble) -> None:
        self.failed += 1
        self.failures += 1
        self.words = trouble.words


@dataclass(slots=True, eq=False)
class _Turn:
    """Somebody who waits for an upstream; `tried` are the last he wants."""

    order: int
    urgency: Urgency
    tried: Sequence[_Upstream]
    given: asyncio.Future[_Upstream] = field(repr=False)


class Upstreams:
    """Servers that speak the Hunyuan3D API. Close it when done.

    concurrency : questions each is asked at one time; the known servers answer one after another
    timeout : seconds one answer may take
    polling : ask by /send and /status instead of /generate
    """

    def __init__(
        self, urls: Sequence[str], *, concurrency: int = 1, timeout: float = 300.0, polling: bool = False
    ) -> None:
        self.concurrency = concurrency
        self.timeout = timeout
        self.polling = polling
        self._upstreams = [_Upstream(url) for url in addresses(urls)]
        self._turns: list[_Turn] = []
        self._orders = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._http: httpx.AsyncClient | None = None
        self._closed = False

    # What callers do, on their own threads.

    def run(
        self,
        question: Question,
        urgency: Urgency | None = None,
        report: Callable[[int, int], None] = lambda step, steps: None,
    ) -> tuple[bytes, float]:
        """The mesh, and the seconds its upstream took; blocks until then.

        Raises BadPicture or BadParameter for what an upstream refuses, UpstreamFailed when they fail at it,
        UpstreamsDown when none is in service, QueueFull when all stay busy, DeadlinePassed, Cancelled, and PoolClosed.
        """
        urgency = urgency or Patient()
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(self._answer(question, urgency, report), loop)
        while True:
            deadline = urgency.deadline
            left = LOOK if deadline is None else min(LOOK, max(0.0, deadline - time.monotonic()))
            concurrent.futures.wait([future], left)
            if future.done():
                try:
                    return future.result()
                except concurrent.futures.CancelledError:
                    raise _closing() from None
            if urgency.cancelled:
                future.cancel()
                raise Cancelled("nobody waits for this mesh any more")
            deadline = urgency.deadline
            if deadline is not None and time.monotonic() >= deadline:
                future.cancel()
                raise DeadlinePassed("no upstream had made the mesh by the deadline")

    def stats(self) -> tuple[UpstreamStats, ...]:
        """What each does now, and has done."""
        return tuple(UpstreamStats(u.name, u.serving, u.busy, u.done, u.failed, u.ejected) for u in self._upstreams)

    def close(self) -> None:
        """Break off what is being asked, and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise _closing()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="upstreams", daemon=True)
                self._thread.start()
            return self._loop

    # What happens on the loop.

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._http = client()
        loop.call_soon(lambda: self._begin(self._watch()))
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(self._http.aclose())
            loop.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, question: Question, urgency: Urgency, report: Callable[[int, int], None]
    ) -> tuple[bytes, float]:
        tried: list[_Upstream] = []
        said = 0
        waits_until = time.monotonic() + self.timeout
        while True:
            upstream = await self._turn(urgency, tried)
            began = time.monotonic()
            try:
                data = await self._ask(upstream, question, report)
            except Trouble as trouble:
                self._troubled(upstream, trouble)
                if trouble.busy:
                    if time.monotonic() < waits_until:
                        continue
                    raise QueueFull(f"{upstream.name} {trouble}", trouble.pause) from None
                tried.append(upstream)
                said += trouble.said
                if len(tried) >= TRIES or said >= SAID:
                    raise UpstreamFailed(f"{upstream.name} {trouble}; asked {len(tried)} times") from None
            else:
                upstream.failures = 0
                upstream.done += 1
                return data, time.monotonic() - began
            finally:
                upstream.busy -= 1
                self._hand_out()

    async def _ask(self, upstream: _Upstream, question: Question, report: Callable[[int, int], None]) -> bytes:
        assert self._http is not None
        try:
            async with asyncio.timeout(self.timeout):
                if self.polling:
                    return await send_and_poll(self._http, upstream.url, question, report)
                return await by_generate(self._http, upstream.url, question)
        except TimeoutError:
            raise Trouble(f"did not answer within {self.timeout:g} s") from None

    async def _turn(self, urgency: Urgency, tried: Sequence[_Upstream]) -> _Upstream:
        """An upstream, and a place at it. Raises UpstreamsDown."""
        turn = _Turn(next(self._orders), urgency, tried, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        self._hand_out()
        try:
            return await turn.given
        except asyncio.CancelledError:
            if turn.given.done() and not turn.given.cancelled() and turn.given.exception() is None:
                turn.given.result().busy -= 1  # it was given while its taker went away
                self._hand_out()
            raise
        finally:
            if turn in self._turns:
                self._turns.remove(turn)

    def _hand_out(self) -> None:
        """Give free places to those whose turn it is; when nobody is in service, say so to all."""
        serving = [upstream for upstream in self._upstreams if upstream.serving]
        now = time.monotonic()
        for turn in sorted(self._turns, key=lambda turn: (-turn.urgency.priority, turn.order)):
            if turn.given.done():
                continue
            if not serving:
                turn.given.set_exception(self._down())
                continue
            # An upstream that failed at this picture is asked again only when there is no other.
            wanted = [upstream for upstream in serving if upstream not in turn.tried] or serving
            free = [upstream for upstream in wanted if upstream.busy < self.concurrency and upstream.until <= now]
            if free:
                chosen = min(free, key=lambda upstream: (upstream.busy, upstream.last))
                chosen.busy += 1
                chosen.last = now
                turn.given.set_result(chosen)
                self._turns.remove(turn)

    def _troubled(self, upstream: _Upstream, trouble: Trouble) -> None:
        if trouble.busy:
            upstream.until = time.monotonic() + trouble.pause
            asyncio.get_running_loop().call_later(trouble.pause, self._hand_out)
            return
        upstream.fail(trouble)
        if upstream.serving and (trouble.away or upstream.failures >= IN_A_ROW):
            self._eject(upstream, BACK[0] if trouble.away else LENIENT)

    def _eject(self, upstream: _Upstream, delay: float) -> None:
        upstream.serving = False
        upstream.ejected += 1
        self._begin(self._bring_back(upstream, delay))
        self._hand_out()

    async def _bring_back(self, upstream: _Upstream, delay: float) -> None:
        assert self._http is not None
        while True:
            await asyncio.sleep(delay)
            if await alive(self._http, upstream.url, WATCH):
                upstream.serving = True
                # On probation: the next failure takes it out again.
                upstream.failures = IN_A_ROW - 1
                self._hand_out()
                return
            delay = min(BACK[1], delay * 2)

    async def _watch(self) -> None:
        assert self._http is not None
        while True:
            await asyncio.sleep(WATCH)
            for upstream in self._upstreams:
                if not upstream.serving or upstream.busy:
                    continue
                found = await alive(self._http, upstream.url, WATCH)
                # No answer is no sign: somebody else's picture may be what it is at.
                if found is False and upstream.serving and not upstream.busy:
                    upstream.words = "does not answer"
                    self._eject(upstream, BACK[0])

    def _down(self) -> UpstreamsDown:
        told = "; ".join(f"{upstream.name} {upstream.words}" for upstream in self._upstreams)
        return UpstreamsDown(f"no upstream is in service, only stored answers are: {told}", LENIENT)


def _closing() -> PoolClosed:
    return PoolClosed("the server is shutting down; ask again when it is back")


@cache
def _of_settings() -> Upstreams:
    settings = load().settings
    return Upstreams(
        settings.upstreams,
        concurrency=settings.upstream_concurrency,
        timeout=settings.stage_seconds,
        polling=settings.upstream_polling,
    )


def generate(batch: Sequence[Work]) -> list[Value]:
    """The stage where no server runs it: each item asked for, from the upstreams that the settings name."""
    return [_of_settings().run(Question.of(w.inputs[0], w.parameters), None, w.report)[0] for w in batch]
