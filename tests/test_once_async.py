"""`once` for async functions: on the loops of those who wait, and on others when these end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshkiln.errors import Cancelled
from meshkiln.flights import Flights

PATIENCE = 30.0
Decorate = Callable[..., Callable[[Callable[..., Any]], Any]]


def test_async_functions_compute_once_on_the_callers_loop(decorate: Decorate) -> None:
    calls = []

    @decorate()
    async def paint(prompt: str) -> bytes:
        calls.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return prompt.encode()

    async def main() -> None:
        assert set(await asyncio.gather(*(paint("a") for _ in range(200)))) == {b"a"}
        assert await paint("a") == b"a"
        assert calls == [asyncio.get_running_loop()]

    asyncio.run(main())
    assert asyncio.iscoroutinefunction(paint)
    assert asyncio.run(paint("a")) == b"a"
    assert len(calls) == 1


def test_an_async_function_stops_when_everybody_left(decorate: Decorate, flights: Flights) -> None:
    async def main() -> None:
        begun, stopped = asyncio.Event(), asyncio.Event()

        @decorate()
        async def paint() -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()
                raise
            return b""

        tasks = [asyncio.create_task(paint()) for _ in range(3)]
        await begun.wait()
        while flights.waiters(paint.key()) < 3:
            await asyncio.sleep(0.001)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        assert not stopped.is_set()
        tasks[2].cancel()
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()

    asyncio.run(main())


def test_an_async_function_starts_anew_on_another_loop_when_the_first_ends(
    decorate: Decorate, threads: ThreadPoolExecutor, flights: Flights
) -> None:
    loops, go = [], threading.Event()
    flights_joined = threading.Event()

    @decorate()
    async def paint() -> str:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.Event().wait()
        return "done"

    async def leave_in_a_while() -> None:
        task = asyncio.create_task(paint())
        await asyncio.to_thread(go.wait, PATIENCE)
        del task

    async def stay() -> str:
        task = asyncio.create_task(paint())
        while flights.waiters(paint.key()) < 2:
            await asyncio.sleep(0.001)
        flights_joined.set()
        return await task

    first = threads.submit(asyncio.run, leave_in_a_while())
    while not loops:
        threading.Event().wait(0.001)
    second = threads.submit(asyncio.run, stay())
    assert flights_joined.wait(PATIENCE)
    go.set()
    first.result(PATIENCE)
    assert second.result(PATIENCE) == "done"
    assert len(set(map(id, loops))) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_function_whose_loop_just_stops_starts_anew(decorate: Decorate, threads: ThreadPoolExecutor) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @decorate()
    async def paint() -> str:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.Event().wait()
        return "done"

    stopped = asyncio.new_event_loop()
    task = stopped.create_task(paint())

    async def begun() -> None:
        while not loops:
            await asyncio.sleep(0.001)

    stopped.run_until_complete(begun())
    assert threads.submit(asyncio.run, paint()).result(PATIENCE) == "done"
    task.cancel()
    stopped.run_until_complete(asyncio.wait([task]))
    stopped.close()
    gc.collect()


def test_an_async_function_that_cancels_itself_says_so(decorate: Decorate) -> None:
    @decorate()
    async def paint() -> str:
        raise asyncio.CancelledError

    with pytest.raises(Cancelled, match="cancelled from within"):
        asyncio.run(paint())


def test_async_functions_may_call_one_another_but_not_themselves(decorate: Decorate) -> None:
    @decorate()
    async def inner(n: int) -> int:
        return n + 1

    @decorate()
    async def outer(n: int) -> int:
        return sum(await asyncio.gather(*(inner(i) for i in range(n))))

    @decorate()
    async def ouroboros(n: int) -> int:
        return await ouroboros(n)

    assert asyncio.run(outer(4)) == 10
    with pytest.raises(RecursionError):
        asyncio.run(asyncio.wait_for(ouroboros(1), PATIENCE))
