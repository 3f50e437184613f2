"""What the gateway counts: how requests were answered, what that took, what it saved, and what went wrong.

Everything here is written on the event loop only, some of it 50,000 times a second: plain numbers without locks, which
`exposition` and the history read from other threads.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections import defaultdict

from meshkiln.gateway.job import Job
from meshkiln.result import Result
from meshkiln.telemetry.tally import Tally

STORED = ("memory", "disk", "shared")
OUTCOMES = (*STORED, "joined", "computed", "failed", "cancelled")
"""How a generation was answered: from a tier of the store, by joining another's flight, or by computing at least one
stage. A failed one that was several jobs' counts for each."""


class Metrics:
    """The counts. `exposition.Exposition` tells them.

    on : False counts nothing (the setting `telemetry`)
    requests : (route, status) -> HTTP requests; answers : route -> seconds to the end of the answer
    generations : outcome -> seconds from the request to its result
    stages : stage -> compute seconds; hits : (tier, stage) -> outputs found instead of computed
    saved : outcome -> compute seconds that answers did not need
    errors : kind of problem (the end of its type URI) -> times it was told
    """

    def __init__(self, on: bool = True) -> None:
        self.on = on
        self.requests = Counts[tuple[str, str]]()
        self.answers = defaultdict[str, Tally](Tally)
        self.generations = defaultdict[str, Tally](Tally, {outcome: Tally() for outcome in OUTCOMES})
        self.stages = defaultdict[str, Tally](Tally)
        self.hits = Counts[tuple[str, str]]()
        self.saved = defaultdict[str, float](float, dict.fromkeys(OUTCOMES[:5], 0.0))
        self.errors = Counts[str]()

    def answered(self, route: str, status: str, seconds: float) -> None:
        """Count an HTTP request and the time that answering it took."""
        if self.on:
            self.requests[route, status] += 1
            self.answers[route].observe(seconds)

    def stored(self, result: Result, seconds: float) -> None:
        """Count a generation that was stored whole, `seconds` after it was asked for."""
        last = result.stages[-1]
        self.stored_again(str(last.source), last.stage, result.saved, seconds)

    def stored_again(self, tier: str, stage: str, saved: float, seconds: float) -> None:
        """As `stored`, by what is left to know. tier : where `stage`, the last one, was found"""
        if self.on:
            self.generations[tier].observe(seconds)
            self.hits[tier, stage] += 1
            self.saved[tier] += saved

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
