"""The runner that computes in this process: one item at a time, on the caller's thread."""

from __future__ import annotations

import time

from meshkiln.engines.base import Work
from meshkiln.engines.codec import pack
from meshkiln.workers.task import Payload, Ran, Task


def run_here(task: Task) -> Ran:
    """Run `task` now. The seconds are the stage's own: neither loading it nor packing its output counts."""
    compute = task.stage.load()
    work = Work(tuple(payload.unpacked() for payload in task.inputs), task.parameters, task.report)
    started = time.perf_counter()
    (value,) = compute([work])
    seconds = time.perf_counter() - started
    if isinstance(value, dict):
        for array in value.values():
            # Everybody who joined the flight reads the same arrays.
            array.flags.writeable = False
    return Ran(Payload(pack(value), task.stage.media_type, value), seconds)
