"""Runs: one for each distinct request that is served, and the jobs that wait for it. No clock, no disk, no tasks.

join ─┬─ waits (turns between clients) ── begin ── over
      └─ of a run that is there: hangs on it, and none of its jobs owns it
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshkiln.gateway.job import Job
from meshkiln.gateway.turns import Turns
from meshkiln.request import Request

if TYPE_CHECKING:
    from meshkiln.telemetry.traces import Generation


@dataclass(slots=True, eq=False)
class Run:
    """One distinct request being served.

    jobs : those that wait for it, by id
    begun : whether it is in the kiln; its deadline and client are fixed from then on
    client : on whose account it is worked on
    told : what was told of its stages, for those who join later; step : and of the steps of the one it is at
    trace : of its generation, when somebody traces
    """

    name: tuple[Any, ...]
    request: Request
    refresh: bool
    jobs: dict[str, Job] = field(default_factory=dict)
    begun: bool = False
    deadline: float | None = None
    client: str = ""
    task: asyncio.Task[None] | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    step: dict[str, Any] | None = None
    trace: Generation | None = None

    @property
    def latest(self) -> float | None:
        """The deadline of the most patient job, None when one of them has none."""
        deadlines = [job.deadline for job in self.jobs.values()]
        given = [deadline for deadline in deadlines if deadline is not None]
        return None if not given or len(given) < len(deadlines) else max(given)

    def takes(self, job: Job) -> bool:
        """Whether `job` can hang on it: what has begun with an earlier deadline may end before its time."""
        return not self.begun or self.deadline is None or (job.deadline is not None and job.deadline <= self.deadline)


class Runs:
    """The runs there are.

    most : how many may be in the kiln at one time; as many again for clients of whom none is there, since what is in
        the kiln is worked on fairly, and who waits before it is not
    expected : compute seconds of a request by what was measured; 0 while nothing was
    joining : False gives each job a run of its own
    """

    def __init__(self, most: int, expected: Callable[[Request], float], joining: bool = True) -> None:
        self.most = most
        self.expected = expected
        self.joining = joining
        self.active: set[Run] = set()
        self._joinable: dict[tuple[Any, ...], Run] = {}
        self._turns: Turns[Run] = Turns()
        self._of_job: dict[str, Run] = {}
        self._places: dict[Run, tuple[int, float]] | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._turns)

    def __len__(self) -> int:
        return len(self._turns) + len(self.active)

    def there(self, name: tuple[Any, ...]) -> bool:
        """Whether a job of that request would join a run instead of waiting for a turn of its own."""
        return self.joining and name in self._joinable

    def join(self, job: Job, request: Request) -> tuple[Run, bool]:
        """The run that serves `job`, and whether it was there."""
        name = name_of(request, job.ask.refresh)
        run = self._joinable.get(name) if self.joining else None
        joined = run is not None and run.takes(job)
        if run is None or not joined:
            run = self._joinable[name] = Run(name, request, job.ask.refresh)
        run.jobs[job.id] = job
        self._of_job[job.id] = run
        if not run.begun:
            self._turns.add(run, job.client, job.priority)
        self._places = None
        return run, joined

    def begin(self) -> Run | None:
        """The run whose turn it is, when there is room for one more."""
        if len(self.active) >= 2 * self.most:
            return None
        full = len(self.active) >= self.most
        run = self._turns.pop({job.client for run in self.active for job in run.jobs.values()} if full else ())
        if run is not None:
            run.begun, run.deadline = True, run.latest
            # Of several who want it, whoever has least in the kiln: it would else be behind all that another has there.
            there = Counter(other.client for other in self.active)
            run.client = min((job.client for job in run.jobs.values()), key=there.__getitem__)
            self.active.add(run)
            self._places = None
        return run

    def leave(self, id: str) -> Run | None:
        """Let a job go; its run, taken out, when nobody is left who waits for it."""
        run = self._of_job.pop(id, None)
        if run is None:
            return None
        run.jobs.pop(id, None)
        if run.jobs:
            return None
        self.over(run)
        return run

    def over(self, run: Run) -> list[Job]:
        """Take `run` out; whoever asks the same from now on gets a run of his own. The jobs that waited for it."""
        if self._joinable.get(run.name) is run:
            del self._joinable[run.name]
        for id in run.jobs:
            self._of_job.pop(id, None)
        self.active.discard(run)
        self._turns.remove(run)
        self._places = None
        return list(run.jobs.values())

    def of_job(self, id: str) -> Run | None:
        """The run that serves a job."""
        return self._of_job.get(id)

    def seconds(self) -> float:
        """Estimated compute seconds of everything that waits or runs."""
        return sum(self.expected(run.request) for run in (*self.active, *self._turns))

    def place(self, id: str, workers: int) -> tuple[int, float] | None:
        """How many turns come before a job's (0: it is being made) and the estimated seconds left; None when over."""
        run = self._of_job.get(id)
        if run is None:
            return None
        if self._places is None:
            self._places = self._all_places(workers)
        return self._places.get(run)

    def _all_places(self, workers: int) -> dict[Run, tuple[int, float]]:
        ahead = sum(self.expected(run.request) for run in self.active)
        places = {run: (0, max(self.expected(run.request), ahead / workers)) for run in self.active}
        for place, run in enumerate(self._turns):
            ahead += self.expected(run.request)
            places[run] = place + 1, ahead / workers
        return places

    def __iter__(self) -> Iterator[Run]:
        """Those that wait, in the order of their turns."""
        return iter(self._turns)


def name_of(request: Request, refresh: bool) -> tuple[Any, ...]:
    """What requests have in common that one run can serve."""
    parameters = tuple(sorted(request.parameters.items()))
    return (request.engine.name, request.source, request.namespace, parameters, refresh)
