"""Runs: one for each distinct request that is served, and the jobs that wait for it. No clock, no disk, no tasks.

join ─┬─ waits (turns between clients) ── begin ── over
      └─ of a run that is there: hangs on it, and none of its jobs owns it
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshkiln.gateway.estimates import Estimates, Scale
from meshkiln.gateway.flows import Flows, Place
from meshkiln.gateway.job import Job
from meshkiln.gateway.turns import Turns
from meshkiln.request import Request

if TYPE_CHECKING:
    from meshkiln.telemetry.traces import Generation


@dataclass(slots=True, eq=False)
class Run:
    """One distinct request being served.

    kind : see `Estimates`; number : from 0, rising
    jobs : those that wait for it, by id
    begun : whether it is in the kiln; its deadline and client are fixed from then on
    client : on whose account it is worked on
    told : what was told of its stages, for those who join later; step : and of the steps of the one it is at
    done : how many of its stages, from the first, need not run any more
    since : when the one after them was asked for, by the clock of the event loop
    position : what was told of its turn, 0 when somebody has not been told
    trace : of its generation, when somebody traces
    """

    name: tuple[Any, ...]
    request: Request
    refresh: bool
    kind: int
    number: int
    jobs: dict[str, Job] = field(default_factory=dict)
    begun: bool = False
    deadline: float | None = None
    client: str = ""
    task: asyncio.Task[None] | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    step: dict[str, Any] | None = None
    done: int = 0
    since: float = 0.0
    position: int = 0
    trace: Generation | None = None
    urgency: Counter[int] = field(default_factory=Counter)

    def take(self, job: Job) -> None:
        """Have `job` hang on it."""
        self.jobs[job.id] = job
        self.urgency[job.priority] += 1
        self.position = 0

    def drop(self, id: str) -> None:
        """Let a job go."""
        job = self.jobs.pop(id, None)
        if job is not None:
            self.urgency -= Counter([job.priority])

    def tell(self, stage: dict[str, Any], now: float) -> None:
        """Keep what is told of one of its stages."""
        if self.told and self.told[-1] == stage:
            return  # a stage may say again that it has begun, to learn whether anybody still waits
        self.told.append(stage)
        self.since = now
        if stage["state"] == "done":
            names = [stage.name for stage in self.request.engine.stages]
            self.done = max(self.done, names.index(stage["stage"]) + 1)

    @property
    def place(self) -> Place:
        """Where the workers' queue has it, or will have it."""
        first = next(iter(self.jobs.values()))
        client = self.client if self.begun else first.client
        return Place(client, max(self.urgency), (first.created, self.number))

    @property
    def latest(self) -> float | None:
        """The deadline of the most patient job, None when one of them has none."""
        deadlines = [job.deadline for job in self.jobs.values()]
        given = [deadline for deadline in deadlines if deadline is not None]
        return None if not given or len(given) < len(deadlines) else max(given)

    def takes(self, deadline: float | None) -> bool:
        """Whether a job can hang on it: what has begun with an earlier deadline may end before its time."""
        return not self.begun or self.deadline is None or (deadline is not None and deadline <= self.deadline)


