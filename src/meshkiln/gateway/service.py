"""The service behind the routes: accepts generations, runs them through the kiln, and knows what became of them.

    submit ─ stored? ── yes: answered at once, no job
               └ no ── admitted? ─ job on disk ─ queued ─ run ─ ended
    run: one per distinct request (`runs`); every job that asks the same thing hangs on it, and none owns it

Everything here happens on one event loop, but for the database and the store, which are called on threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from meshkiln.errors import (
    BadParameter,
    Cancelled,
    DeadlinePassed,
    MeshkilnError,
    Paused,
    PoisonedTask,
    PoolClosed,
    UnknownEngine,
)
from meshkiln.gateway import house
from meshkiln.gateway.admission import Admission
from meshkiln.gateway.estimates import Estimates
from meshkiln.gateway.events import Logs, at_its_end
from meshkiln.gateway.job import CANCELLED, FAILED, QUEUED, SUCCEEDED, Ask, Job
from meshkiln.gateway.jobs import Jobs
from meshkiln.gateway.living import Living
from meshkiln.gateway.problems import problem_of
from meshkiln.gateway.progress import Progress
from meshkiln.gateway.represent import of_end
from meshkiln.gateway.runs import Run, Runs, name_of
from meshkiln.kiln import Kiln
from meshkiln.request import Request
from meshkiln.result import Result
from meshkiln.store.base import Store
from meshkiln.telemetry import names
from meshkiln.telemetry.logs import tell
from meshkiln.workers.processes import Pool

if TYPE_CHECKING:
    from meshkiln.telemetry.traces import Traces

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Distinct generations in the kiln at one time, for each worker: enough for full batches; the rest waits its turn."""
TOLD = 100
"""Of so many that wait first, those who follow are told how they come forward."""
PAUSE = 30.0
"""Seconds after which who is refused while intake is paused may ask again."""

Succeeded = Callable[[Job, Result, bool], None]
"""Called with a job that has its result, and whether the work was done for it or it hung on another's."""
Ended = Callable[[Job], None]
"""Called with a job that failed or was cancelled."""


