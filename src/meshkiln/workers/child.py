"""The process that runs stages: `python -m meshkiln.workers.child FD`. Started by `worker.Worker`, never by hand.

One thread reads what the parent sends, so that its death is noticed at once; the main thread computes. Frames in:
`setup` once, then `run` a batch, or `stop` the batch that nobody waits for any more. Frames out: `ready`, and for each
batch `began`, `step` as it proceeds, and `done` with an output or an error for each item.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from meshkiln import errors
from meshkiln.engines.base import Work
from meshkiln.engines.codec import pack, unpack
from meshkiln.errors import Cancelled, MeshkilnError, StageFailed
from meshkiln.workers import wire

STEP_SECONDS = 0.05
"""A stage's reports are passed on at most this often, first and last ones always."""

Compute = Callable[[Sequence[Work]], list[Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: its packed output and compute seconds (its share of the batch), or an error."""

    data: bytes = b""
    seconds: float = 0.0
    error: BaseException | None = None

    def as_json(self) -> dict[str, Any]:
        if self.error is None:
            return {"seconds": self.seconds}
        return {"error": named(self.error), "trace": "".join(traceback.format_exception(self.error))[-8000:]}


class Child:
    """This process, seen from inside."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._frames: queue.SimpleQueue[tuple[dict[str, Any], list[bytes]]] = queue.SimpleQueue()
        self._stopped = -1

    def serve(self) -> None:
        """Run batches until the parent closes the connection, which ends the process."""
        setup, _ = wire.receive(self._connection)
        # Before any other thread exists: on Linux each has a niceness of its own, inherited from who starts it.
        os.nice(setup["nice"])
        # Started before anything slow or unknown is imported: a parent that dies meanwhile must not leave us behind.
        threading.Thread(target=self._read, name="meshkiln-read", daemon=True).start()
        _limit_memory(setup["address_space"])
        for path in setup["preload"]:
            # One that cannot be loaded fails the tasks that want it, with its own error, and not the worker.
            with contextlib.suppress(Exception):
                _load(path, warm=True)
        self._send({"say": "ready"})
        while True:
            message, blobs = self._frames.get()
            self._run(message, blobs)

    def _read(self) -> None:
        try:
            while True:
                message, blobs = wire.receive(self._connection)
                if message["do"] == "stop":
                    self._stopped = message["batch"]
                else:
                    self._frames.put((message, blobs))
        finally:
            # No clean-up: the main thread may be deep in somebody's C code, and nothing here outlives the process.
            os._exit(0)

    def _run(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        batch, halvings = message["batch"], [0]
        self._send({"say": "began", "batch": batch})
        items = message["items"]
        try:
            compute = _load(message["compute"])
            given = iter(blobs)
            works = [
                Work(
                    tuple(unpack(next(given), media_type) for media_type in item["inputs"]),
                    item["parameters"],
                    self._reporter(batch, index),
                )
                for index, item in enumerate(items)
            ]
            outcomes = attempt(compute, works, halvings)
        except Exception as error:
            outcomes = [Outcome(error=error) for _ in items]
        self._send(
            {
                "say": "done",
                "batch": batch,
                "halvings": halvings[0],
                "items": [outcome.as_json() for outcome in outcomes],
            },
            [outcome.data for outcome in outcomes],
        )

    def _reporter(self, batch: int, index: int) -> Callable[[int, int], None]:
        last = 0.0

        def report(step: int, steps: int) -> None:
            nonlocal last
            if self._stopped == batch:
                raise Cancelled("nobody waits for this any more")
            now = time.monotonic()
            if step >= steps or now - last >= STEP_SECONDS:
                last = now
                self._send({"say": "step", "batch": batch, "item": index, "step": int(step), "steps": int(steps)})

        return report

    def _send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        with self._sending:
            wire.send(self._connection, message, blobs)


def attempt(compute: Compute, works: Sequence[Work], halvings: list[int]) -> list[Outcome]:
    """An outcome for each of `works`, whatever happens.

    A batch that memory does not suffice for is halved (counted in `halvings`); in one that fails otherwise each item is
    run alone, so that the error is its own.
    """
    started = time.perf_counter()
    parts: list[Sequence[Work]]
    try:
        values = compute(works)
        share = (time.perf_counter() - started) / len(works)
        if len(values) != len(works):
            raise StageFailed(f"the stage made {len(values)} values of {len(works)} items")
        return [Outcome(pack(value), share) for value in values]
    except Cancelled as error:
        return [Outcome(error=error) for _ in works]
    except MemoryError as error:
        if len(works) == 1:
            return [Outcome(error=StageFailed(f"it needs more memory than a worker may use ({error or 'no details'})"))]
        halvings[0] += 1
        middle = len(works) // 2
        parts = [works[:middle], works[middle:]]
    except (Exception, SystemExit) as error:
        if len(works) == 1:
            return [Outcome(error=error)]
        parts = [[work] for work in works]
    # Outside of the handlers: there the traceback still holds every array of the attempt that failed.
    return [outcome for part in parts for outcome in attempt(compute, part, halvings)]


def named(error: BaseException) -> tuple[str, str, str]:
    """The class of Meshkiln's error family to raise on the other side, the message, and `StageFailed.told`."""
    if isinstance(error, MeshkilnError):
        for kind in type(error).__mro__:
            if getattr(errors, kind.__name__, None) is kind:
                return kind.__name__, str(error), getattr(error, "told", "")
    return StageFailed.__name__, f"{type(error).__name__}: {error}", type(error).__name__


def _load(path: str, warm: bool = False) -> Compute:
    name, _, function = path.partition(":")
    module = import_module(name)
    if warm and hasattr(module, "warm"):
        module.warm()
    compute: Compute = getattr(module, function)
    return compute


def _limit_memory(address_space: int | None) -> None:
    if address_space is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def _die_with_parent() -> None:
    # Linux: the kernel kills us when the thread that started us ends, even if we are stuck in C code. Elsewhere the
    # reading thread notices the closed connection as soon as that code lets it run.
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole group: how workers end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    # What a stage prints must not end up in the output of a command that prints results.
    os.dup2(2, 1)
    with contextlib.suppress(EOFError, OSError):
        Child(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
