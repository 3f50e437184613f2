"""What the gateway counts: how requests were answered, what that took, what it saved, and what went wrong.

Everything here is written on the event loop only, some of it 50,000 times a second: plain numbers without locks, which
`exposition` and the history read from other threads.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict

from meshkiln.gateway.job import Job
from meshkiln.gateway.problems import Problem
from meshkiln.result import Result
from meshkiln.telemetry.tally import BUCKETS, Tally

STORED = ("memory", "disk")
OUTCOMES = (*STORED, "joined", "computed", "failed", "cancelled")
"""How a generation was answered: from a tier of the store, by joining another's flight, or by computing at least one
stage. A failed one that was several jobs' counts for each."""

SAMPLED = 16
"""Of plain GETs of artifacts one in so many is timed and stands for all: two looks at the clock would be a twentieth of
what answering one takes (`benchmarks/telemetry.py`)."""
ARTIFACT, GENERATIONS = "/v1/artifacts/{key}", "/v1/generations"
"""The routes that the hot path answers."""

CONVERSION, PREVIEW = "conversion", "preview"
"""What workers make beside generations, counted as if it were a stage: a stored mesh in another format, or made again
after it was evicted, by whatever stages that takes; and a picture of a mesh or a cut-out."""


class Again(Tally):
    """Stored generations that the hot path answered, of one tier and last stage. saved : compute seconds"""

    __slots__ = ("saved",)

    def __init__(self) -> None:
        super().__init__()
        self.saved = 0.0

    def answered(self, saved: float, seconds: float) -> None:
        """Count one."""
        # Tally.observe without the call.
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
        self.saved += saved


class Metrics:
    """The counts. `exposition.Exposition` tells them.

    on : False counts nothing (the setting `telemetry`)
    requests : (route, status) -> HTTP requests; answers : route -> seconds to the end of the answer
    generations : outcome -> seconds from the request to its result
    stages : stage, or what is made beside -> compute seconds; hits : (tier, stage) -> outputs found, not computed
    saved : outcome -> compute seconds that answers did not need
    errors : kind of problem (the end of its type URI) -> times it was told

    What the hot path counts is apart, so that it costs an addition or two: `again` by (tier, stage), `plain` GETs of
    artifacts with status 200 and `unchanged` with 304, and `timed`, the sample of the former. `totals` has everything.
    """

    def __init__(self, on: bool = True) -> None:
        self.on = on
        self.requests = Counts[tuple[str, str]]()
        self.answers = defaultdict[str, Tally](Tally)
        self.generations = defaultdict[str, Tally](Tally, {outcome: Tally() for outcome in OUTCOMES})
        self.stages = defaultdict[str, Tally](Tally)
        self.hits = Counts[tuple[str, str]]()
        self.saved = defaultdict[str, float](float, dict.fromkeys(OUTCOMES[:4], 0.0))
        self.errors = Counts[str]()
        self.again = defaultdict[tuple[str, str], Again](Again)
        self.plain = self.unchanged = 0
        self.timed = Tally()

    def totals(self) -> Metrics:
        """A copy in which what the hot path counted is where everything else is. Any thread may ask for it."""
        whole = Metrics(self.on)
        for name in ("requests", "hits", "saved", "errors"):
            getattr(whole, name).update(dict(getattr(self, name)))
        for name in ("answers", "generations", "stages"):
            for label, tally in list(getattr(self, name).items()):
                getattr(whole, name)[label].add(tally)
        for (tier, stage), again in list(self.again.items()):
            count = sum(again.counts)
            if not count:
                continue
            whole.requests[GENERATIONS, "200"] += count
            whole.hits[tier, stage] += count
            whole.saved[tier] += again.saved
            whole.answers[GENERATIONS].add(again)
            whole.generations[tier].add(again)
        for status, count in (("200", self.plain), ("304", self.unchanged)):
            if count:
                whole.requests[ARTIFACT, status] += count
        if self.plain:
            whole.answers[ARTIFACT].add(self.timed, SAMPLED)
        return whole

    def answered(self, route: str, status: str, seconds: float) -> None:
        """Count an HTTP request and the time that answering it took."""
        if self.on:
            self.requests[route, status] += 1
            self.answers[route].observe(seconds)

    def refused(self, problem: Problem, route: str = "none") -> None:
        """Count a request that was refused before the framework saw it."""
        self.answered(route, str(problem.status), 0.0)
        self.problem(problem.kind)

    def stored(self, result: Result, seconds: float) -> None:
        """Count a generation that was stored whole, `seconds` after it was asked for."""
        if self.on:
            last = result.stages[-1]
            tier = str(last.source)
            self.generations[tier].observe(seconds)
            self.hits[tier, last.stage] += 1
            self.saved[tier] += result.saved

    def succeeded(self, job: Job, result: Result, led: bool) -> None:
        """Count a job that has its result. led : whether the work was done for it; else it hung on another's"""
        if not self.on:
            return
        outcome = outcome_of(result) if led else "joined"
        self.generations[outcome].observe(max(0.0, time.time() - job.created))
        # Only one of the jobs paid for it.
        self.saved[outcome] += result.saved if led else result.cost
        for stage in result.stages if led else ():
            if stage.source == "computed":
                if not stage.joined:
                    self.stages[stage.stage].observe(stage.seconds)
            elif stage.source is not None:
                self.hits[stage.source, stage.stage] += 1

    def computed(self, stage: str, seconds: float) -> None:
        """Count what was made beside generations, and the compute seconds that it took."""
        if self.on:
            self.stages[stage].observe(seconds)

    def found(self, tier: str, stage: str) -> None:
        """Count what is made beside generations, and was there already."""
        if self.on:
            self.hits[tier, stage] += 1

    def ended(self, job: Job) -> None:
        """Count a job that failed or was cancelled."""
        if not self.on:
            return
        self.generations[job.state].observe(max(0.0, time.time() - job.created))
        if job.error is not None:
            self.problem(str(job.error["type"]).rpartition(":")[2])

    def problem(self, kind: str) -> None:
        """Count a problem that was told to a caller."""
        if self.on:
            self.errors[kind] += 1


def outcome_of(result: Result) -> str:
    """How a generation was answered, by what its stages did."""
    computed = [stage for stage in result.stages if stage.source == "computed"]
    if any(not stage.joined for stage in computed):
        return "computed"
    if computed:
        return "joined"
    return str(result.stages[-1].source)
