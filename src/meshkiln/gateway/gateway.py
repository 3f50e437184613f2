"""What the routes share: how posted requests become answers, and what is known of a generation."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from meshkiln.engines.base import Engine, read_texts
from meshkiln.errors import BadParameter, PoolClosed
from meshkiln.gateway.bodies import Posted, posted
from meshkiln.gateway.exposition import Exposition
from meshkiln.gateway.job import SUCCEEDED, Ask, Job
from meshkiln.gateway.metrics import Metrics
from meshkiln.gateway.problems import not_found
from meshkiln.gateway.represent import STORED, of_job, of_stored
from meshkiln.gateway.results import Results
from meshkiln.gateway.service import Service
from meshkiln.gateway.uploads import Uploads
from meshkiln.keys import Key
from meshkiln.result import Result, result_of_artifact
from meshkiln.settings import Settings

IDEMPOTENCY_LENGTH = 255
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)

Seen = Callable[[Request, bytes, JSONResponse, Result], None]


class Gateway:
    """What the routes share. seen : called for each stored answer, so that the hot path can give it next time"""

    def __init__(self, settings: Settings, service: Service, metrics: Metrics) -> None:
        self.settings = settings
        self.service = service
        self.metrics = metrics
        self.exposition = Exposition(self)
        self.store = service.store
        self.results = Results(service, metrics)
        self.seen: Seen = lambda request, picture, response, result: None
        self.uploads = Uploads(settings.upload_bytes)

    # POST /v1/generations

    async def generate(self, request: Request) -> Response:
        # While the caller waits it need not be in memory.
        with self.uploads.holding() as held:
            given = await posted(request, self.settings.body_bytes, held)
            started = time.perf_counter()
            ask = self.ask(given, refresh="no-cache" in request.headers.get("cache-control", "").lower())
            wait = self._wait(request, given.call)
            self._wait(request, given.replaced)
            for call in (given.replaced, given.call):
                priority = _whole(call.get("priority", "0"), "priority", -100, 100)
                timeout = _optional(call.get("timeout"), "timeout", 0, 86400)
            idempotency = request.headers.get("idempotency-key") or None
            if idempotency is not None and len(idempotency) > IDEMPOTENCY_LENGTH:
                raise BadParameter(f"an Idempotency-Key has at most {IDEMPOTENCY_LENGTH} characters")
            result = None
            # What a stored answer says needs no job, so that none has to be the same again; a used key is looked up.
            if not ask.refresh and idempotency is None:
                result = await asyncio.to_thread(self.service.stored, ask, given.picture)
            if result is not None:
                self.metrics.stored(result, time.perf_counter() - started)
                response = JSONResponse(of_stored(result, self.service.kilns[ask.engine].engine))
                self.seen(request, given.picture, response, result)
                return response
            job = await self.service.submit(
                ask,
                given.picture,
                client=client_of(request),
                priority=priority,
                timeout=timeout,
                idempotency=idempotency,
            )
            del given  # the picture is on disk
        if wait > 0 and not job.done:
            with contextlib.suppress(PoolClosed):  # the server stops: the job was accepted, and its place is told
                job = await self.service.wait(job, wait)
        headers = {"Location": f"/v1/generations/{job.id}"}
        if _PREFER_WAIT.search(request.headers.get("prefer", "")):
            headers["Preference-Applied"] = f"wait={wait:g}"
        return JSONResponse(self.document(job), 200 if job.done else 202, headers)

    def ask(self, given: Posted, refresh: bool = False) -> Ask:
        """What was posted as a request, texts read as the engine's parameters want them. Raises UnknownEngine."""
        name = given.call.get("engine") or self.settings.engine
        engine = self.service.kiln(name).engine
        recipe = given.call.get("recipe") or self.recipe(engine)
        for parameter in engine.parameters:
            if parameter.name in given.replaced:
                parameter.canonical(parameter.from_text(given.replaced[parameter.name]))
        if "engine" in given.replaced:
            self.service.kiln(given.replaced["engine"])
        parameters = {**read_texts(engine, given.texts), **given.values}
        engine.over_recipe(recipe, parameters)
        return Ask(name, parameters, recipe, refresh)

    def recipe(self, engine: Engine) -> str | None:
        """The recipe of requests to `engine` that name none."""
        return self.settings.recipe if self.settings.recipe in engine.recipes else None

    def _wait(self, request: Request, call: Mapping[str, str]) -> float:
        """Seconds the caller wants to wait, no longer than the setting allows."""
        text = call.get("wait")
        if text is None:
            found = _PREFER_WAIT.search(request.headers.get("prefer", ""))
            text = found[1] if found else "0"
        return min(_number(text, "wait", 0, 1e6), self.settings.wait_seconds)

    # What is known of a generation.

    def document(self, job: Job) -> dict[str, Any]:
        """The job's document as of now."""
        kiln = self.service.kilns.get(job.ask.engine)
        return of_job(job, self.service.place(job), kiln.engine if kiln else None, self._converts(job))

    def _converts(self, job: Job) -> bool:
        """Whether other formats of what `job` came to can be made, for which its picture is needed."""
        return job.state == SUCCEEDED and not job.deleted and self.service.jobs.keeps_picture(job)

    async def job(self, id: str) -> Job:
        """The job of that id. Raises Problem 404."""
        job = await asyncio.to_thread(self.service.jobs.get, id)
        if job is None:
            raise not_found(f"no generation has the id {id!r}")
        return job

    async def told(self, id: str) -> dict[str, Any]:
        """The document of the generation of that id, whether a job or a stored answer. Raises Problem 404."""
        return await self.stored_document(id) if id.startswith(STORED) else self.document(await self.job(id))

    async def stored_document(self, id: str) -> dict[str, Any]:
        """The document of a stored answer. Raises Problem 404 when it is not stored any more."""
        artifact, job = await self.results.told(id.removeprefix(STORED))
        kiln = self.service.kilns.get(str(artifact.provenance.get("engine")))
        result = result_of_artifact(Key(bytes.fromhex(id.removeprefix(STORED))), artifact)
        return of_stored(result, kiln.engine if kiln else None, job is not None and self._converts(job))


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
