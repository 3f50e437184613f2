"""`once`: a function whose calls are computed once, whoever asks and however often, from one store."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from meshkiln.engines.function import bind, function_key, function_name, pack_result, unpack_result
from meshkiln.errors import Cancelled
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Key
from meshkiln.store.base import Artifact, Json, Store

LOOP_CHECK = 1.0
"""Seconds between looks whether the event loop that runs an async function is still there."""

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Cost = float | Callable[[Any], float] | None


class Once(Protocol[P, R_co]):
    """A function that `once` wrapped."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """What the function returns for these arguments, stored or computed."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """The key of this call."""
        ...

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of this call from the store; True when there was one."""
        ...


def once(
    store: Store,
    flights: Flights,
    function: Callable[P, R],
    cost: Cost = None,
    version: str = "1",
    namespace: str = "",
    name: str | None = None,
) -> Once[P, R]:
    """`function`, sync or async, with every call computed once.

    cost : compute seconds a result took, or a function from the result to them; None measures (wall clock, less the
        time spent waiting for other flights)
    version : to be changed whenever the function's results do: the code is not part of the key, nor is anything else
        that is not an argument, such as what it closes over, globals, files and the caller's context variables
    namespace : keeps tenants apart
    name : what keys call the function; None takes its module and qualified name

    Arguments are None, bool, int, float, str, bytes, lists, tuples, dicts, numpy arrays and dataclasses of these;
    they must not change until the call returns. Another type raises TypeError naming the argument. That holds for
    `self` too: a method works when its object is such a dataclass, whose fields then are part of the key.
    Results are bytes, str, numpy arrays, dicts of arrays, or JSON values; anything else raises TypeError. Each caller
    gets a copy of his own.

    A sync function runs on its flight's thread. An async one runs as a task on the loop of whoever asked first, since
    its clients belong to that loop; if that loop ends, it starts anew on the loop of one of those who still wait.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator; only what returns its whole result can be computed once")
    if isinstance(cost, int | float) and not (math.isfinite(cost) and cost >= 0):
        raise ValueError(f"cost={cost!r} is not a number of seconds of at least 0")
    call = _Call(store, flights, function, cost, version, namespace, name or function_name(function))
    wrapper: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await call.anow(args, kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return call.now(args, kwargs)

    wrapper.key = call.key
    wrapper.forget = call.forget
    return cast("Once[P, R]", wrapper)


class _LoopEnded(Cancelled):
    """An async function was stopped with its event loop, or (then `args[1]` is the loop) by something on it."""


class _Call:
    """One wrapped function; nothing here changes after it is made."""

    def __init__(
        self,
        store: Store,
        flights: Flights,
        function: Callable[..., Any],
        cost: Cost,
        version: str,
        namespace: str,
        name: str,
    ) -> None:
        self.store = store
        self.flights = flights
        self.function = function
        self.cost = cost
        self.version = version
        self.namespace = namespace
        self.name = name
        self.signature = inspect.signature(function)

    def key(self, *args: Any, **kwargs: Any) -> Key:
        return self._key(bind(self.signature, args, kwargs))

    def forget(self, *args: Any, **kwargs: Any) -> bool:
        try:
            del self.store[self.key(*args, **kwargs)]
        except KeyError:
            return False
        return True

    def now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = bind(self.signature, args, kwargs)
        key = self._key(bound)
        artifact = self.store.get(key)
        if artifact is None:

            def compute(flight: Flight) -> Artifact:
                waited, started = flight.waited, time.perf_counter()
                result = self.function(*bound.args, **bound.kwargs)
                seconds = time.perf_counter() - started - (flight.waited - waited)
                return self._keep(key, result, seconds)

            artifact = self.flights.run(key, compute, found=functools.partial(self.store.get, key))
        return unpack_result(artifact.data, artifact.media_type)

    async def anow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = bind(self.signature, args, kwargs)
        key = self._key(bound)
        artifact = await self._stored(key)
        loop = asyncio.get_running_loop()
        while artifact is None:

            def compute(flight: Flight) -> Artifact:
                async def timed() -> tuple[Any, float]:
                    waited, started = flight.waited, time.perf_counter()
                    result = await self.function(*bound.args, **bound.kwargs)
                    return result, time.perf_counter() - started - (flight.waited - waited)

                return self._keep(key, *_on_loop(loop, timed(), flight))

            try:
                artifact = await self.flights.arun(key, compute, found=functools.partial(self.store.get, key))
            except _LoopEnded as ended:
                if ended.args[1] is loop:
                    raise Cancelled(f"{self.name} was cancelled from within") from ended
        return unpack_result(artifact.data, artifact.media_type)

    async def _stored(self, key: Key) -> Artifact | None:
        # Memory answers faster than a thread could be asked; a disk would block the loop.
        memory = getattr(self.store, "memory", self.store if self.store.name == "memory" else None)
        artifact: Artifact | None = None if memory is None else memory.get(key)
        if artifact is None and memory is not self.store:
            artifact = await asyncio.to_thread(self.store.get, key)
        return artifact

    def _key(self, bound: inspect.BoundArguments) -> Key:
        return function_key(self.name, self.version, bound, self.namespace)

    def _keep(self, key: Key, result: object, seconds: float) -> Artifact:
        data, media_type = pack_result(result, self.name)
        if callable(self.cost):
            seconds = float(self.cost(result))
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"cost gave {seconds!r}, which is not a number of seconds of at least 0")
        elif self.cost is not None:
            seconds = self.cost
        provenance: dict[str, Json] = {"function": self.name, "version": self.version, "made": time.time()}
        artifact = Artifact.of(data, max(0.0, seconds), media_type, provenance)
        self.store.put(key, artifact)
        return artifact


def _on_loop(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, tuple[Any, float]], flight: Flight
) -> tuple[Any, float]:
    """What `coroutine` returns, run as a task on `loop` while this thread, the flight's, waits.

    Raises Cancelled when everybody left, _LoopEnded when the loop did.
    """
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    try:
        task = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:
        coroutine.close()
        raise _LoopEnded(f"the event loop was closed: {error}", None) from error
    flight.on_cancel(stop)
    ended = False
    try:
        # Waiting for a cancelled task lasts until it has really ended, so that two of a kind never run at once. But a
        # loop that was stopped leaves its tasks as they are and tells nobody.
        while not ended and not concurrent.futures.wait((task,), LOOP_CHECK).done:
            ended = not loop.is_running()
        if ended:
            task.cancel()
        return task.result()
    except concurrent.futures.CancelledError as error:
        if stopped:
            raise Cancelled("nobody waited any more") from error
        raise _LoopEnded("the event loop ended, or cancelled the computation", None if ended else loop) from error
