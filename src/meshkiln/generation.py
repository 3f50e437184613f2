"""Driving one generation: the deepest stored artifacts first, then what is missing, stage by stage.

The driver is a generator: it yields what has to fly and is sent what came of it. So the order of things is written
once, for callers on threads and for those on an event loop; flying is theirs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from meshkiln.engines.base import PICTURE, Stage
from meshkiln.errors import BadInput, MeshkilnError, StageFailed
from meshkiln.flights import Flight
from meshkiln.keys import Digest, Key, output_key
from meshkiln.request import Link, Request, chain
from meshkiln.result import Made
from meshkiln.store.base import Artifact, Json, Store
from meshkiln.workers.task import Payload, Ran, Runner, Task

RECORD = "application/vnd.meshkiln.record"
"""Media type of a record: the 32-byte digest of what a cut-off stage made."""
READ_SECONDS_PER_BYTE = 2e-9
"""Seconds a byte has to have cost for its output to be kept: six times what a first, verified get of a 1 MiB artifact
takes from the page cache (`benchmarks/disk_store.py`), since a medium may be cold and room has its price too."""

Report = Callable[[str, int, int], None]
"""Called with (stage name, step, steps) while stages run."""
Told = Callable[[Link, Made], None]
"""Called with each stage's output that comes to hand, found or computed."""


class Span(Protocol):
    """A stretch of time in a trace. name : its context, as a W3C traceparent"""

    name: str

    def end(self, source: str, seconds: float = 0.0, leader: str = "", error: BaseException | None = None) -> None:
        """What came of it. leader : the context in which it was computed, when that was another's"""


class Trace(Protocol):
    """Whoever wants to know where the time of a generation goes."""

    def stage(self, name: str, key: str) -> Span:
        """A stage is about to be computed, or waited for."""

    def found(self, name: str, key: str, source: str) -> None:
        """A stage's output was in the store."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One caller's wish: the request, the picture's bytes, and how it is to be served."""

    request: Request
    picture: bytes
    refresh: bool = False
    priority: int = 0
    client: str = ""
    report: Report | None = None
    told: Told = lambda link, made: None
    trace: Trace | None = None
    asked: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Flown:
    """One thing a generation wants done: `compute` under `key`, unless `found` finds it. `led` tells who computed."""

    key: Key
    compute: Callable[[Flight], Made]
    found: Callable[[], Made | None] | None
    led: bool = False
    span: Span | None = None

    def over(self, made: Made | None, error: BaseException | None = None) -> None:
        """End its span, if it has one."""
        if self.span is None:
            return
        if made is None:
            self.span.end("failed" if isinstance(error, Exception) else "cancelled", error=error)
        elif made.source != "computed":
            self.span.end(made.source)
        elif made.joined:
            self.span.end("joined", leader=made.trace)
        else:
            self.span.end("computed", made.artifact.cost)


@dataclass(slots=True)
class Progress:
    """What one generation has in hand; lives for one answer and is written by its driver only.

    records : output digests of cut-off stages learned on the way, so that an answer never needs a record to be kept
    kept : keys that were put in the store on the way
    """

    made: dict[str, Made] = field(default_factory=dict)
    records: dict[Key, Digest] = field(default_factory=dict)
    kept: list[Key] = field(default_factory=list)


Outcome = tuple[tuple[Link, ...], dict[str, Made]]
Steps = Generator[Flown, Made, Outcome]


