"""Admission: what may still wait, by its work and not only by its number.

What is refused is told when it is worth asking again.
"""

from __future__ import annotations

from collections.abc import Callable

from meshkiln.errors import DeadlinePassed, QueueFull
from meshkiln.gateway.runs import Run, Runs


class Admission:
    """Who is let in.

    free_in : () -> seconds until a worker takes up something else
    workers : how many generations are worked on at one time
    queue_seconds, queue_generations : work, and distinct generations, that may wait before new ones are refused
    """

    def __init__(
        self, free_in: Callable[[], float], workers: int, queue_seconds: float, queue_generations: int
    ) -> None:
        self.free_in = free_in
        self.workers = workers
        self.queue_seconds = queue_seconds
        self.queue_generations = queue_generations

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
        self._judge(runs.before(client, priority, needed), needed, timeout)

    def join_in_time(
        self, runs: Runs, run: Run, client: str, priority: int, needed: float, timeout: float, now: float
    ) -> None:
        """The same for who joins `run`: by what is left of it. now : by the clock of the event loop"""
        if run.begun:
            _require(runs.left(run, now), timeout)
        else:
            self._judge(runs.before_joined(run, client, priority, needed), needed, timeout)

    def _judge(self, before: float, needed: float, timeout: float) -> None:
        # What a worker has in hand is finished first, whoever's it is.
        _require(max(before / self.workers, self.free_in()) + needed, timeout)


def _require(expected: float, timeout: float) -> None:
    if expected > timeout:
        raise DeadlinePassed(
            f"the result would be ready in about {expected:.1f} s, after the deadline in {timeout:.1f} s"
        )
