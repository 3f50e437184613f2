"""The routes. What they do is in `service`; what they say is in `represent`, `problems` and `artifacts`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from meshkiln import __version__
from meshkiln.engines.base import Engine, read_texts
from meshkiln.errors import BadParameter, MeshkilnError
from meshkiln.gateway import openapi
from meshkiln.gateway.artifacts import answer
from meshkiln.gateway.bodies import Posted, posted
from meshkiln.gateway.jobs import STATES, Ask, Job
from meshkiln.gateway.metrics import MEDIA_TYPE as METRICS_TYPE
from meshkiln.gateway.metrics import Metrics
from meshkiln.gateway.problems import MEDIA_TYPE, Problem, not_found, problem_of
from meshkiln.gateway.represent import STORED, of_job, of_stored
from meshkiln.gateway.service import Service
from meshkiln.keys import Key
from meshkiln.result import Result, result_of_artifact
from meshkiln.settings import Settings
from meshkiln.store.base import Artifact

log = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_KEY = re.compile(r"^[0-9a-f]{64}$")


class Gateway:
    """What the routes share. seen : called for each stored answer, so that the hot path can give it next time"""

    def __init__(self, settings: Settings, service: Service, metrics: Metrics) -> None:
        self.settings = settings
        self.service = service
        self.metrics = metrics
        self.store = service.store
        self.seen: Callable[[Request, bytes, Result], None] = lambda request, picture, result: None
        self._uploads = asyncio.Semaphore(settings.pictures_at_once)

    # POST /v1/generations

    async def generate(self, request: Request) -> Response:
        started = time.perf_counter()
        if self._uploads.locked():
            detail = f"{self.settings.pictures_at_once} are being received"
            raise Problem(503, "busy", "Too many uploads at once", detail, {"Retry-After": "1"})
        async with self._uploads:
            given = await posted(request, self.settings.body_bytes)
        ask = self.ask(given, refresh="no-cache" in request.headers.get("cache-control", ""))
        wait = self._wait(request, given)
        result = None if ask.refresh else await asyncio.to_thread(self.service.stored, ask, given.picture)
        if result is not None:
            self._count_stored(result, time.perf_counter() - started)
            self.seen(request, given.picture, result)
            return JSONResponse(of_stored(result))
        job = await self.service.submit(
            ask,
            given.picture,
            client=client_of(request),
            priority=int(_number(given.call.get("priority", "0"), "priority", -100, 100)),
            timeout=_optional(given.call.get("timeout"), "timeout", 0, 86400),
            idempotency=request.headers.get("idempotency-key"),
        )
        if wait > 0 and not job.done:
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

    def _count_stored(self, result: Result, seconds: float) -> None:
        last = result.stages[-1]
        self.service.answered_stored += 1
        self.metrics.answers.labels(str(last.source)).inc()
        self.metrics.hits.labels(str(last.source), last.stage).inc()
        self.metrics.saved.inc(result.saved)
        self.metrics.stored_seconds.observe(seconds)

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
        return of_stored(result_of_artifact(Key(bytes.fromhex(id.removeprefix(STORED))), artifact))

    async def artifact(self, key: str) -> Artifact:
        """The artifact of that key: stored, pinned, or made again from its job. Raises Problem 404 or 410."""
        if not _KEY.match(key):
            raise not_found("a key is 64 hexadecimal digits")
        found = self.store.get(Key(bytes.fromhex(key))) or await asyncio.to_thread(self._pinned, key)
        if found is not None:
            return found
        job = await asyncio.to_thread(self.service.jobs.of_key, key)
        if job is None:
            raise not_found(f"nothing is stored under {key}; post the picture again")
        return await self.made_again(job)

    def _pinned(self, key: str) -> Artifact | None:
        found = self.store.get(Key(bytes.fromhex(key)))
        job = None if found is not None else self.service.jobs.of_key(key)
        if job is None or job.result is None:
            return found
        data = self.service.jobs.pinned(job.result["digest"])
        return None if data is None else Artifact.of(data, job.result["cost_seconds"], job.result["media_type"])

    async def made_again(self, job: Job, format_: str | None = None) -> Artifact:
        """What `job` asked for, or the same in another format: only what is missing runs. Raises Problem 410."""
        kiln = self.service.kiln(job.ask.engine)
        parameters: dict[str, Any] = dict(job.ask.parameters)
        asked = format_ or str(parameters.pop("format", "glb"))
        parameters.pop("format", None)
        if asked not in kiln.engine.formats:
            raise not_found(f"engine {kiln.engine.name} makes {', '.join(kiln.engine.formats)}, not {asked}")
        try:
            picture = await asyncio.to_thread(self.service.jobs.picture, job)
        except MeshkilnError:
            detail = "its retention time is over; post the picture again"
            raise Problem(410, "gone", "This result is not kept any more", detail) from None
        result = await kiln.agenerate(picture, asked, recipe=job.ask.recipe, client=job.client, **parameters)
        return Artifact(result.data, result.digest, result.cost, result.media_type)


def make_app(gateway: Gateway, lifespan: Lifespan | None = None) -> FastAPI:
    """The web application. Its OpenAPI description is at /openapi.json, readable at /docs."""
    app = FastAPI(
        title="Meshkiln",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses={"4XX": openapi.PROBLEM, "5XX": openapi.PROBLEM},
    )
    service, settings = gateway.service, gateway.settings

    @app.middleware("http")
    async def counted(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        route = request.scope.get("route")
        gateway.metrics.requests.labels(getattr(route, "path", "none"), str(response.status_code)).inc()
        return response

    @app.exception_handler(Problem)
    @app.exception_handler(MeshkilnError)
    async def told(request: Request, error: Exception) -> Response:
        return _problem(problem_of(error))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        kinds = {
            404: ("not-found", "There is no such thing"),
            405: ("method-not-allowed", "Not served by this method"),
        }
        kind, title = kinds.get(error.status_code, ("http", str(error.detail)))
        return _problem(Problem(error.status_code, kind, title, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return _problem(Problem(422, "bad-parameter", "A parameter is unknown or out of range", told))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.exception("a request failed", exc_info=error)
        return _problem(problem_of(error))

    @app.post("/v1/generations", tags=["generations"], **openapi.generate(service.kilns, settings))
    async def generate(request: Request) -> Response:
        return await gateway.generate(request)

    @app.get("/v1/generations", tags=["generations"], summary="Jobs, newest first")
    async def listing(
        limit: int = Query(20, ge=1, le=200),
        cursor: str | None = Query(None, max_length=64, description="`next` of the page before"),
        state: str | None = Query(None, pattern=f"^({'|'.join(STATES)})$"),
    ) -> Response:
        jobs = await asyncio.to_thread(service.jobs.newest, limit, cursor, state)
        following = jobs[-1].id if len(jobs) == limit else None
        return JSONResponse({"generations": [gateway.document(job) for job in jobs], "next": following})

    @app.get("/v1/generations/{id}", tags=["generations"], summary="What became of a generation")
    async def read(id: str) -> Response:
        if id.startswith(STORED):
            return JSONResponse(await gateway.stored_document(id))
        return JSONResponse(gateway.document(await gateway.job(id)))

    @app.delete("/v1/generations/{id}", tags=["generations"], summary="Cancel, unless it has ended")
    async def cancel(id: str) -> Response:
        job = await gateway.job(id)
        return JSONResponse(gateway.document(job if job.done else await service.cancel(job)))

    @app.get("/v1/generations/{id}/events", tags=["generations"], **openapi.EVENTS)
    async def events(id: str, request: Request) -> Response:
        job = await gateway.job(id)
        last = request.headers.get("last-event-id", "0")
        stream = service.follow(job, int(last) if last.isdigit() and len(last) < 10 else 0)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get("/v1/generations/{id}/artifacts/{format}", tags=["generations"], **openapi.ARTIFACT)
    async def converted(id: str, format: str, request: Request) -> Response:
        job = await gateway.job(id)
        if job.state != "succeeded":
            raise Problem(409, "not-ready", "The generation has no result", f"it is {job.state}")
        return _artifact(request, f"mesh-{job.id}", await gateway.made_again(job, format))

    @app.get("/v1/artifacts/{key}", tags=["artifacts"], **openapi.ARTIFACT)
    @app.head("/v1/artifacts/{key}", tags=["artifacts"], include_in_schema=False)
    async def artifact(key: str, request: Request) -> Response:
        return _artifact(request, f"mesh-{key[:12]}", await gateway.artifact(key))

    @app.get("/v1/engines", tags=["engines"], summary="Engines, their parameters and recipes")
    async def engines() -> Response:
        return JSONResponse([_engine(kiln.engine) for kiln in service.kilns.values()])

    @app.get("/v1/cache", tags=["cache"], summary="Statistics of the store")
    async def cache() -> Response:
        return JSONResponse(_json(asdict(await asyncio.to_thread(gateway.store.stats))))

    @app.delete("/v1/cache/{key}", tags=["cache"], summary="Forget an artifact", status_code=204)
    async def forget(key: str) -> Response:
        if not _KEY.match(key):
            raise not_found("a key is 64 hexadecimal digits")
        try:
            await asyncio.to_thread(gateway.store.__delitem__, Key(bytes.fromhex(key)))
        except KeyError:
            raise not_found(f"nothing is stored under {key}") from None
        return Response(status_code=204)

    @app.get("/healthz", tags=["health"], summary="Whether the server answers")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["health"], summary="Whether the workers are ready")
    async def readyz() -> Response:
        ready = service.accepting and await asyncio.to_thread(service.pool.wait_ready)
        if not ready:
            raise Problem(503, "not-ready", "Not ready", "workers are starting", {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(gateway.metrics.exposition), media_type=METRICS_TYPE)

    return app


def client_of(request: Request) -> str:
    """Who asks, for fairness: the address, until callers have names."""
    return request.client.host if request.client else ""


def _problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, dict(problem.headers), MEDIA_TYPE)


def _artifact(request: Request, name: str, artifact: Artifact) -> Response:
    found = answer(request.method, {n.lower(): v for n, v in request.headers.raw}, name, artifact)
    response = Response(bytes(found.body), found.status)
    response.raw_headers = list(found.headers)
    return response


def _engine(engine: Engine) -> dict[str, Any]:
    return {
        "name": engine.name,
        "help": engine.help,
        "stages": [stage.name for stage in engine.stages],
        "formats": dict(engine.formats),
        "recipes": {name: dict(parameters) for name, parameters in engine.recipes.items()},
        "parameters": [
            {"name": p.name, "default": p.default, "allowed": p.allowed(), "help": p.help} for p in engine.parameters
        ],
    }


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))


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
