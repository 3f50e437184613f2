"""Admission: what may still wait, by its work and not only by its number; and how long anything will take.

Estimates come from what stages were measured to cost. What is refused is told when it is worth asking again.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from meshkiln.engines.base import Scalar, Stage
from meshkiln.errors import DeadlinePassed, QueueFull
from meshkiln.gateway.runs import Run, Runs
from meshkiln.request import Request
from meshkiln.workers.fair import FairQueue
from meshkiln.workers.processes import Pool

FRESH = 1.0
"""Seconds an estimate is used again: asking the pool takes its lock once for every stage."""
KNOWN = 1000
"""Estimates kept."""


@dataclass(slots=True, eq=False)
class _Turn:
    """A generation, as the fair queue knows one. group : those of one cost are alike to it"""

    client: str
    priority: int
    seconds: float
    group: Hashable
    order: tuple[float, int]
    charged: float = 0.0
    share: float = 0.0


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
            known = now, self.seconds(request.engine.stages, request.parameters)
            self._estimates[name] = known
        return known[1]

    def seconds(self, stages: Iterable[Stage], parameters: Mapping[str, Scalar]) -> float:
        """Compute seconds of `stages` by what was measured; those that never ran count nothing."""
        return sum(self.pool.estimate(stage, stage.mattering(parameters)) or 0.0 for stage in stages)

    def admit(self, runs: Runs) -> None:
        """Raise QueueFull when too much waits."""
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

    def in_time(self, runs: Runs, client: str, priority: int, needed: float, timeout: float) -> None:
        """Raise DeadlinePassed for what would not be ready in `timeout` seconds.

        needed : compute seconds of what has to run for it
        """
        # What a worker has in hand is finished first, whoever's it is.
        before = max(self.before(runs, client, priority, needed) / self.workers, self.pool.free_in())
        expected = before + needed
        if expected > timeout:
            raise DeadlinePassed(
                f"the result would be ready in about {expected:.1f} s, after the deadline in {timeout:.1f} s"
            )

    def before(self, runs: Runs, client: str, priority: int, needed: float) -> float:
        """Compute seconds that are served before a newcomer of that client, in the order in which workers serve."""
        queue: FairQueue[_Turn] = FairQueue(lambda turn: turn.seconds)
        number = itertools.count()
        for run in itertools.chain(runs.active, runs):
            if run.jobs:
                first = next(iter(run.jobs.values()))
                highest = max(job.priority for job in run.jobs.values())
                left = self._left(run)
                queue.push(
                    _Turn(run.client if run.begun else first.client, highest, left, left, (first.created, next(number)))
                )
        newcomer = _Turn(client, priority, needed, needed, (math.inf, next(number)))
        queue.push(newcomer)
        return queue.ahead(newcomer)[1]

    def _left(self, run: Run) -> float:
        """Compute seconds of a run from the deepest stage that is done."""
        whole = self.expected(run.request)
        done = {told["stage"] for told in run.told if told["state"] == "done"}
        if not done:
            return whole
        stages = run.request.engine.stages
        deepest = max(place for place, stage in enumerate(stages) if stage.name in done)
        return min(whole, self.seconds(stages[deepest + 1 :], run.request.parameters))
