"""Estimates: what generations are expected to take, by what their stages were measured to cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Protocol

from meshkiln.engines.base import Scalar, Stage
from meshkiln.request import Request
from meshkiln.workers.batching import group_of

FRESH = 1.0
"""Seconds an estimate is used again: asking the pool takes its lock once for every stage."""
KINDS = 10_000
"""Kinds of requests kept."""
_EXACT = 2.0**20
"""Estimates are whole numbers of so small a part of a second that they add up to the same in any order: what is
expected to take equally long then stays equal, and has equal turns."""


class Estimated(Protocol):
    """What the estimates must know of a run.

    kind : as `Estimates.kind` told it
    done : how many of its stages, from the first, need not run any more
    """

    request: Request
    kind: int
    done: int


class Scale:
    """Compute seconds of runs as they were expected at one moment."""

    def __init__(self, seconds: Callable[[Iterable[Stage], Mapping[str, Scalar]], float]) -> None:
        self._seconds = seconds
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, run: Estimated) -> float:
        """Of its whole line."""
        return self.beyond(run, 0)

    def left(self, run: Estimated) -> float:
        """Of what is not done of it."""
        return self.beyond(run, run.done)

    def beyond(self, run: Estimated, done: int) -> float:
        """Of its stages but the first `done`."""
        name = (run.kind, done)
        known = self._known.get(name)
        if known is None:
            request = run.request
            known = self._known[name] = self._seconds(request.engine.stages[done:], request.parameters)
        return known


class Estimates:
    """What stages of requests are expected to take.

    measured : compute seconds of a stage with these parameters; None when it has never run
    clock : seconds, rising
    """

    def __init__(
        self,
        measured: Callable[[Stage, Mapping[str, Scalar]], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measured = measured
        self._clock = clock
        self._numbers = itertools.count()
        self._kinds: dict[Hashable, int] = {}
        self._scale, self._since = Scale(self.seconds), clock()
        self._unknown = False  # whether something was asked of which nothing is known

    def kind(self, request: Request) -> int:
        """Requests of one kind are expected to take equally long."""
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        stages = request.engine.stages
        name = tuple(group_of(stage, stage.mattering(request.parameters)) for stage in stages)
        return self._kinds.setdefault(name, next(self._numbers))

    def seconds(self, stages: Iterable[Stage], parameters: Mapping[str, Scalar]) -> float:
        """Compute seconds of `stages`; those that never ran count nothing."""
        measured = [self._measured(stage, stage.mattering(parameters)) for stage in stages]
        self._unknown |= None in measured
        return round(sum(seconds or 0.0 for seconds in measured) * _EXACT) / _EXACT

    def now(self) -> Scale:
        """What is expected now: the same scale for a while, and then another."""
        now = self._clock()
        if now - self._since > FRESH:
            self._renew(now)
        return self._scale

    def ended(self) -> None:
        """A run has ended: what was never measured may be known by now, and is not to be taken for nothing longer."""
        if self._unknown:
            self._renew(self._clock())

    def _renew(self, now: float) -> None:
        self._scale, self._since, self._unknown = Scale(self.seconds), now, False
