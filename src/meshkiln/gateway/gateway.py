"""What the routes share: how posted requests become answers, and where artifacts are found."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from meshkiln.engines.base import read_texts
from meshkiln.errors import BadParameter, MeshkilnError, PoolClosed
from meshkiln.gateway.bodies import Posted, posted
from meshkiln.gateway.job import SUCCEEDED, Ask, Job
from meshkiln.gateway.metrics import Metrics
from meshkiln.gateway.problems import Problem, not_found
from meshkiln.gateway.represent import STORED, of_job, of_stored
from meshkiln.gateway.service import Service
from meshkiln.gateway.uploads import Uploads
from meshkiln.keys import Key
from meshkiln.result import Result, result_of_artifact
from meshkiln.settings import Settings
from meshkiln.store.base import Artifact

KEY = re.compile(r"^[0-9a-f]{64}$")

Seen = Callable[[Request, bytes, JSONResponse, Result], None]


class Gateway:
    """What the routes share. seen : called for each stored answer, so that the hot path can give it next time"""

    def __init__(self, settings: Settings, service: Service, metrics: Metrics) -> None:
        self.settings = settings
        self.service = service
        self.metrics = metrics
        self.store = service.store
        self.seen: Seen = lambda request, picture, response, result: None
        self.uploads = Uploads(settings.upload_bytes)

    # POST /v1/generations

    async def generate(self, request: Request) -> Response:
        given = await posted(request, self.settings.body_bytes)
        started = time.perf_counter()
        ask = self.ask(given, refresh="no-cache" in request.headers.get("cache-control", ""))
        wait = self._wait(request, given)
        priority = _whole(given.call.get("priority", "0"), "priority", -100, 100)
        timeout = _optional(given.call.get("timeout"), "timeout", 0, 86400)
        idempotency = request.headers.get("idempotency-key")
        result = None
        # What a stored answer says needs no job, so that none has to be the same again; a used key is looked up.
        if not ask.refresh and idempotency is None:
            result = await asyncio.to_thread(self.service.stored, ask, given.picture)
        if result is not None:
            self.metrics.stored(result, time.perf_counter() - started)
            response = JSONResponse(of_stored(result, self.service.kilns[ask.engine].engine.formats))
            self.seen(request, given.picture, response, result)
            return response
        job = await self.service.submit(
            ask, given.picture, client=client_of(request), priority=priority, timeout=timeout, idempotency=idempotency
        )
        del given  # the picture is on disk; while the caller waits it need not be in memory
        if wait > 0 and not job.done:
            with contextlib.suppress(PoolClosed):  # the server stops: the job was accepted, and its place is told
                job = await self.service.wait(job, wait)
        headers = {"Location": f"/v1/generations/{job.id}"}
        if "wait" in request.headers.get("prefer", ""):
            headers["Preference-Applied"] = f"wait={wait:g}"
        return JSONResponse(self.document(job), 200 if job.done else 202, headers)

    def ask(self, given: Posted, refresh: bool = False) -> Ask:
        """What was posted as a request, texts read as the engine's parameters want them. Raises UnknownEngine."""
        name = given.call.get("engine") or self.settings.engine
        engine = self.service.kiln(name).engine
        recipe = given.call.get("recipe") or (self.settings.recipe if self.settings.recipe in engine.recipes else None)
        parameters = {**read_texts(engine, given.texts), **given.values}
        engine.canonical(parameters)
        return Ask(name, parameters, recipe, refresh)

    def _wait(self, request: Request, given: Posted) -> float:
        """Seconds the caller wants to wait, no longer than the setting allows."""
        text = given.call.get("wait")
        if text is None:
            found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", request.headers.get("prefer", ""))
            text = found[1] if found else "0"
        return min(_number(text, "wait", 0, 1e6), self.settings.wait_seconds)

    # What is known of a generation.

    def document(self, job: Job) -> dict[str, Any]:
        """The job's document as of now."""
        kiln = self.service.kilns.get(job.ask.engine)
        return of_job(job, self.service.place(job), kiln.engine.formats if kiln else {})

    async def job(self, id: str) -> Job:
        """The job of that id. Raises Problem 404."""
        job = await asyncio.to_thread(self.service.jobs.get, id)
        if job is None:
            raise not_found(f"no generation has the id {id!r}")
        return job

    async def stored_document(self, id: str) -> dict[str, Any]:
        """The document of a stored answer. Raises Problem 404 when it is not stored any more."""
        artifact = await self.artifact(id.removeprefix(STORED))
        kiln = self.service.kilns.get(str(artifact.provenance.get("engine")))
        result = result_of_artifact(Key(bytes.fromhex(id.removeprefix(STORED))), artifact)
        return of_stored(result, kiln.engine.formats if kiln else ())

    async def artifact(self, key: str) -> Artifact:
        """The artifact of that key: stored, pinned, or made again from its job. Raises Problem 404 or 410."""
        if not KEY.match(key):
            raise not_found("a key is 64 hexadecimal digits")
        found, job = await asyncio.to_thread(self._found, key)
        if found is not None:
            return found
        if job is None:
            raise not_found(f"nothing is stored under {key}; post the picture again")
        return await self.made_again(job)

    def _found(self, key: str) -> tuple[Artifact | None, Job | None]:
        found = self.store.get(Key(bytes.fromhex(key)))
        job = None if found is not None else self.service.jobs.of_key(key)
        if job is None or job.result is None:
            return found, job
        data = self.service.jobs.pinned(job.result["digest"])
        if data is None:
            return None, job
        return Artifact.of(data, job.result["cost_seconds"], job.result["media_type"]), job

    async def converted(self, id: str, format_: str) -> Artifact:
        """A generation's result in `format_`. Raises Problem 404, 409 or 410."""
        if id.startswith(STORED):
            key = id.removeprefix(STORED)
            job = await asyncio.to_thread(self.service.jobs.of_key, key)
            if job is None:
                if not KEY.match(key) or Key(bytes.fromhex(key)) not in self.store:
                    raise not_found(f"no generation has the id {id!r}")
                detail = f"its picture is not kept; post it again with format={format_}"
                raise Problem(410, "gone", "This result is not kept any more", detail)
        else:
            job = await self.job(id)
        if job.state != SUCCEEDED:
            raise Problem(409, "not-ready", "The generation has no result", f"it is {job.state}")
        return await self.made_again(job, format_)

    async def made_again(self, job: Job, format_: str | None = None) -> Artifact:
        """What `job` asked for, or the same in another format: only what is missing runs. Raises Problem 410."""
        engine = self.service.kiln(job.ask.engine).engine
        asked = format_ or str(job.ask.parameters.get("format", "glb"))
        if asked not in engine.formats:
            raise not_found(f"engine {engine.name} makes {', '.join(engine.formats)}, not {asked}")
        try:
            picture = await asyncio.to_thread(self.service.jobs.picture, job)
        except MeshkilnError:
            detail = "its retention time is over; post the picture again"
            raise Problem(410, "gone", "This result is not kept any more", detail) from None
        result = await self.service.converted(job, asked, picture)
        return Artifact(result.data, result.digest, result.cost, result.media_type)


def client_of(request: Request) -> str:
    """Who asks, for fairness: the address, until callers have names."""
    return request.client.host if request.client else ""


def _number(text: str, name: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadParameter(f"{name}={text!r} is not a number from {low:g} to {high:g}")
    return value


def _optional(text: str | None, name: str, low: float, high: float) -> float | None:
    return None if text is None else _number(text, name, low, high)


def _whole(text: str, name: str, low: int, high: int) -> int:
    value = _number(text, name, low, high)
    if value != int(value):
        raise BadParameter(f"{name}={text!r} is not a whole number from {low} to {high}")
    return int(value)
