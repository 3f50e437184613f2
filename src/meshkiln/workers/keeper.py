"""The keeper of one worker: hands it batch after batch, watches it, replaces it when it is lost.

turn ─ send ─ watch ─┬─ done ──────────────────────── finished(batch, outcomes)
                     ├─ died, hung, memory ─ replace ─ lost(batch, reason)
                     └─ nobody waits ─ stop it at its next step
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from meshkiln import errors
from meshkiln.errors import MeshkilnError, StageFailed
from meshkiln.workers.batching import Item
from meshkiln.workers.task import Payload, Ran
from meshkiln.workers.worker import Gone, Setup, Worker

TICK = 0.1
"""Seconds between looks at a running worker's memory, and at who still waits for what it does."""
START_SECONDS = 60.0
"""A worker that is not ready by then will not be."""
LONGEST_PAUSE = 10.0
"""Seconds between attempts to start a worker, at most: the pause doubles from a tenth with each that fails."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job(Item):
    """A task and where its result goes.

    kills : workers it lost while nothing was beside it; tries : workers it lost in any company
    """

    future: Future[Ran] = field(default_factory=Future)
    kills: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use: seconds for one item (of any stage, and by stage name), and resident bytes."""

    timeout: float
    timeouts: Mapping[str, float]
    memory: int

    def seconds(self, batch: Sequence[Job]) -> float:
        """How long `batch` may take."""
        return self.timeouts.get(batch[0].task.stage.name, self.timeout) * len(batch)


@dataclass(frozen=True, slots=True)
class Loss:
    """How a worker was lost. reason : "died", "hung" or "memory"; blamed : whether it had begun to compute."""

    reason: str
    words: str
    blamed: bool = True


class Desk(Protocol):
    """The pool, as a keeper knows it."""

    def started(self, keeper: Keeper, failure: str | None) -> bool:
        """A worker is ready, or (`failure`) was not to be had. False when none is wanted any more."""

    def turn(self, keeper: Keeper) -> Sequence[Job] | None:
        """The next batch, blocking; empty when the worker should be looked at, None when there will be no more."""

    def rest(self, keeper: Keeper) -> bool:
        """Whether the worker is to end for now; called with nothing in hand."""

    def resumed(self, keeper: Keeper) -> bool:
        """Block while no worker is wanted; False when there will be no more batches."""

    def finished(self, keeper: Keeper, batch: Sequence[Job], results: Sequence[Ran | Exception], halvings: int) -> None:
        """`batch` came to `results`; on the way memory did not suffice `halvings` times."""

    def lost(self, keeper: Keeper, batch: Sequence[Job], loss: Loss) -> None:
        """The worker was lost with `batch` in hand, which is empty when it had nothing to do."""


