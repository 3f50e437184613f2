"""Housekeeping: what a server does every minute beside serving."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from meshkiln.gateway.jobs import Jobs
from meshkiln.workers.processes import Pool

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between rounds."""


async def keep(jobs: Jobs, pool: Pool) -> None:
    """Let go of what jobs need no longer, and keep what kills workers, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(jobs.expire)
            await asyncio.to_thread(remember_poisoned, jobs, pool)
        except Exception:
            log.exception("the jobs' folder could not be put in order")
        await asyncio.sleep(EVERY)


def remember_poisoned(jobs: Jobs, pool: Pool) -> None:
    """Have the next server refuse what killed this one's workers. A disk that does not take it is no failure."""
    with contextlib.suppress(Exception):
        jobs.remember_poisoned(pool.poisoned())