class Runs:
    """The runs there are.

    most : how many may be in the kiln at one time; as many again for clients of whom none is there, since what is in
        the kiln is worked on fairly, and who waits before it is not
    estimates : what they are expected to take
    joining : False gives each job a run of its own
    """

    def __init__(self, most: int, estimates: Estimates, joining: bool = True) -> None:
        self.most = most
        self.estimates = estimates
        self.joining = joining
        self.active: set[Run] = set()
        self._joinable: dict[tuple[Any, ...], Run] = {}
        self._turns: Turns[Run] = Turns()
        self._flows: Flows[Run] = Flows()
        self._of_job: dict[str, Run] = {}
        self._numbers = itertools.count()
        # How many there are of each kind, and one of them.
        self._kinds: dict[int, tuple[int, Run]] = {}
        self._begun: tuple[Scale, float] | None = None  # what the active ones are expected to take

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._turns)

    def __len__(self) -> int:
        return len(self._turns) + len(self.active)

    def there(self, name: tuple[Any, ...], deadline: float | None) -> Run | None:
        """The run that a job of that request would join instead of waiting for a turn of its own."""
        run = self._joinable.get(name) if self.joining else None
        return run if run is not None and run.takes(deadline) else None

    def join(self, job: Job, request: Request) -> tuple[Run, bool]:
        """The run that serves `job`, and whether it was there."""
        name = name_of(request, job.ask.refresh)
        run = self.there(name, job.deadline)
        joined = run is not None
        if run is None:
            run = self._joinable[name] = self._new(name, request, job.ask.refresh)
        run.take(job)
        self._of_job[job.id] = run
        if not run.begun:
            self._turns.add(run, job.client, job.priority)
            self._flows.put(run, run.place)
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
            self._begun = None
            self._flows.remove(run)
        return run

    def leave(self, id: str) -> Run | None:
        """Let a job go; its run, taken out, when nobody is left who waits for it."""
        run = self._of_job.pop(id, None)
        if run is None:
            return None
        run.drop(id)
        if run.jobs:
            if not run.begun:
                self._flows.put(run, run.place)
            return None
        self.over(run)
        return run

    def over(self, run: Run) -> list[Job]:
        """Take `run` out; whoever asks the same from now on gets a run of his own. The jobs that waited for it."""
        if self._joinable.get(run.name) is run:
            del self._joinable[run.name]
        for id in run.jobs:
            self._of_job.pop(id, None)
        if run in self.active or run in self._turns:
            self._forget(run)
            self.estimates.ended()
        return list(run.jobs.values())

    def of_job(self, id: str) -> Run | None:
        """The run that serves a job."""
        return self._of_job.get(id)

    def seconds(self) -> float:
        """Estimated compute seconds of everything that waits or runs."""
        scale = self.estimates.now()
        return sum(count * scale(one) for count, one in self._kinds.values())

    def before(self, client: str, priority: int, needed: float) -> float:
        """Compute seconds that are served before a newcomer of that client, in the order in which workers serve.

        needed : compute seconds of what he asks
        """
        return self._before(Place(client, priority, (math.inf, 0)), needed)

    def before_joined(self, run: Run, client: str, priority: int, needed: float) -> float:
        """The same for one that waits, when somebody joins it: the sooner of his turn and the one that it has."""
        stands = run.place
        urgent = max(priority, stands.priority)
        self._flows.remove(run)
        try:
            before = self._before(Place(stands.client, urgent, stands.order), needed)
            return before if client == stands.client else min(before, self.before(client, urgent, needed))
        finally:
            self._flows.put(run, stands)

    def left(self, run: Run, now: float) -> float:
        """Compute seconds that are left of one that has begun, at the least."""
        scale = self.estimates.now()
        left = scale.left(run)
        in_hand = left - scale.beyond(run, run.done + 1)
        # A stage without steps may be as far as it can be since it was asked for.
        passed = now - run.since if run.step is None else in_hand * run.step["step"] / run.step["steps"]
        return left - max(0.0, min(in_hand, passed))

    def place(self, id: str, workers: int) -> tuple[int, float] | None:
        """How many turns come before a job's (0: it is being made) and the estimated seconds left; None when over."""
        run = self._of_job.get(id)
        if run is None:
            return None
        scale = self.estimates.now()
        if self._begun is None or self._begun[0] is not scale:
            self._begun = scale, sum(map(scale, self.active))
        begun = self._begun[1]
        if run.begun:
            return 0, max(scale(run), begun / workers)
        place, before = self._turns.before(run, scale)
        return place + 1, (begun + before + scale(run)) / workers

    def moved(self, most: int) -> Iterator[tuple[int, Run]]:
        """Of the first so many that wait, those of whose place somebody has not been told, with it (from 1)."""
        for position, run in enumerate(self._turns.first(most), 1):
            if run.position != position:
                run.position = position
                yield position, run

    def _before(self, place: Place, needed: float) -> float:
        scale = self.estimates.now()
        begun = [(run.place, scale.left(run)) for run in self.active if run.jobs]
        return self._flows.before(place, needed, scale, begun)

    def _new(self, name: tuple[Any, ...], request: Request, refresh: bool) -> Run:
        run = Run(name, request, refresh, self.estimates.kind(request), next(self._numbers))
        count, _ = self._kinds.get(run.kind, (0, run))
        self._kinds[run.kind] = count + 1, run
        return run

    def _forget(self, run: Run) -> None:
        self.active.discard(run)
        self._begun = None
        self._turns.remove(run)
        self._flows.remove(run)
        count, one = self._kinds.pop(run.kind)
        if count > 1:
            self._kinds[run.kind] = count - 1, one


def name_of(request: Request, refresh: bool) -> tuple[Any, ...]:
    """What requests have in common that one run can serve."""
    parameters = tuple(sorted(request.parameters.items()))
    return (request.engine.name, request.source, request.namespace, parameters, refresh)
