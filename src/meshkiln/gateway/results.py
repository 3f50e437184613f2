"""Results: the bytes of what was made before, from wherever they still are.

stored ─ no ─ pinned ─ no ─ made again from the job's picture ─ no ─ 410, or 404 for what nobody knows
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from meshkiln.errors import MeshkilnError, QueueFull
from meshkiln.gateway import previews
from meshkiln.gateway.job import SUCCEEDED, Job
from meshkiln.gateway.metrics import CONVERSION, PREVIEW, Metrics, outcome_of
from meshkiln.gateway.problems import Problem, not_found
from meshkiln.gateway.represent import STORED
from meshkiln.gateway.service import AT_ONCE, Service
from meshkiln.keys import Key
from meshkiln.result import Result
from meshkiln.store.base import Artifact, Json

KEY = re.compile(r"[0-9a-f]{64}\Z")


class Results:
    """Results of a service's generations.

    What has to run is bounded: beyond that, QueueFull. Nothing runs that intake would not take: Paused, PoolClosed.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service = service
        self.metrics = metrics
        self.store = service.store
        self._room = asyncio.Semaphore(AT_ONCE * service.workers)

    async def artifact(self, key: str) -> Artifact:
        """The artifact of that key: stored, pinned, or made again from its job. Raises Problem 404 or 410."""
        if not KEY.match(key):
            raise not_found("a key is 64 hexadecimal digits")
        found, job = await asyncio.to_thread(self._found, key)
        if found is not None:
            return found
        if job is None or job.result is None:
            raise not_found(f"nothing is stored under {key}; send the picture again")
        return await self._made_again(job)

    async def preview(self, key: str) -> Artifact:
        """The picture of the artifact of that key. Raises Problem 404, QueueFull, Paused."""
        made = None
        if KEY.match(key):
            kilns, name = self.service.kilns, Key(bytes.fromhex(key))
            if found := await asyncio.to_thread(previews.stored, kilns, name):
                picture, tier = found
                self.metrics.found(tier, PREVIEW)
                return picture
            async with self._running():
                made = await previews.made(kilns, self.service.pool.run, name)
        if made is None:
            raise not_found(f"there is no picture of {key}: nothing is stored there, or nothing that can be shown")
        picture, seconds = made
        if seconds is not None:
            self.metrics.computed(PREVIEW, seconds)
        return picture

    def _found(self, key: str) -> tuple[Artifact | None, Job | None]:
        found = self.store.get(Key(bytes.fromhex(key)))
        job = None if found is not None else self.service.jobs.of_key(key)
        if job is None or job.result is None:
            return found, job
        return self._pinned(job), job

    def _kept(self, job: Job) -> Artifact | None:
        """The job's very result."""
        pinned = self._pinned(job)
        return pinned or (None if job.result is None else self.store.get(Key(bytes.fromhex(job.result["key"]))))

    def _pinned(self, job: Job) -> Artifact | None:
        if job.result is None or job.deleted:
            return None
        data = self.service.jobs.pinned(job.result["digest"])
        if data is None:
            return None
        return Artifact.of(data, job.result["cost_seconds"], job.result["media_type"])

    async def told(self, key: str) -> tuple[Artifact, Job | None]:
        """`artifact`, telling what it was made with as far as that is known anywhere; the newest job it is of."""
        artifact = await self.artifact(key)
        job = await asyncio.to_thread(self._job, STORED + key)
        if job is None:
            return artifact, None
        known, told = self._provenance(job), artifact.provenance
        if "engine" not in told:
            return replace(artifact, provenance=known), job
        # What does not matter to this file may matter to the others that the job is asked for: their size.
        asked, mattered = known["parameters"], told.get("parameters")
        if isinstance(asked, dict) and isinstance(mattered, dict):
            told = {**told, "parameters": {**asked, **mattered}}
        return replace(artifact, provenance=told), job

    def _provenance(self, job: Job) -> dict[str, Json]:
        """What is known from a job of the artifact it came to."""
        kiln = self.service.kilns.get(job.ask.engine)
        setting = kiln.engine.recipes.get(job.ask.recipe or "", {}) if kiln else {}
        assert job.result is not None
        stages = job.result["stages"]
        last = str(stages[-1]["stage"]) if stages else "export"
        return {
            "engine": job.ask.engine,
            "stage": last,
            "made": job.finished,
            "costs": {last: job.result["cost_seconds"]},
            "parameters": {**setting, **job.ask.parameters},
        }

    async def converted(self, id: str, format_: str) -> Artifact:
        """A generation's result in `format_`. Raises Problem 404, 409 or 410."""
        job = await asyncio.to_thread(self._job, id)
        if job is None:
            key = id.removeprefix(STORED)
            found = None
            if key != id and KEY.match(key):
                found = await asyncio.to_thread(self.store.get, Key(bytes.fromhex(key)))
            if found is None:
                raise not_found(f"no generation has the id {id!r}")
            if any(kiln.engine.formats.get(format_) == found.media_type for kiln in self.service.kilns.values()):
                return found
            detail = f"its picture is not kept; send it again to have it as {format_}"
            raise Problem(410, "gone", "This result is not kept any more", detail)
        if job.state != SUCCEEDED:
            raise Problem(409, "not-ready", "The generation has no result", f"it is {job.state}")
        return await self._made_again(job, format_)

    def _job(self, id: str) -> Job | None:
        jobs = self.service.jobs
        if not id.startswith(STORED):
            return jobs.get(id)
        job = jobs.of_key(id.removeprefix(STORED))
        return None if job is None or job.result is None else job  # found by its key, but damaged

    async def _made_again(self, job: Job, format_: str | None = None) -> Artifact:
        """What `job` asked for, or the same in another format: only what is missing runs. Raises Problem 410."""
        kiln = self.service.kiln(job.ask.engine)
        own = str(job.ask.parameters.get("format", "glb"))
        asked = format_ or own
        if asked not in kiln.engine.formats:
            raise not_found(f"engine {kiln.engine.name} makes {', '.join(kiln.engine.formats)}, not {asked}")
        if asked == own and (kept := await asyncio.to_thread(self._kept, job)) is not None:
            return kept
        if job.deleted:
            detail = "it was deleted; send the picture again"
            raise Problem(410, "gone", "This result is not kept any more", detail)
        try:
            picture = await asyncio.to_thread(self.service.jobs.picture, job)
        except MeshkilnError:
            detail = "its retention time is over; send the picture again"
            raise Problem(410, "gone", "This result is not kept any more", detail) from None
        ask = replace(job.ask, parameters={**job.ask.parameters, "format": asked}, refresh=False)
        result = await asyncio.to_thread(self.service.stored, ask, picture)
        if result is not None:
            self.metrics.found(str(result.stages[-1].source), CONVERSION)
        else:
            result = await self._computed(job, picture, asked)
        return Artifact(result.data, result.digest, result.cost, result.media_type, result.provenance)

    async def _computed(self, job: Job, picture: bytes, asked: str) -> Result:
        kiln = self.service.kiln(job.ask.engine)
        parameters: dict[str, Any] = {name: v for name, v in job.ask.parameters.items() if name != "format"}
        async with self._running():
            result = await kiln.agenerate(picture, asked, recipe=job.ask.recipe, client=job.client, **parameters)
        if outcome_of(result) == "computed":
            ran = (stage.seconds for stage in result.stages if stage.source == "computed" and not stage.joined)
            self.metrics.computed(CONVERSION, sum(ran))
        return result

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        self.service.take_in()
        if self._room.locked():
            raise QueueFull("too many results are being converted", 1.0)
        async with self._room:
            yield