class Service:
    """Generations for a gateway.

    kilns : by engine name; they share store, flights and pool
    workers : how many generations are worked on at one time
    remote : whether other servers do that work, and not the pool's workers
    queue_seconds, queue_generations : see `Admission`
    joining : False gives each job a run of its own
    succeeded, ended : told of what jobs came to
    """

    def __init__(
        self,
        kilns: Mapping[str, Kiln],
        store: Store,
        pool: Pool,
        jobs: Jobs,
        workers: int,
        queue_seconds: float,
        queue_generations: int = 2000,
        joining: bool = True,
        remote: bool = False,
    ) -> None:
        self.kilns = kilns
        self.store = store
        self.pool = pool
        self.jobs = jobs
        self.workers, self.remote = workers, remote
        self.estimates = Estimates(pool.estimate)
        self.admission = Admission(pool.free_in, workers, queue_seconds, queue_generations)
        self.logs = Logs(int(time.time() * 1000))
        self.accepting = True
        self.succeeded: Succeeded = lambda job, result, led: None
        self.ended: Ended = lambda job: None
        self.paused = False
        self.traces: Traces | None = None
        self.runs = Runs(AT_ONCE * workers, self.estimates, joining)
        self._living = Living(jobs, self.logs, lambda job: self._begin(self._too_late(job)))
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks weakly

    # Life.

    async def start(self) -> None:
        """Take up, beside serving, what a former server accepted and did not finish."""
        unfinished = await asyncio.to_thread(self.jobs.unfinished)
        if unfinished:
            log.warning("going on with %d jobs that were accepted before", len(unfinished))
        for job in unfinished:
            self._living.add(job)
        self._begin(self._resume(unfinished))
        self._begin(house.keep(self.jobs, self.pool))

    async def _resume(self, unfinished: list[Job]) -> None:
        for job in unfinished:
            if job.deadline is not None and job.deadline <= time.time():
                await self._fail(job, DeadlinePassed("the deadline passed while the server was away"))
                continue
            try:
                picture = await asyncio.to_thread(self.jobs.picture, job)
                request = await asyncio.to_thread(self._request, job.ask, picture)
            except Exception as error:
                await self._fail(job, error)
                continue
            if job in self._living:  # not cancelled meanwhile
                self._enqueue(job, request)

    def closing(self) -> None:
        """Accept nothing more, and let all go who wait for something: it is on disk for the next start."""
        self.accepting = False
        self._living.release()

    async def stop(self, timeout: float) -> None:
        """Let what runs finish for `timeout` seconds. The rest is on disk for the next start."""
        self.closing()
        tasks = [run.task for run in self.runs.active if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        self._living.stop()
        tasks += self._tasks
        for task in tasks:
            task.cancel()
        # Their last word is written before the database closes.
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(house.remember_poisoned, self.jobs, self.pool)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What callers do.

    def kiln(self, engine: str) -> Kiln:
        """The kiln of that engine. Raises UnknownEngine, naming those there are."""
        if engine not in self.kilns:
            raise UnknownEngine(f"no engine is called {engine!r}; there are {', '.join(self.kilns)}")
        return self.kilns[engine]

    def stored(self, ask: Ask, picture: bytes) -> Result | None:
        """The answer when it is stored whole. Raises BadParameter or UnknownEngine. Blocks: call it on a thread."""
        request = self._request(ask, picture)
        return None if ask.refresh else self.kilns[ask.engine].stored(request)

    async def submit(
        self,
        ask: Ask,
        picture: bytes,
        *,
        client: str = "",
        priority: int = 0,
        timeout: float | None = None,
        idempotency: str | None = None,
    ) -> Job:
        """The accepted job, on disk. Raises BadParameter, UnknownEngine, QueueFull, StoreError, IdempotencyConflict,
        and what `take_in` does.

        timeout : seconds after which the result is of no use
        """
        request = await asyncio.to_thread(self._request, ask, picture)
        if idempotency is not None:
            before = await asyncio.to_thread(self.jobs.asked_before, ask, picture, client, idempotency)
            if before is not None:
                return before
        self.take_in()
        deadline = None if timeout is None else time.time() + timeout
        if self._joined(ask, request, deadline) is None:
            self.admission.admit(self.runs)
        if timeout is not None:
            needed = await asyncio.to_thread(self._needed, ask, request)
            run, now = self._joined(ask, request, deadline), asyncio.get_running_loop().time()
            if run is None:
                self.admission.in_time(self.runs, client, priority, needed, timeout)
            else:
                self.admission.join_in_time(self.runs, run, client, priority, needed, timeout, now)
        job, new = await asyncio.to_thread(
            lambda: self.jobs.accept(
                ask, picture, client=client, priority=priority, deadline=deadline, idempotency=idempotency
            )
        )
        if new:
            tell("accepted", generation=job.id, engine=ask.engine)
            if self.traces is not None:
                self.traces.accepted(job.id)
            self._enqueue(job, request)
        return job

    def take_in(self) -> None:
        """Let new work for the workers in. Raises PoolClosed or Paused while none is taken."""
        if not self.accepting:
            raise PoolClosed("the server is shutting down; ask again when it is back")
        if self.paused:
            raise Paused(f"intake is paused; {self.runs.waiting + len(self.runs.active)} generations go on", PAUSE)

    async def wait(self, job: Job, seconds: float | None = None) -> Job:
        """The job when it has ended, or as it is after `seconds`. Raises PoolClosed when the server stops meanwhile."""
        return await self._living.wait(job, seconds)

    async def cancel(self, job: Job) -> Job:
        """End `job` as cancelled; what others wait for goes on."""
        changed, counts = await self._living.end(job, CANCELLED)
        self._leave(job)
        if counts:
            self.ended(changed)
        return changed

    def place(self, job: Job) -> tuple[int, float] | None:
        """How many distinct generations come before `job`, and the estimated seconds left; None once it has ended."""
        return self.runs.place(job.id, self.workers)

    def follow(self, job: Job, after: int) -> AsyncIterator[bytes]:
        """The events of `job` numbered above `after`, as server-sent text, up to its end."""
        # It ended before this server started, or long ago: its end is all there is to tell, whatever was told before.
        return self.logs.follow(job.id, after) or at_its_end(of_end(job)).follow()

    # What operators do.

    def pause(self, paused: bool) -> None:
        """Let nothing new in, or let it in again. What is stored is answered, what was accepted goes on."""
        self.paused = paused

    def drain(self, worker: int, drained: bool) -> bool:
        """Have a worker finish what it is at and rest, or go on; False for the last one. Raises IndexError."""
        if drained:
            try:
                self.pool.drain(worker)
            except BadParameter:
                return False
        else:
            self.pool.resume(worker)
        if not self.remote:  # else workers are not what anybody waits for
            self.workers = self.admission.workers = self.pool.working
        return True

    # Runs.

    def _request(self, ask: Ask, picture: bytes) -> Request:
        request, _ = self.kiln(ask.engine).request(picture, ask.parameters, ask.recipe)
        return request

    def _joined(self, ask: Ask, request: Request, deadline: float | None) -> Run | None:
        return self.runs.there(name_of(request, ask.refresh), deadline)

    def _needed(self, ask: Ask, request: Request) -> float:
        """Compute seconds of the stages that have to run: what is stored is not made again."""
        missing = request.engine.stages if ask.refresh else self.kilns[ask.engine].missing(request)
        return self.estimates.seconds(missing, request.parameters)

    def _enqueue(self, job: Job, request: Request) -> None:
        self._living.add(job)
        self._living.watch(job)
        run, joined = self.runs.join(job, request)
        self.logs.tell(job.id, "state", {"state": QUEUED, "joined": True} if joined else {"state": QUEUED})
        if run.begun:
            if run.trace is not None and self.traces is not None:
                self.traces.joined(run.trace, job.id)
            for stage in run.told:
                self.logs.tell(job.id, "stage", stage)
            if run.step is not None:
                self.logs.tell(job.id, "step", run.step)
            self._begin(self._living.begun(job))
        self._next()
        self._tell_places()

    def _next(self) -> None:
        """Begin what waits, as far as there is room."""
        while self.accepting and (run := self.runs.begin()) is not None:
            run.task = asyncio.create_task(self._run(run))

    def _leave(self, job: Job) -> None:
        run = self.runs.leave(job.id)
        if run is not None and run.task is not None:
            run.task.cancel()
        # A task that is cancelled before its first step never comes to its own end.
        self._next()

    async def _too_late(self, job: Job) -> None:
        await self._fail(job, DeadlinePassed("the result was not ready by the deadline"))
        self._leave(job)

    async def _run(self, run: Run) -> None:
        # Begun by whoever made room for it, in whose context it now is.
        names.request.set("")
        if self.traces is not None:
            run.trace = self.traces.generation(list(run.jobs), {"meshkiln.engine": run.request.engine.name})
        trouble: Exception | None = None
        outcome = "cancelled"  # nobody waits any more, or the server stops
        try:
            await self._generate(run)
            outcome = "succeeded"
        except Exception as error:
            if not isinstance(error, MeshkilnError):
                log.exception("a generation failed")
            if isinstance(error, PoolClosed) or (isinstance(error, Cancelled) and not self.accepting):
                return  # stopping: the jobs stay on disk as they are, and the next start goes on with them
            outcome, trouble = "failed", error
            if isinstance(error, PoisonedTask):
                await asyncio.to_thread(house.remember_poisoned, self.jobs, self.pool)
            for job in self.runs.over(run):
                await self._fail(job, error)
        finally:
            if run.trace is not None:
                run.trace.end(outcome, trouble)
            self.runs.over(run)
            self._next()
            self._tell_places()

    async def _generate(self, run: Run) -> None:
        first = next(iter(run.jobs.values()))
        for job in list(run.jobs.values()):
            await self._living.begun(job)
        picture = await asyncio.to_thread(self.jobs.picture, first)
        kiln = self.kilns[first.ask.engine]
        format_ = str(run.request.parameters.get("format", "glb"))
        parameters: dict[str, Any] = {name: v for name, v in run.request.parameters.items() if name != "format"}
        progress = Progress(run, self.logs, asyncio.get_running_loop())
        result = await kiln.agenerate(
            picture,
            format_,
            refresh=run.refresh,
            timeout=None if run.deadline is None else max(0.0, run.deadline - time.time()),
            priority=max((job.priority for job in run.jobs.values()), default=0),
            client=run.client,
            report=progress.report,
            told=progress.told,
            trace=run.trace,
            **parameters,
        )
        await asyncio.to_thread(self.jobs.pin, result.digest.hex(), result.data)
        told = {name: value for name, value in result.as_json().items() if name != "seconds"}
        led = True
        for job in self.runs.over(run):
            changed, counts = await self._living.end(job, SUCCEEDED, result=told)
            if counts:  # else it was cancelled, or its deadline passed, at the last moment
                self.succeeded(changed, result, led)
                led = False

    async def _fail(self, job: Job, error: Exception) -> None:
        changed, counts = await self._living.end(job, FAILED, error=problem_of(error).document())
        if counts:
            self.ended(changed)

    def _tell_places(self) -> None:
        for position, run in self.runs.moved(TOLD):
            for id in run.jobs:
                self.logs.tell(id, "queue", {"position": position})
