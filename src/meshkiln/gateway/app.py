"""The routes. What they do is in `service`; what they say is in `represent`, `problems` and `artifacts`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from meshkiln import __version__
from meshkiln.engines.base import Engine
from meshkiln.errors import MeshkilnError
from meshkiln.gateway import openapi, reference, studio
from meshkiln.gateway.artifacts import answer, fields
from meshkiln.gateway.events import at_its_end
from meshkiln.gateway.exposition import MEDIA_TYPE as METRICS_TYPE
from meshkiln.gateway.gateway import Gateway
from meshkiln.gateway.job import STATES, SUCCEEDED
from meshkiln.gateway.problems import MEDIA_TYPE, Problem, not_found, problem_of
from meshkiln.gateway.represent import STORED
from meshkiln.gateway.requests import head_as_get
from meshkiln.gateway.results import KEY
from meshkiln.keys import Key
from meshkiln.store.base import Artifact

log = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(gateway: Gateway, lifespan: Lifespan | None = None) -> FastAPI:
    """The web application. Its OpenAPI description is at /openapi.json, readable at /docs."""
    app = FastAPI(
        title="Meshkiln",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses={"4XX": openapi.PROBLEM, "5XX": openapi.PROBLEM},
    )
    service, settings = gateway.service, gateway.settings

    app.state.uploads = gateway.uploads

    def answered(request: Request, problem: Problem) -> Response:
        # A probe that is told to come back has met no error.
        if request.url.path != "/readyz":
            gateway.metrics.problem(problem.kind)
        # What is gone may be made again, and browsers keep a 410 for ever when nobody says otherwise.
        return Response(problem.body(), problem.status, {"Cache-Control": "no-store", **problem.headers}, MEDIA_TYPE)

    @app.exception_handler(Problem)
    @app.exception_handler(MeshkilnError)
    async def told(request: Request, error: Exception) -> Response:
        return answered(request, problem_of(error))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        kinds = {
            404: ("not-found", "There is no such thing"),
            405: ("method-not-allowed", "Not served by this method"),
        }
        kind, title = kinds.get(error.status_code, ("http", str(error.detail)))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The framework names the methods of the first route of that path, and there may be several.
            routes = [r for r in app.routes if isinstance(r, Route) and r.matches(request.scope)[0] != Match.NONE]
            methods = {method for route in routes for method in route.methods or ()}
            if "GET" in methods and head_as_get(request.url.path):
                methods.add("HEAD")
            headers["Allow"] = ", ".join(sorted(methods))
        return answered(request, Problem(error.status_code, kind, title, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return answered(request, Problem(422, "bad-parameter", "A parameter is unknown or out of range", told))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.exception("a request failed", exc_info=error)
        return answered(request, problem_of(error))

    @app.post("/v1/generations", tags=["generations"], **openapi.generate(service.kilns, settings))
    async def generate(request: Request) -> Response:
        return await gateway.generate(request)

    @app.get("/v1/generations", tags=["generations"], summary="Jobs, newest first")
    async def listing(
        limit: int = Query(20, ge=1, le=200),
        cursor: str | None = Query(None, pattern="^[0-9a-f]{32}$", description="`next` of the page before"),
        state: str | None = Query(None, pattern=f"^({'|'.join(STATES)})$"),
    ) -> Response:
        jobs = await asyncio.to_thread(service.jobs.newest, limit, cursor, state)
        following = jobs[-1].id if len(jobs) == limit else None
        return JSONResponse({"generations": [gateway.document(job) for job in jobs], "next": following})

    @app.get("/v1/generations/{id}", tags=["generations"], summary="What became of a generation")
    async def read(id: str) -> Response:
        return JSONResponse(await gateway.told(id))

    @app.delete("/v1/generations/{id}", tags=["generations"], summary="Cancel, unless it has ended")
    async def cancel(id: str) -> Response:
        if id.startswith(STORED):
            return JSONResponse(await gateway.stored_document(id))
        job = await gateway.job(id)
        return JSONResponse(gateway.document(job if job.done else await service.cancel(job)))

    @app.get("/v1/generations/{id}/events", tags=["generations"], **openapi.EVENTS)
    async def events(id: str, request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if id.startswith(STORED):
            ended = at_its_end({"state": SUCCEEDED, "key": (await gateway.stored_document(id))["key"]})
            return StreamingResponse(ended.follow(), media_type="text/event-stream", headers=headers)
        job = await gateway.job(id)
        last = request.headers.get("last-event-id", "0")
        stream = service.follow(job, int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @app.get("/v1/generations/{id}/artifacts/{format}", tags=["generations"], **openapi.ARTIFACT)
    async def converted(id: str, format: str, request: Request) -> Response:
        return _artifact(request, f"mesh-{id[:12]}", await gateway.results.converted(id, format))

    @app.get("/v1/artifacts/{key}", tags=["artifacts"], **openapi.ARTIFACT)
    @app.head("/v1/artifacts/{key}", tags=["artifacts"], **openapi.ARTIFACT)
    async def artifact(key: str, request: Request, format: str | None = openapi.PICTURE) -> Response:
        if format is not None:
            return _artifact(request, f"preview-{key[:12]}", await gateway.results.preview(key))
        return _artifact(request, f"mesh-{key[:12]}", await gateway.results.artifact(key))

    @app.get("/v1/engines", tags=["engines"], **openapi.ENGINES)
    async def engines() -> Response:
        return JSONResponse(
            [
                {**_engine(kiln.engine), "default": name == settings.engine, "recipe": gateway.recipe(kiln.engine)}
                for name, kiln in service.kilns.items()
            ]
        )

    @app.get("/v1/cache", tags=["cache"], summary="Statistics of the store")
    async def cache() -> Response:
        return JSONResponse(_json(asdict(await asyncio.to_thread(gateway.store.stats))))

    @app.delete("/v1/cache/{key}", tags=["cache"], summary="Forget an artifact", status_code=204)
    async def forget(key: str) -> Response:
        if not KEY.match(key):
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
        workers = (await asyncio.to_thread(service.pool.stats)).workers
        # One that is being replaced takes nobody's readiness away.
        if not (service.accepting and any(worker.pid for worker in workers)):
            raise Problem(503, "not-ready", "Not ready", "workers are starting", {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(gateway.exposition.text), media_type=METRICS_TYPE)

    studio.add(app)
    reference.add(app)
    return app


def _artifact(request: Request, name: str, artifact: Artifact) -> Response:
    found = answer(request.method, fields(request.headers.raw), name, artifact)
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
            {
                "name": p.name,
                "default": p.default,
                "allowed": p.allowed(),
                "help": p.help,
                "low": p.low,
                "high": p.high,
                "choices": list(p.choices),
            }
            for p in engine.parameters
        ],
    }


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))
