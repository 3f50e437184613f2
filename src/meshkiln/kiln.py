"""The kiln: a request becomes a chain of keys, the deepest stored artifacts are found, and what is missing is computed.

Serving looks from the last key backwards, starts from the deepest artifacts that suffice and runs only the missing
stages, each as a flight: whoever wants the same key at the same time waits for the same computation.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from meshkiln.engines.base import PICTURE, Engine, Stage, engine
from meshkiln.errors import BadInput, MeshkilnError, StageFailed
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Digest, Key, output_key
from meshkiln.request import Link, Request, canonical_request, chain, picture_bytes
from meshkiln.result import Made, Result, StageReport, result_of
from meshkiln.store.base import Artifact, Json, Leases, Store
from meshkiln.workers.here import run_here
from meshkiln.workers.task import Payload, Ran, Runner, Task

__all__ = ["Kiln", "Result", "StageReport", "open_store"]

RECORD = "application/vnd.meshkiln.record"
"""Media type of a record: the 32-byte digest of what a cut-off stage made."""
READ_SECONDS_PER_BYTE = 2e-9
"""Seconds a byte costs to bring back from the disk store, verified: what keeping an output is weighed against."""

Report = Callable[[str, int, int], None]
"""Called with (stage name, step, steps) while stages run."""


def open_store() -> Store:
    """The default store: memory over the disk store in the user's cache folder. Raises StoreError."""
    from meshkiln.store.disk import Disk
    from meshkiln.store.memory import Memory
    from meshkiln.store.tiers import Tiers

    return Tiers(Memory(), Disk())


@dataclass(frozen=True, slots=True)
class _Ask:
    """One caller's wish: the request, the picture's bytes, and how it is to be served."""

    request: Request
    picture: bytes
    refresh: bool = False
    priority: int = 0
    client: str = ""
    report: Report | None = None
    asked: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Flown:
    """One thing a generation wants done: `compute` under `key`, unless `found` finds it. `led` tells who computed."""

    key: Key
    compute: Callable[[Flight], Made]
    found: Callable[[], Made | None] | None
    led: bool = False


@dataclass(slots=True)
class _Progress:
    """What one generation has in hand; lives for one answer and is written by its driver only.

    records : output digests of cut-off stages learned on the way, so that an answer never needs a record to be kept
    kept : keys that were put in the store on the way
    """

    made: dict[str, Made] = field(default_factory=dict)
    records: dict[Key, Digest] = field(default_factory=dict)
    kept: list[Key] = field(default_factory=list)