class Keeper(threading.Thread):
    """A thread with one worker at a time. It starts them itself, as on Linux a worker dies with who started it."""

    def __init__(self, desk: Desk, setup: Setup, limits: Limits, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._desk, self._setup, self._limits = desk, setup, limits
        self._ending = threading.Event()
        self._number = 0
        self.worker: Worker | None = None

    def end(self) -> None:
        """Stop at once, whatever the worker is doing. Any thread may."""
        self._ending.set()
        worker = self.worker
        if worker is not None:
            worker.kill()

    def run(self) -> None:
        failures = 0
        while True:
            if self.worker is None:
                self.worker, failure = self._start()
                if not self._desk.started(self, failure):
                    break
                failures = 0 if failure is None else failures + 1
                if failures:
                    self._ending.wait(min(LONGEST_PAUSE, 0.1 * 2**failures))
                    continue
            assert self.worker is not None
            batch = self._desk.turn(self)
            if batch is None:
                break
            if not batch and self._desk.rest(self):
                self._replace(grace=1.0)
                if not self._desk.resumed(self):
                    break
                continue
            loss = self._serve(self.worker, batch)
            if loss is not None:
                self._replace()
                self._desk.lost(self, batch, loss)
        self._replace(grace=1.0)

    def _replace(self, grace: float = 0.0) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.bury(grace)

    def _start(self) -> tuple[Worker | None, str | None]:
        """A worker that is ready, or why there is none."""
        try:
            worker = Worker(self._setup, self._limits.memory)
        except (OSError, Gone) as error:
            return None, str(error)
        until = time.monotonic() + START_SECONDS
        failure = f"it was not ready after {START_SECONDS:.0f} s"
        try:
            while time.monotonic() < until and not self._ending.is_set():
                if worker.receive(TICK) is not None:
                    return worker, None
        except Gone as error:
            failure = worker.death(error)
        worker.bury()
        return None, failure

    def _serve(self, worker: Worker, batch: Sequence[Job]) -> Loss | None:
        """See `batch` through. A loss when the worker did not survive it."""
        if not batch:
            return None if worker.alive else Loss("died", worker.death(), blamed=False)
        self._number += 1
        began = [False]
        try:
            worker.send(*_framed(self._number, batch))
            return self._watch(worker, batch, began)
        except Gone as error:
            return Loss("died", worker.death(error), blamed=began[0])
        except Exception as error:
            # Whatever it is, the batch must come to an end and the keeper must not.
            _log.exception("a keeper stumbled")
            return Loss("died", f"its keeper failed: {type(error).__name__}: {error}")

    def _watch(self, worker: Worker, batch: Sequence[Job], began: list[bool]) -> Loss | None:
        allowed = self._limits.seconds(batch)
        until = time.monotonic() + allowed
        next_look = 0.0
        stopping = False
        while True:
            frame = worker.receive(TICK)
            if frame is not None:
                message, blobs = frame
                match message.get("say"):
                    case "began":
                        began[0] = True
                    case "step":
                        _report(batch, message)
                    case "done":
                        results, halvings = _read(batch, message, blobs)
                        self._desk.finished(self, batch, results, halvings)
                        return None
            now = time.monotonic()
            if now < next_look:
                continue
            next_look = now + TICK
            if now > until:
                return Loss("hung", f"it was not done after {allowed:g} s")
            held = worker.resident()
            if held > self._limits.memory:
                return Loss("memory", f"it held {held >> 20} MiB; {self._limits.memory >> 20} MiB are allowed")
            if not stopping and all(job.task.urgency.cancelled for job in batch):
                stopping = True
                worker.send({"do": "stop", "batch": self._number})


def _framed(number: int, batch: Sequence[Job]) -> tuple[dict[str, Any], list[bytes]]:
    stage = batch[0].task.stage
    items = [
        {
            "parameters": dict(job.task.parameters),
            "inputs": [payload.media_type for payload in job.task.inputs],
        }
        for job in batch
    ]
    message = {"do": "run", "batch": number, "stage": stage.name, "compute": stage.compute, "items": items}
    return message, [payload.data for job in batch for payload in job.task.inputs]


def _read(batch: Sequence[Job], message: dict[str, Any], blobs: Sequence[bytes]) -> tuple[list[Ran | Exception], int]:
    """What a worker says came of each job. Raises Gone when that is nonsense: it may have been taken over."""
    try:
        results = [_outcome(job, item, blob) for job, item, blob in zip(batch, message["items"], blobs, strict=True)]
        return results, int(message["halvings"])
    except (KeyError, TypeError, ValueError) as error:
        raise Gone(f"it talks nonsense ({type(error).__name__}: {error})") from error


def _outcome(job: Job, item: dict[str, Any], data: bytes) -> Ran | Exception:
    stage = job.task.stage
    if "error" not in item:
        return Ran(Payload(data, stage.media_type), float(item["seconds"]))
    name, words, told = map(str, item["error"])
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, MeshkilnError)):
        kind = StageFailed
    error: MeshkilnError
    if kind is StageFailed:
        failed = f"stage {stage.name} failed: "
        error = StageFailed(failed + words, told and failed + told)
    else:
        error = kind(words)
    error.add_note("In the worker:\n" + str(item["trace"]))
    return error


def _report(batch: Sequence[Job], message: dict[str, Any]) -> None:
    try:
        batch[int(message["item"])].task.report(int(message["step"]), int(message["steps"]))
    except Exception:
        # Who listens to progress must not be able to break the batch.
        _log.exception("a progress report could not be delivered")
