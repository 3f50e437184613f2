"""The kiln: a request becomes a chain of keys, the deepest stored artifacts are found, and what is missing is computed.

Serving looks from the last key backwards, starts from the deepest artifacts that suffice and runs only the missing
stages, each as a flight: whoever wants the same key at the same time waits for the same computation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from meshkiln.engines import base
from meshkiln.engines.base import Engine, Stage
from meshkiln.errors import BadInput
from meshkiln.flights import Flights
from meshkiln.generation import Ask, Driver, Flown, Outcome, Report, Told, Trace, advance
from meshkiln.request import Link, Request, canonical_request, chain, picture_bytes
from meshkiln.result import Result, StageReport, result_of
from meshkiln.store.base import Leases, Store
from meshkiln.workers.here import run_here
from meshkiln.workers.task import Runner

__all__ = ["Kiln", "Report", "Result", "StageReport", "open_store"]


def open_store() -> Store:
    """The default store: memory over the disk store in the user's cache folder. Raises StoreError."""
    from meshkiln.store.disk import Disk
    from meshkiln.store.memory import Memory
    from meshkiln.store.tiers import Tiers

    return Tiers(Memory(), Disk())


class Kiln:
    """Serves one engine from one store.

    engine : an `Engine` or the name of a registered one
    store : any `Store`; None opens the default (memory over the user's disk cache)
    flights : shared between kilns that share a store; None makes one that uses the store's leases, when it has any
    runner : runs a stage on a batch; the default computes in this process
    namespace : keeps tenants apart
    """

    def __init__(
        self,
        engine: Engine | str = "inflate",
        store: Store | None = None,
        *,
        flights: Flights | None = None,
        runner: Runner = run_here,
        namespace: str = "",
    ) -> None:
        self.engine = base.engine(engine) if isinstance(engine, str) else engine
        self.store = open_store() if store is None else store
        leases = cast("Leases | None", getattr(self.store, "leases", None))
        self.flights = Flights(leases=leases) if flights is None else flights
        self.namespace = namespace
        self._driver = Driver(self.store, runner)

    @property
    def records_replaced(self) -> int:
        """How many records of cut-off stages a recomputation refuted."""
        return self._driver.records_replaced

    def generate(
        self,
        picture: object,
        format: str = "glb",
        *,
        recipe: str | None = None,
        refresh: bool = False,
        timeout: float | None = None,
        priority: int = 0,
        client: str = "",
        report: Report | None = None,
        **parameters: object,
    ) -> Result:
        """The mesh of `picture`, stored or computed.

        picture : a path, bytes, a PIL image or an array (H, W[, 1|3|4]) of uint8
        format : one of the engine's formats
        refresh : compute every stage again and put the results in place of what is stored
        timeout : seconds to wait; raises DeadlinePassed after that (what others wait for goes on)
        priority, client : for a runner that queues: higher is sooner, and clients get fair shares
        report : called with (stage, step, steps) as stages proceed, on the thread that computes
        Raises BadPicture or BadParameter for input that cannot be served, StageFailed when a stage breaks.
        """
        started = time.perf_counter()
        request, data = self.request(picture, {"format": format, **parameters}, recipe)
        links, made = self._fly(Ask(request, data, refresh, priority, client, report), timeout)
        return result_of(links, made, time.perf_counter() - started)

    async def agenerate(
        self,
        picture: object,
        format: str = "glb",
        *,
        recipe: str | None = None,
        refresh: bool = False,
        timeout: float | None = None,
        priority: int = 0,
        client: str = "",
        report: Report | None = None,
        told: Told = lambda link, made: None,
        trace: Trace | None = None,
        **parameters: object,
    ) -> Result:
        """`generate` for asyncio: the loop is never blocked, and cancelling the task leaves other waiters alone.

        told : called with each stage's link and output when it is in hand, on some thread
        trace : told where the time goes
        """

        def begin() -> tuple[Request, bytes]:
            return self.request(picture, {"format": format, **parameters}, recipe)

        started = time.perf_counter()
        request, data = await asyncio.to_thread(begin)
        deadline = None if timeout is None else time.monotonic() + timeout
        ask = Ask(request, data, refresh, priority, client, report, told, trace)
        steps = self._driver.drive(ask)
        # Store look-ups may touch the disk, so every advance of the driver happens off the loop.
        flown = await asyncio.to_thread(advance, steps, None)
        while isinstance(flown, Flown):
            try:
                made = await self.flights.arun(
                    flown.key, flown.compute, found=flown.found, deadline=deadline, priority=priority
                )
            except BadInput as error:
                await asyncio.to_thread(steps.throw, error)
                raise
            except BaseException:
                steps.close()
                raise
            flown = await asyncio.to_thread(advance, steps, made)
        return result_of(*flown, time.perf_counter() - started)

    def request(
        self, picture: object, parameters: Mapping[str, object], recipe: str | None = None
    ) -> tuple[Request, bytes]:
        """The canonical request for `picture`, and the picture's bytes. Raises BadPicture or BadParameter."""
        data = picture_bytes(picture)
        return canonical_request(self.engine, data, parameters, recipe=recipe, namespace=self.namespace), data

    def chain(self, request: Request) -> tuple[Link, ...]:
        """The keys that `generate` would follow, as far as records tell. Computes nothing."""
        return chain(request, self._driver.recorded)

    def stored(self, request: Request) -> Result | None:
        """The answer to `request` if it is stored whole; computes nothing."""
        started = time.perf_counter()
        links = self.chain(request)
        last = links[-1]
        made = None if last.output is None else self._driver.look(last.output)
        if made is None:
            return None
        return result_of(links, {last.stage.name: made}, time.perf_counter() - started)

    def missing(self, request: Request) -> tuple[Stage, ...]:
        """The stages that would run for `request` by what is stored now, first to last. Computes nothing."""
        links = self.chain(request)
        needed, missing = {links[-1].stage.name}, list[Stage]()
        for link in reversed(links):
            if link.stage.name in needed and (link.output is None or link.output not in self.store):
                missing.append(link.stage)
                needed.update(link.stage.reads)
        return tuple(reversed(missing))

    def explain(
        self, picture: object, format: str = "glb", *, recipe: str | None = None, **parameters: object
    ) -> tuple[Link, ...]:
        """The chain of the request that `generate` would serve with the same picture, format, recipe and parameters."""
        request, _ = self.request(picture, {"format": format, **parameters}, recipe)
        return self.chain(request)

    def source(self, picture: object) -> str:
        """What the provenance of everything derived from `picture` calls it (hexadecimal).

        That is the output of the engine's last cut-off, so that two files of the same pixels have one source. Computes
        up to there when no record tells. Raises BadPicture.
        """
        request, data = self.request(picture, {})
        cutoffs = [index for index, stage in enumerate(self.engine.stages) if stage.cutoff]
        if not cutoffs:
            return request.source.hex()
        known = self.chain(request)[cutoffs[-1]].output
        if known is not None:
            return known.hex()
        links, _ = self._fly(Ask(request, data), through=cutoffs[-1] + 1)
        output = links[-1].output
        assert output is not None
        return output.hex()

    def once(
        self, *, cost: Any = None, version: str = "1", name: str | None = None
    ) -> Callable[[Callable[..., Any]], Any]:
        """A decorator: calls of the function are computed once, from this kiln's store and flights.

        Any expensive function becomes an engine of one stage, sync or async. See `meshkiln.once.once` for what its
        arguments and results may be; `version` is to be changed when the function does.
        """
        from meshkiln.once import once

        def decorate(function: Callable[..., Any]) -> Any:
            return once(
                self.store, self.flights, function, cost=cost, version=version, namespace=self.namespace, name=name
            )

        return decorate

    def close(self) -> None:
        """Let go of leases, and flush and close the store."""
        self.flights.close()
        self.store.close()

    def _fly(self, ask: Ask, timeout: float | None = None, through: int | None = None) -> Outcome:
        deadline = None if timeout is None else time.monotonic() + timeout
        steps = self._driver.drive(ask, through)
        flown = advance(steps, None)
        while isinstance(flown, Flown):
            try:
                made = self.flights.run(
                    flown.key, flown.compute, found=flown.found, deadline=deadline, priority=ask.priority
                )
            except BadInput as error:
                steps.throw(error)
                raise
            flown = advance(steps, made)
        return flown
