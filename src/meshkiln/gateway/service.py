"""The service behind the routes: accepts generations, runs them through the kiln, and knows what became of them.

    submit ─ stored? ── yes: answered at once, no job
               └ no ── admitted? ─ job on disk ─ queued ─ run ─ ended
    run: one per distinct request; every job that asks the same thing hangs on it, and none owns it

Everything here happens on one event loop, but for the database and the store, which are called on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshkiln.errors import Cancelled, DeadlinePassed, MeshkilnError, PoolClosed, QueueFull, UnknownEngine
from meshkiln.gateway.events import Log
from meshkiln.gateway.jobs import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, Ask, Job, Jobs
from meshkiln.gateway.problems import problem_of
from meshkiln.gateway.turns import Turns
from meshkiln.kiln import Kiln
from meshkiln.request import Request
from meshkiln.result import Result
from meshkiln.store.base import Store
from meshkiln.workers.processes import Pool

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Distinct generations in the kiln at one time, for each worker: enough for full batches; the rest waits its turn."""


@dataclass(slots=True, eq=False)
class Run:
    """One distinct request being served, and the jobs that wait for it.

    expected : compute seconds of what is missing, by what was measured; 0 while nothing was
    """

    name: tuple[Any, ...]
    request: Request
    refresh: bool
    jobs: list[Job] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    expected: float = 0.0

    def serves(self, job: Job) -> bool:
        """Whether `job` waits for it."""
        return any(waiting.id == job.id for waiting in self.jobs)