_Outcome = tuple[tuple[Link, ...], dict[str, Made]]
_Steps = Generator[_Flown, Made, _Outcome]


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
        engine_: Engine | str = "inflate",
        store: Store | None = None,
        *,
        flights: Flights | None = None,
        runner: Runner = run_here,
        namespace: str = "",
    ) -> None:
        self.engine = engine(engine_) if isinstance(engine_, str) else engine_
        self.store = open_store() if store is None else store
        leases = cast("Leases | None", getattr(self.store, "leases", None))
        self.flights = Flights(leases=leases) if flights is None else flights
        self.runner = runner
        self.namespace = namespace
        self.records_replaced = 0

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
        deadline = None if timeout is None else time.monotonic() + timeout
        ask = _Ask(request, data, refresh, priority, client, report)
        links, made = self._fly(ask, self._drive(ask), deadline)
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
        **parameters: object,
    ) -> Result:
        """`generate` for asyncio: the loop is never blocked, and cancelling the task leaves other waiters alone."""

        def begin() -> tuple[Request, bytes]:
            return self.request(picture, {"format": format, **parameters}, recipe)

        started = time.perf_counter()
        request, data = await asyncio.to_thread(begin)
        deadline = None if timeout is None else time.monotonic() + timeout
        ask = _Ask(request, data, refresh, priority, client, report)
        steps = self._drive(ask)
        # Store look-ups may touch the disk, so every advance of the driver happens off the loop.
        flown = await asyncio.to_thread(_advance, steps, None)
        while isinstance(flown, _Flown):
            try:
                made = await self.flights.arun(
                    flown.key, flown.compute, found=flown.found, deadline=deadline, priority=priority
                )
            except BadInput as error:
                await asyncio.to_thread(steps.throw, error)
                raise
            flown = await asyncio.to_thread(_advance, steps, made)
        return result_of(*flown, time.perf_counter() - started)

    def request(
        self, picture: object, parameters: Mapping[str, object], recipe: str | None = None
    ) -> tuple[Request, bytes]:
        """The canonical request for `picture`, and the picture's bytes. Raises BadPicture or BadParameter."""
        data = picture_bytes(picture)
        return canonical_request(self.engine, data, parameters, recipe=recipe, namespace=self.namespace), data

    def chain(self, request: Request) -> tuple[Link, ...]:
        """The keys that `generate` would follow, as far as records tell. Computes nothing."""
        return chain(request, self._recorded)

    def stored(self, request: Request) -> Result | None:
        """The answer to `request` if it is stored whole; computes nothing."""
        started = time.perf_counter()
        links = self.chain(request)
        last = links[-1]
        made = None if last.output is None else self._look(last.output)
        if made is None:
            return None
        return result_of(links, {last.stage.name: made}, time.perf_counter() - started)

    def explain(self, picture: object, format: str = "glb", **parameters: object) -> tuple[Link, ...]:
        """The chain of the request that `generate` would serve with the same arguments."""
        request, _ = self.request(picture, {"format": format, **parameters})
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
        ask = _Ask(request, data)
        links, _ = self._fly(ask, self._drive(ask, through=cutoffs[-1] + 1), None)
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

    # The driver: yields what has to fly and is sent what came of it. Sync and async callers share it.

    def _fly(self, ask: _Ask, steps: _Steps, deadline: float | None) -> _Outcome:
        flown = _advance(steps, None)
        while isinstance(flown, _Flown):
            try:
                made = self.flights.run(
                    flown.key, flown.compute, found=flown.found, deadline=deadline, priority=ask.priority
                )
            except BadInput as error:
                steps.throw(error)
                raise
            flown = _advance(steps, made)
        return flown

    def _drive(self, ask: _Ask, through: int | None = None) -> _Steps:
        """Bring the first `through` stages (default: all) so far that the last of them is in hand."""
        progress = _Progress()
        while True:
            links = chain(ask.request, lambda key: progress.records.get(key) or self._recorded(key))[:through]
            for link in self._missing(links, progress, ask.refresh):
                flown = self._flown(ask, link, progress)
                try:
                    made = yield flown
                except BadInput:
                    self._retract(progress)
                    raise
                if made.source == "computed" and not flown.led:
                    made = made.followed()
                if not self._learn(link, made, progress):
                    break
            else:
                return links, progress.made

    def _learn(self, link: Link, made: Made, progress: _Progress) -> bool:
        """Take in what a flight made; False when the chain has to be resolved anew.

        That is after a cut-off stage whose output is not the one the chain was resolved with: there was no record, or
        the recomputation refutes it. What was found below the refuted output is then let go.
        """
        name = link.stage.name
        if not link.stage.cutoff:
            progress.made[name] = made
            return True
        assert link.key is not None
        output = _recorded_digest(made.artifact)
        progress.records[link.key] = output
        if link.output == output_key(output):
            progress.made[name] = made
            return True
        progress.made.clear()
        if made.artifact.media_type != RECORD:
            progress.made[name] = made
        return False

    def _missing(self, links: Sequence[Link], progress: _Progress, refresh: bool) -> list[Link]:
        """The stages that have to be computed, first to last; what is found on the way is put in `progress`."""
        for index, link in enumerate(links):
            if link.output is None:
                # Later keys hang on this stage's output: all that can be done now is to make it.
                links = links[: index + 1]
                break
        needed = {links[-1].stage.name}
        missing = []
        for link in reversed(links):
            name = link.stage.name
            if name in needed and name not in progress.made:
                found = None if refresh or link.output is None else self._look(link.output)
                if found is None:
                    missing.append(link)
                    needed.update(link.stage.reads)
                else:
                    progress.made[name] = found
        return missing[::-1]

    def _flown(self, ask: _Ask, link: Link, progress: _Progress) -> _Flown:
        stage, key = link.stage, link.key
        assert key is not None
        request, picture = ask.request, Payload(ask.picture, "application/octet-stream")
        # Resolved when the stage is about to run: earlier missing stages have been made by then.
        inputs = {name: progress.made[name] for name in stage.reads if name != PICTURE}

        def compute(flight: Flight) -> Made:
            flown.led = True
            task = Task(
                stage,
                tuple(picture if name == PICTURE else inputs[name].payload() for name in stage.reads),
                {name: request.parameters[name] for name in stage.parameters},
                flight,
                _reporter(stage.name, ask.report),
                ask.client,
                ask.asked,
            )
            ran = self._run(task)
            artifact = Artifact.of(
                ran.output.data,
                ran.seconds,
                _media_type(stage, request),
                _provenance(request, stage, inputs, ran.seconds),
            )
            return Made(self._keep(ask, link, artifact, progress), "computed", ran.output.value)

        def found() -> Made | None:
            # Of an unresolved cut-off the record is looked for, which somebody else may have made meanwhile.
            return self._look(key if link.output is None else link.output)

        flown = _Flown(key, compute, None if ask.refresh else found)
        return flown

    def _run(self, task: Task) -> Ran:
        try:
            return self.runner(task)
        except MeshkilnError:
            raise
        except Exception as error:
            raise StageFailed(f"stage {task.stage.name} failed: {type(error).__name__}: {error}") from error

    # The store, as the driver uses it.

    def _keep(self, ask: _Ask, link: Link, artifact: Artifact, progress: _Progress) -> Artifact:
        """Store what a stage made, and give it back with its provenance complete."""
        stage = link.stage
        assert link.key is not None
        if not stage.cutoff:
            final = stage is ask.request.engine.stages[-1]
            self._put(progress, link.key, artifact, ask.refresh, durable=final)
            return artifact
        output = output_key(artifact.digest)
        provenance: dict[str, Json] = {**artifact.provenance, "source": output.hex()}
        artifact = Artifact(artifact.data, artifact.digest, artifact.cost, artifact.media_type, provenance)
        refuted = link.output is not None and link.output != output
        self.records_replaced += refuted
        record = Artifact.of(artifact.digest, artifact.cost, RECORD, provenance)
        self._put(progress, link.key, record, ask.refresh or refuted)
        if worth_keeping(artifact.cost, len(artifact.data)):
            self._put(progress, output, artifact, ask.refresh)
        return artifact

    def _put(self, progress: _Progress, key: Key, artifact: Artifact, replace: bool, durable: bool = False) -> None:
        if key not in self.store:
            progress.kept.append(key)
        self.store.put(key, artifact, replace=replace, durable=durable)

    def _retract(self, progress: _Progress) -> None:
        """Leave the store as it was: a picture that turns out to be unusable is not worth its first stages' room."""
        for key in progress.kept:
            with contextlib.suppress(KeyError):
                del self.store[key]

    def _look(self, key: Key) -> Made | None:
        hit = self.store.get_tier(key)
        return None if hit is None else Made(*hit)

    def _recorded(self, key: Key) -> Digest | None:
        record = self.store.get(key)
        return None if record is None else _recorded_digest(record)


