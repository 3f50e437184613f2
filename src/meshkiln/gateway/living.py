"""The living: jobs that have not ended. Who waits for one, when its time is up, what is told of it, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from meshkiln.errors import PoolClosed
from meshkiln.gateway.events import Logs
from meshkiln.gateway.job import RUNNING, Job
from meshkiln.gateway.jobs import Jobs
from meshkiln.gateway.represent import of_end
from meshkiln.telemetry.logs import tell


class Living:
    """Those of one server. On the event loop only; the database is written on threads.

    late : called with a job whose deadline has passed
    """

    def __init__(self, jobs: Jobs, logs: Logs, late: Callable[[Job], None]) -> None:
        self.jobs = jobs
        self.logs = logs
        self.late = late
        self._ends: dict[str, asyncio.Event] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopping = asyncio.Event()

    def __contains__(self, job: Job) -> bool:
        return job.id in self._ends

    def add(self, job: Job) -> None:
        """Let others wait for `job` and follow it; nothing when they can already."""
        self._ends.setdefault(job.id, asyncio.Event())
        self.logs.open(job.id)

    def watch(self, job: Job) -> None:
        """Have its deadline looked after, if it has one."""
        if job.deadline is not None:
            left = max(0.0, job.deadline - time.time())
            self._timers[job.id] = asyncio.get_running_loop().call_later(left, self.late, job)

    async def begun(self, job: Job) -> None:
        """It is being made."""
        self.logs.tell(job.id, "state", {"state": RUNNING})
        await asyncio.to_thread(self.jobs.update, job, state=RUNNING, started=time.time())

    async def end(self, job: Job, state: str, **changes: Any) -> tuple[Job, bool]:
        """End `job` in `state`; it as it is now, and whether this is the end that counts, which is the first."""
        finished = time.time()
        changed = await asyncio.to_thread(self.jobs.update, job, state=state, finished=finished, **changes)
        counts = (changed.state, changed.finished) == (state, finished)
        self.logs.tell(job.id, "state", of_end(changed), end=True)
        if counts:
            tell(state, generation=job.id, seconds=round(finished - job.created, 3))
        timer = self._timers.pop(job.id, None)
        if timer is not None:
            timer.cancel()
        ended = self._ends.pop(job.id, None)
        if ended is not None:
            ended.set()
        return changed, counts

    async def wait(self, job: Job, seconds: float | None = None) -> Job:
        """The job when it has ended, or as it is after `seconds`. Raises PoolClosed when the server stops meanwhile."""
        ended = self._ends.get(job.id)
        if ended is not None:
            waits = [asyncio.ensure_future(event.wait()) for event in (ended, self._stopping)]
            try:
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        found = await asyncio.to_thread(self.jobs.get, job.id) or job
        if not found.done and self._stopping.is_set():
            raise PoolClosed("the server is shutting down; the generation goes on when it is back")
        return found

    def release(self) -> None:
        """Let all go who wait for a job or follow it: the server stops."""
        self._stopping.set()
        self.logs.stop()

    def stop(self) -> None:
        """Look after no deadline any more."""
        for timer in self._timers.values():
            timer.cancel()