class Service:
    """Generations for a gateway.

    kilns : by engine name; they share store, flights and pool
    """

    def __init__(
        self, kilns: Mapping[str, Kiln], store: Store, pool: Pool, jobs: Jobs, workers: int, queue_seconds: float
    ) -> None:
        self.kilns = kilns
        self.store = store
        self.pool = pool
        self.jobs = jobs
        self.workers = workers
        self.queue_seconds = queue_seconds
        self.logs: OrderedDict[str, Log] = OrderedDict()
        self.accepting = True
        self.generated = 0
        self.answered_stored = 0
        self._runs: dict[tuple[Any, ...], Run] = {}
        self._waiting: Turns[Run] = Turns()
        self._active: set[Run] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks weakly

    # Life.

    async def start(self) -> int:
        """Take up what a former server accepted and did not finish; how many jobs that was."""
        unfinished = await asyncio.to_thread(self.jobs.unfinished)
        for job in unfinished:
            try:
                picture = await asyncio.to_thread(self.jobs.picture, job)
                request = self._request(job.ask, picture)
            except MeshkilnError as error:
                await self._end(job, FAILED, error=problem_of(error).document())
                continue
            self._enqueue(job, request)
        self._keeper = asyncio.create_task(self._keep_house())
        return len(unfinished)

    async def stop(self, timeout: float) -> None:
        """Accept nothing more; let what runs finish for `timeout` seconds. The rest is on disk for the next start."""
        self.accepting = False
        self._waiting.clear()
        if self._keeper is not None:
            self._keeper.cancel()
        tasks = [run.task for run in self._active if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            self.jobs.remember_poisoned(self.pool.poisoned())

    async def _keep_house(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.jobs.expire)
                await asyncio.to_thread(self.jobs.remember_poisoned, self.pool.poisoned())
            except Exception:
                log.exception("expired jobs could not be removed")
            await asyncio.sleep(60)

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
        """The accepted job, on disk. Raises BadParameter, UnknownEngine, QueueFull, StoreError, IdempotencyConflict.

        timeout : seconds after which the result is of no use
        """
        request = await asyncio.to_thread(self._request, ask, picture)
        if not self.accepting:
            raise PoolClosed("the server is shutting down; ask again when it is back")
        expected = self._expected(request)
        if self._name(request, ask.refresh) not in self._runs:
            self._admit(expected, timeout)
        deadline = None if timeout is None else time.time() + timeout
        job, new = await asyncio.to_thread(
            lambda: self.jobs.accept(
                ask, picture, client=client, priority=priority, deadline=deadline, idempotency=idempotency
            )
        )
        if new:
            self._enqueue(job, request)
        return job

    async def wait(self, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it is after `seconds`."""
        ended = self._ended.get(job.id)
        if ended is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), seconds)
        return await asyncio.to_thread(self.jobs.get, job.id) or job

    async def cancel(self, job: Job) -> Job:
        """End `job` as cancelled; what others wait for goes on."""
        changed = await self._end(job, CANCELLED)
        for run in list(self._runs.values()):
            if run.serves(job):
                run.jobs = [waiting for waiting in run.jobs if waiting.id != job.id]
                if not run.jobs:
                    self._forget(run)
                    if run.task is not None:
                        run.task.cancel()
        return changed

    def place(self, job: Job) -> tuple[int, float] | None:
        """How many distinct generations come before `job`, and the estimated seconds left; None once it has ended."""
        for run in self._active:
            if run.serves(job):
                return 0, max(run.expected, self.queued_seconds(self._active) / self.workers)
        seconds = self.queued_seconds(self._active)
        for ahead, run in enumerate(self._waiting):
            seconds += run.expected
            if run.serves(job):
                return ahead + 1, seconds / self.workers
        return None

    def queued_seconds(self, runs: set[Run] | None = None) -> float:
        """Estimated compute seconds of `runs`, or of everything that waits or runs."""
        return sum(run.expected for run in (self._runs.values() if runs is None else runs))

    @property
    def waiting(self) -> int:
        """Distinct generations that wait for their turn."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Distinct generations in the kiln."""
        return len(self._active)

    # Runs.

    def _request(self, ask: Ask, picture: bytes) -> Request:
        request, _ = self.kiln(ask.engine).request(picture, ask.parameters, ask.recipe)
        return request

    def _name(self, request: Request, refresh: bool) -> tuple[Any, ...]:
        parameters = tuple(sorted(request.parameters.items()))
        return (request.engine.name, request.source, request.namespace, parameters, refresh)

    def _expected(self, request: Request) -> float:
        """Compute seconds of the whole line by what was measured; stages that never ran count nothing."""
        stages = request.engine.stages
        return sum(self.pool.estimate(stage, stage.mattering(request.parameters)) or 0.0 for stage in stages)

    def _admit(self, expected: float, timeout: float | None) -> None:
        waiting = self.queued_seconds() / self.workers
        if waiting > self.queue_seconds:
            raise QueueFull(
                f"{waiting:.0f} s of work are waiting, more than {self.queue_seconds:.0f} s",
                waiting - self.queue_seconds,
            )
        self.pool.admit()
        if timeout is not None and waiting + expected > timeout:
            raise DeadlinePassed(
                f"the result would be ready in about {waiting + expected:.1f} s, after the deadline in {timeout:.1f} s"
            )

    def _enqueue(self, job: Job, request: Request) -> None:
        self._ended[job.id] = asyncio.Event()
        self.logs[job.id] = Log()
        self._trim_logs()
        name = self._name(request, job.ask.refresh)
        run = self._runs.get(name)
        if run is not None:
            run.jobs.append(job)
            self._tell(job, "state", {"state": QUEUED, "joined": True})
            if run in self._active:
                begun = asyncio.create_task(self._begin(job))
                self._tasks.add(begun)
                begun.add_done_callback(self._tasks.discard)
            return
        run = Run(name, request, job.ask.refresh, [job], expected=self._expected(request))
        self._runs[name] = run
        self._waiting.add(run, job.client, job.priority)
        self._tell(job, "state", {"state": QUEUED})
        self._next()
        self._tell_places()

    def _next(self) -> None:
        """Begin what waits, as far as there is room."""
        while self.accepting and len(self._active) < AT_ONCE * self.workers:
            run = self._waiting.pop()
            if run is None:
                return
            self._active.add(run)
            run.task = asyncio.create_task(self._run(run))

    async def _run(self, run: Run) -> None:
        try:
            await self._generate(run)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            if not isinstance(error, MeshkilnError):
                log.exception("a generation failed")
            if isinstance(error, PoolClosed) or (isinstance(error, Cancelled) and not self.accepting):
                return  # stopping: the jobs stay on disk as they are, and the next start goes on with them
            document = problem_of(error).document()
            for job in self._let_go(run):
                await self._end(job, FAILED, error=document)
        finally:
            self._forget(run)
            self._next()
            self._tell_places()

    async def _generate(self, run: Run) -> None:
        first = run.jobs[0]
        for job in list(run.jobs):
            await self._begin(job)
        picture = await asyncio.to_thread(self.jobs.picture, first)
        kiln = self.kilns[first.ask.engine]
        format_ = str(run.request.parameters.get("format", "glb"))
        parameters: dict[str, Any] = {name: v for name, v in run.request.parameters.items() if name != "format"}
        deadlines = [job.deadline for job in run.jobs]
        latest = None if None in deadlines else max(d for d in deadlines if d is not None)
        result = await kiln.agenerate(
            picture,
            format_,
            refresh=run.refresh,
            timeout=None if latest is None else max(0.0, latest - time.time()),
            priority=max(job.priority for job in run.jobs),
            client=first.client,
            report=self._reporter(run, asyncio.get_running_loop()),
            **parameters,
        )
        self.generated += 1
        digest = result.digest.hex()
        await asyncio.to_thread(self.jobs.pin, digest, result.data)
        told = {name: value for name, value in result.as_json().items() if name != "seconds"}
        for job in self._let_go(run):
            await self._end(job, SUCCEEDED, result=told)

    def _reporter(self, run: Run, loop: asyncio.AbstractEventLoop) -> Callable[[str, int, int], None]:
        def tell(stage: str, step: int, steps: int) -> None:
            kind, data = (
                ("step", {"stage": stage, "step": step, "steps": steps}) if step else ("stage", {"stage": stage})
            )
            for job in run.jobs:
                self._tell(job, kind, data)

        def report(stage: str, step: int, steps: int) -> None:
            # Comes from the thread that computes.
            loop.call_soon_threadsafe(tell, stage, step, steps)

        return report

    def _let_go(self, run: Run) -> list[Job]:
        """The jobs of a run that is over; whoever asks the same from now on gets a run of his own."""
        if self._runs.get(run.name) is run:
            del self._runs[run.name]
        return list(run.jobs)

    def _forget(self, run: Run) -> None:
        self._let_go(run)
        self._active.discard(run)
        self._waiting.remove(run)

    async def _begin(self, job: Job) -> None:
        self._tell(job, "state", {"state": RUNNING})
        await asyncio.to_thread(self.jobs.update, job, state=RUNNING, started=time.time())

    async def _end(self, job: Job, state: str, **changes: Any) -> Job:
        changed = await asyncio.to_thread(self.jobs.update, job, state=state, finished=time.time(), **changes)
        self._tell(changed, "state", _told_end(changed), end=True)
        ended = self._ended.pop(job.id, None)
        if ended is not None:
            ended.set()
        return changed

    # Events.

    def follow(self, job: Job, after: int) -> AsyncIterator[bytes]:
        """The events of `job` numbered above `after`, as server-sent text, up to its end."""
        found = self.logs.get(job.id)
        if found is None:
            # It ended before this server started, or long ago: its end is all there is to tell.
            found = Log()
            found.add("state", _told_end(job), end=True)
        return found.follow(after)

    def _tell(self, job: Job, kind: str, data: dict[str, Any], end: bool = False) -> None:
        found = self.logs.get(job.id)
        if found is not None:
            found.add(kind, data, end)

    def _tell_places(self) -> None:
        for ahead, run in enumerate(itertools.islice(self._waiting, 100)):
            for job in run.jobs:
                self._tell(job, "queue", {"position": ahead + 1})

    def _trim_logs(self) -> None:
        """Events of the last thousand ended generations are kept, and of all that have not ended."""
        while len(self.logs) > 1000:
            oldest = next(iter(self.logs))
            if not self.logs[oldest].ended:
                self.logs.move_to_end(oldest)
                return
            del self.logs[oldest]


def _told_end(job: Job) -> dict[str, Any]:
    told: dict[str, Any] = {"state": job.state}
    if job.error is not None:
        told["error"] = dict(job.error)
    if job.result is not None:
        told["key"] = job.result["key"]
    return told
