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
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from meshkiln.engines.base import Work
from meshkiln.engines.upstream import addresses
from meshkiln.engines.upstream.call import Question, Trouble, alive, client, send_and_poll
from meshkiln.engines.upstream.call import generate as by_generate
from meshkiln.engines.upstream.places import Places, Upstream, Urgency
from meshkiln.errors import BadInput, Cancelled, DeadlinePassed, PoolClosed, QueueFull, UpstreamFailed
from meshkiln.settings import load

if TYPE_CHECKING:
    import httpx

    from meshkiln.engines.base import Value

TRIES = 3
"""Times a picture is asked for, over all upstreams."""
SAID = 2
"""Errors that upstreams answered with: after so many it is the picture or the model, and not the place."""
LOOK = 0.25
"""Seconds between looks at whether anybody still waits, and until when."""
WATCH = 5.0
"""Seconds between probes of idle upstreams; also what a probe may take."""
BACK = 0.5, 30.0
"""Seconds until an upstream that is out is probed: the first time, and at most."""
LENIENT = 5.0
"""The first of these for one that answers, but with errors: it would answer the probe at once."""


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


class Upstreams:
    """Servers that speak the Hunyuan3D API. Close it when done.

    concurrency : questions each is asked at one time; the known servers answer one after another
    timeout : seconds one answer may take
    polling : ask by /send and /status instead of /generate
    """

    def __init__(
        self, urls: Sequence[str], *, concurrency: int = 1, timeout: float = 300.0, polling: bool = False
    ) -> None:
        self.timeout = timeout
        self.polling = polling
        self.places = Places(addresses(urls), concurrency)
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
        return tuple(
            UpstreamStats(u.name, u.serving, u.busy, u.done, u.failed, u.ejected) for u in self.places.upstreams
        )

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
        tried: list[Upstream] = []
        said = 0
        waits_until = time.monotonic() + self.timeout
        while True:
            upstream = await self.places.take(urgency, tried)
            began = time.monotonic()
            try:
                data = await self._ask(upstream, question, report)
            except BadInput:
                upstream.succeed()
                raise
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
                upstream.succeed()
                return data, time.monotonic() - began
            finally:
                self.places.leave(upstream)

    async def _ask(self, upstream: Upstream, question: Question, report: Callable[[int, int], None]) -> bytes:
        assert self._http is not None
        try:
            async with asyncio.timeout(self.timeout):
                if self.polling:
                    return await send_and_poll(self._http, upstream.url, question, report)
                return await by_generate(self._http, upstream.url, question)
        except TimeoutError:
            raise Trouble(f"did not answer within {self.timeout:g} s") from None

    def _troubled(self, upstream: Upstream, trouble: Trouble) -> None:
        if trouble.busy:
            self.places.rest(upstream, trouble.pause)
        elif upstream.fail(trouble):
            self._eject(upstream, BACK[0] if trouble.away else LENIENT)

    def _eject(self, upstream: Upstream, delay: float) -> None:
        self.places.eject(upstream)
        self._begin(self._bring_back(upstream, delay))

    async def _bring_back(self, upstream: Upstream, delay: float) -> None:
        assert self._http is not None
        while True:
            await asyncio.sleep(delay)
            if await alive(self._http, upstream.url, WATCH):
                upstream.come_back()
                self.places.hand_out()
                return
            delay = min(BACK[1], delay * 2)

    async def _watch(self) -> None:
        assert self._http is not None
        while True:
            await asyncio.sleep(WATCH)
            for upstream in self.places.upstreams:
                if not upstream.serving or upstream.busy:
                    continue
                found = await alive(self._http, upstream.url, WATCH)
                # No answer is no sign: somebody else's picture may be what it is at.
                if found is False and upstream.serving and not upstream.busy:
                    upstream.words = "does not answer"
                    self._eject(upstream, BACK[0])


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