def worth_keeping(cost: float, size: int) -> bool:
    """Whether an output that took `cost` seconds to make is cheaper to bring back from a store (`size` bytes)."""
    return cost > size * READ_SECONDS_PER_BYTE


def _recorded_digest(artifact: Artifact) -> Digest:
    return Digest(artifact.data) if artifact.media_type == RECORD else artifact.digest


def _advance(steps: _Steps, made: Made | None) -> _Flown | _Outcome:
    try:
        return steps.send(cast("Any", made))
    except StopIteration as finished:
        return cast(_Outcome, finished.value)


def _reporter(stage: str, report: Report | None) -> Callable[[int, int], None]:
    if report is None:
        return lambda step, steps: None
    report(stage, 0, 1)
    return lambda step, steps: report(stage, step, steps)


def _media_type(stage: Stage, request: Request) -> str:
    if stage is request.engine.stages[-1] and "format" in stage.parameters:
        return request.engine.formats[str(request.parameters["format"])]
    return stage.media_type


def _provenance(request: Request, stage: Stage, inputs: dict[str, Made], seconds: float) -> dict[str, Json]:
    # Costs and parameters gather along the chain, so that any artifact tells what everything before it took.
    costs: dict[str, Json] = {}
    parameters: dict[str, Json] = {}
    source = request.source.hex()
    for made in inputs.values():
        before = made.artifact.provenance
        costs.update(cast("dict[str, Json]", before.get("costs") or {}))
        parameters.update(cast("dict[str, Json]", before.get("parameters") or {}))
        source = str(before.get("source", source))
    return {
        "engine": request.engine.name,
        "stage": stage.name,
        "version": stage.version,
        "made": time.time(),
        "source": source,
        "costs": {**costs, stage.name: seconds},
        "parameters": {**parameters, **{name: request.parameters[name] for name in stage.parameters}},
    }
