"""Admission: what may still wait, by its work and not only by its number; and how long anything will take.

Estimates come from what stages were measured to cost. What is refused is told when it is worth asking again.
"""

from __future__ import annotations

import time
from typing import Any

from meshkiln.errors import DeadlinePassed, QueueFull
from meshkiln.gateway.runs import Runs
from meshkiln.request import Request
from meshkiln.workers.processes import Pool

FRESH = 1.0
"""Seconds an estimate is used again: asking the pool takes its lock once for every stage."""
KNOWN = 1000
"""Estimates kept."""


class Admission:
    """Who is let in.

    workers : how many generations are worked on at one time
    queue_seconds, queue_generations : work, and distinct generations, that may wait before new ones are refused
    """

    def __init__(self, pool: Pool, workers: int, queue_seconds: float, queue_generations: int) -> None:
        self.pool = pool
        self.workers = workers
        self.queue_seconds = queue_seconds
        self.queue_generations = queue_generations
        self._estimates: dict[tuple[Any, ...], tuple[float, float]] = {}

    def expected(self, request: Request) -> float:
        """Compute seconds of the whole line by what was measured; stages that never ran count nothing."""
        name = (request.engine.name, *sorted(request.parameters.items()))
        now = time.monotonic()
        known = self._estimates.get(name)
        if known is None or known[0] < now - FRESH:
            if len(self._estimates) > KNOWN:
                self._estimates.clear()
            parameters = request.parameters
            stages = request.engine.stages
            known = now, sum(self.pool.estimate(stage, stage.mattering(parameters)) or 0.0 for stage in stages)
            self._estimates[name] = known
        return known[1]

    def admit(self, runs: Runs, request: Request, timeout: float | None = None) -> None:
        """Raise QueueFull when too much waits, DeadlinePassed for what would not be ready in `timeout` seconds."""
        waiting = runs.seconds() / self.workers
        if waiting > self.queue_seconds:
            raise QueueFull(
                f"{waiting:.0f} s of work are waiting, more than {self.queue_seconds:.0f} s",
                waiting - self.queue_seconds,
            )
        if runs.waiting >= self.queue_generations:
            raise QueueFull(
                f"{runs.waiting} generations are waiting, and no more may",
                waiting / max(1, len(runs)),
            )
        expected = waiting + self.expected(request)
        if timeout is not None and expected > timeout:
            raise DeadlinePassed(
                f"the result would be ready in about {expected:.1f} s, after the deadline in {timeout:.1f} s"
            )