class Driver:
    """What generations have in common: the store they look in and the runner that computes.

    records_replaced : how many records a recomputation refuted
    """

    def __init__(self, store: Store, runner: Runner) -> None:
        self.store = store
        self.runner = runner
        self.records_replaced = 0

    def drive(self, ask: Ask, through: int | None = None) -> Steps:
        """Bring the first `through` stages (default: all) so far that the last of them is in hand."""
        progress = Progress()
        while True:
            links = chain(ask.request, lambda key: progress.records.get(key) or self.recorded(key))[:through]
            for link in self._missing(links, progress, ask):
                flown = self._flown(ask, link, progress)
                try:
                    made = yield flown
                except BaseException as error:
                    flown.over(None, error)
                    if isinstance(error, BadInput):
                        self._retract(progress)
                    raise
                if made.source == "computed" and not flown.led:
                    made = made.followed()
                flown.over(made)
                ask.told(link, made)
                if not self._learn(link, made, progress):
                    break
            else:
                return links, progress.made

    def _learn(self, link: Link, made: Made, progress: Progress) -> bool:
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

    def _missing(self, links: Sequence[Link], progress: Progress, ask: Ask) -> list[Link]:
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
                found = None if ask.refresh or link.output is None else self.look(link.output)
                if found is None:
                    missing.append(link)
                    needed.update(link.stage.reads)
                else:
                    progress.made[name] = found
                    ask.told(link, found)
                    if ask.trace is not None and link.key is not None:
                        ask.trace.found(name, link.key.hex(), found.source)
        return missing[::-1]

    def _flown(self, ask: Ask, link: Link, progress: Progress) -> Flown:
        stage, key = link.stage, link.key
        assert key is not None
        request, picture = ask.request, Payload(ask.picture, "application/octet-stream")
        # Resolved when the stage is about to run: earlier missing stages have been made by then.
        inputs = {name: progress.made[name] for name in stage.reads if name != PICTURE}
        span = None if ask.trace is None else ask.trace.stage(stage.name, key.hex())
        trace = "" if span is None else span.name

        def compute(flight: Flight) -> Made:
            flown.led = True
            task = Task(
                stage,
                tuple(picture if name == PICTURE else inputs[name].payload() for name in stage.reads),
                stage.mattering(request.parameters),
                flight,
                _reporter(stage.name, ask.report),
                ask.client,
                ask.asked,
                trace,
            )
            ran = self._run(task)
            artifact = Artifact.of(
                ran.output.data,
                ran.seconds,
                _media_type(stage, request),
                _provenance(request, stage, inputs, ran.seconds),
            )
            return Made(self._keep(ask, link, artifact, progress), "computed", ran.output.value, trace=trace)

        def found() -> Made | None:
            # Of an unresolved cut-off the record is looked for, which somebody else may have made meanwhile.
            return self.look(key if link.output is None else link.output)

        flown = Flown(key, compute, None if ask.refresh else found, span=span)
        return flown

    def _run(self, task: Task) -> Ran:
        try:
            return self.runner(task)
        except MeshkilnError:
            raise
        except Exception as error:
            told = f"stage {task.stage.name} failed: {type(error).__name__}"
            raise StageFailed(f"{told}: {error}", told) from error

    # The store, as the driver uses it.

    def _keep(self, ask: Ask, link: Link, artifact: Artifact, progress: Progress) -> Artifact:
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

    def _put(self, progress: Progress, key: Key, artifact: Artifact, replace: bool, durable: bool = False) -> None:
        if key not in self.store:
            progress.kept.append(key)
        self.store.put(key, artifact, replace=replace, durable=durable)

    def _retract(self, progress: Progress) -> None:
        """Leave the store as it was: a picture that turns out to be unusable is not worth its first stages' room."""
        for key in progress.kept:
            with contextlib.suppress(KeyError):
                del self.store[key]

    def look(self, key: Key) -> Made | None:
        """What the store holds under `key`, and which tier held it."""
        hit = self.store.get_tier(key)
        return None if hit is None else Made(*hit)

    def recorded(self, key: Key) -> Digest | None:
        """The output digest that a record holds for the key of a cut-off stage."""
        record = self.store.get(key)
        return None if record is None else _recorded_digest(record)


def worth_keeping(cost: float, size: int) -> bool:
    """Whether an output that took `cost` seconds to make is cheaper to bring back from a store (`size` bytes)."""
    return cost > size * READ_SECONDS_PER_BYTE


def _recorded_digest(artifact: Artifact) -> Digest:
    return Digest(artifact.data) if artifact.media_type == RECORD else artifact.digest


def advance(steps: Steps, made: Made | None) -> Flown | Outcome:
    """Send what was made (None at first): the next thing to fly, or what the generation came to."""
    try:
        return steps.send(cast("Any", made))
    except StopIteration as finished:
        return cast(Outcome, finished.value)


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
        "parameters": {**parameters, **stage.mattering(request.parameters)},
    }
