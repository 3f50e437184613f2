"""What a pool tells about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshkiln.errors import Cancelled, DeadlinePassed, PoisonedTask, PoolClosed, QueueFull

STATES = ("starting", "idle", "busy", "draining", "drained")
"""What a worker can be at. Draining, it finishes its batch; drained, its process has ended until it is resumed."""

_OUTCOMES: dict[type, str] = {
    Cancelled: "cancelled",
    DeadlinePassed: "deadline",
    QueueFull: "full",
    PoisonedTask: "poisoned",
    PoolClosed: "closed",
}


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker.

    pid : None while it is being replaced
    state : one of `STATES`
    stage : the name of the stage it runs, or None when it has nothing to do
    busy_seconds : time that this place spent on batches since the pool was opened; batches : how many those were
    busy : the same as a share of the pool's life
    memory : resident bytes; 0 where the system does not tell
    """

    pid: int | None
    state: str
    stage: str | None
    busy: float
    busy_seconds: float
    batches: int
    memory: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at a moment; counts are since it was opened.

    queued, queued_seconds : tasks that wait, and their estimated compute seconds
    running : tasks in the hands of workers
    batches : batch size -> how often
    restarts : why a worker was replaced ("died", "hung", "memory", "start") -> how often
    tasks : what became of them ("done", "failed", "cancelled", "deadline", "full", "poisoned", "closed") -> how many
    retried : times a task was queued again because its worker was lost
    halved : times a batch was halved because memory did not suffice
    poisoned : inputs that are refused
    """

    workers: tuple[WorkerStats, ...]
    queued: int
    queued_seconds: float
    running: int
    batches: Mapping[int, int]
    restarts: Mapping[str, int]
    tasks: Mapping[str, int]
    retried: int
    halved: int
    poisoned: int


@dataclass(slots=True)
class Counts:
    """What has happened in a pool; written under its lock. The names are those of `PoolStats`."""

    batches: Counter[int] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    halved: int = 0

    def ended(self, result: object) -> None:
        """A task came to `result`: an error, or else its output."""
        self.tasks[_OUTCOMES.get(type(result), "failed") if isinstance(result, Exception) else "done"] += 1
