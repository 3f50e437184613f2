"""A place in the pool: what one keeper is at, and has done. Written under the pool's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshkiln.workers.keeper import Job
from meshkiln.workers.stats import WorkerStats
from meshkiln.workers.worker import Worker


@dataclass(slots=True)
class Place:
    """One keeper's place.

    batch : in hand, empty when there is none; since : when it was taken up, by the monotonic clock
    busy : seconds spent on batches before that one; batches : how many those were
    drained : whether it is to take up nothing more
    """

    batch: Sequence[Job] = ()
    since: float = 0.0
    busy: float = 0.0
    batches: int = 0
    drained: bool = False

    def take_up(self, batch: Sequence[Job], now: float) -> None:
        """Begin with `batch`."""
        self.batch, self.since = batch, now

    def put_down(self, now: float) -> None:
        """Be done with the batch in hand, whatever it came to."""
        if self.batch:
            self.busy += now - self.since
            self.batches += 1
            self.batch = ()

    def left(self, cost: Callable[[Job], float], now: float) -> float:
        """Seconds until the batch in hand is done, by what its items are estimated to cost."""
        return max(0.0, sum(map(cost, self.batch)) - (now - self.since)) if self.batch else 0.0

    def stats(self, worker: Worker | None, opened: float, now: float) -> WorkerStats:
        """What it tells. worker : its worker, None while that is being replaced; opened : when the pool was"""
        busy = self.busy + (now - self.since if self.batch else 0.0)
        return WorkerStats(
            pid=None if worker is None else worker.pid,
            state=self._state(worker),
            stage=self.batch[0].task.stage.name if self.batch else None,
            busy=busy / max(1e-9, now - opened),
            busy_seconds=busy,
            batches=self.batches,
            memory=0 if worker is None else worker.resident(),
        )

    def _state(self, worker: Worker | None) -> str:
        if self.drained:
            return "draining" if self.batch or worker is not None else "drained"
        if worker is None:
            return "starting"
        return "busy" if self.batch else "idle"
