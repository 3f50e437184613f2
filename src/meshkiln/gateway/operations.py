"""Operations: how things stand and stood, and the few things that an operator does about it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from meshkiln import __version__
from meshkiln.gateway.bodies import described, short
from meshkiln.gateway.gateway import Gateway
from meshkiln.gateway.problems import Problem, not_found
from meshkiln.gateway.purge import Doomed, dearest, doomed, purge
from meshkiln.telemetry.history import History
from meshkiln.telemetry.summary import series, summary

log = logging.getLogger(__name__)


class Purge(BaseModel):
    """What is to go: everything that fits all that is given, of which there must be something."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("older_than_seconds", "engine", "key")]},
    )

    # What is not given has a value that cannot be given.
    older_than_seconds: float = Field(-1.0, ge=0, le=1e10, description="made longer ago than that")
    engine: str = Field("", min_length=1, max_length=100, description="made for that engine")
    key: str = Field("", pattern="^[0-9a-f]{8,64}$", description="whose key begins with that (hexadecimal)")
    dry_run: bool = Field(False, description="count, and let nothing go")

    @model_validator(mode="after")
    def _something(self) -> Purge:
        if not self.model_fields_set & {"older_than_seconds", "engine", "key"}:
            raise ValueError("say what is to go: older_than_seconds, engine or key")
        return self


class Intake(BaseModel):
    """Whether what is new is let in."""

    model_config = ConfigDict(extra="forbid", strict=True)

    paused: bool


class WorkerChange(BaseModel):
    """Whether a worker takes up batches."""

    model_config = ConfigDict(extra="forbid", strict=True)

    drained: bool


def add_routes(app: FastAPI, gateway: Gateway, history: History) -> None:
    """Add the routes to the application."""
    service = gateway.service

    @app.get("/v1/operations", tags=["operations"], summary="How things stand, and stood lately")
    async def operations() -> Response:
        told = _now(gateway)
        pool, live, day = await asyncio.to_thread(
            lambda: (_pool(gateway), summary(history.live()), summary(history.day()))
        )
        return JSONResponse(_plain({**told, **pool, "live": live, "day": day}))

    @app.get("/v1/operations/history", tags=["operations"], summary="The counts over time, to draw")
    async def over_time(
        span: Literal["live", "day"] = Query("live", description="the last 15 minutes, or the last day"),
    ) -> Response:
        found = await asyncio.to_thread(lambda: series(history.live() if span == "live" else history.day()))
        return JSONResponse(_plain({"span": span, **found}))

    @app.get("/v1/operations/dearest", tags=["operations"], summary="The artifacts that cost most per byte")
    async def dear(limit: int = Query(10, ge=1, le=100)) -> Response:
        return JSONResponse({"artifacts": await asyncio.to_thread(dearest, gateway.store, limit)})

    @app.post(
        "/v1/operations/purge",
        tags=["operations"],
        summary="Let stored artifacts go, by age, engine or key",
        openapi_extra=described(Purge),
    )
    async def purging(request: Request) -> Response:
        asked = await short(request, Purge)
        before = time.time() - asked.older_than_seconds if asked.older_than_seconds >= 0 else None
        wanted = Doomed(before, asked.engine or None, asked.key)
        if asked.dry_run:
            keys, size = await asyncio.to_thread(doomed, gateway.store, wanted)
            return JSONResponse({"artifacts": len(keys), "bytes": size, "dry_run": True})
        count, size = await asyncio.to_thread(purge, gateway.store, wanted)
        log.warning("an operator purged %d artifacts, %d bytes", count, size)
        return JSONResponse({"artifacts": count, "bytes": size, "dry_run": False})

    @app.post(
        "/v1/operations/intake",
        tags=["operations"],
        summary="Pause or resume the intake of new work",
        openapi_extra=described(Intake),
    )
    async def intake(request: Request) -> Response:
        asked = await short(request, Intake)
        service.pause(asked.paused)
        log.warning("an operator %s the intake", "paused" if asked.paused else "resumed")
        return JSONResponse({"paused": service.paused})

    @app.post(
        "/v1/operations/workers/{worker}",
        tags=["operations"],
        summary="Drain or resume a worker",
        openapi_extra=described(WorkerChange),
    )
    async def worker(worker: int, request: Request) -> Response:
        asked = await short(request, WorkerChange)
        if not 0 <= worker < len(service.pool.stats().workers):
            raise not_found(f"no worker has the number {worker}")
        if not await asyncio.to_thread(service.drain, worker, asked.drained):
            raise Problem(409, "last-worker", "The last worker cannot be drained", "pause the intake instead")
        log.warning("an operator %s worker %d", "drained" if asked.drained else "resumed", worker)
        return JSONResponse(_pool(gateway)["workers"][worker])


def _now(gateway: Gateway) -> dict[str, Any]:
    service, settings = gateway.service, gateway.settings
    seconds = service.runs.seconds()
    return {
        "version": __version__,
        "at": time.time(),
        "telemetry": settings.telemetry,
        "price": {"gpu_hour": settings.gpu_hour_price, "currency": settings.currency},
        "intake": {"paused": service.paused, "accepting": service.accepting},
        "queue": {
            "waiting": service.runs.waiting,
            "active": len(service.runs.active),
            "work_seconds": seconds,
            "wait_seconds": seconds / service.workers,
        },
        "engines": list(service.kilns),
    }


def _pool(gateway: Gateway) -> dict[str, Any]:
    pool = gateway.service.pool.stats()
    return {
        "workers": [
            {
                "number": number,
                "state": worker.state,
                "stage": worker.stage,
                "batches": worker.batches,
                "busy_seconds": worker.busy_seconds,
                "memory_bytes": worker.memory,
            }
            for number, worker in enumerate(pool.workers)
        ],
        "poisoned": pool.poisoned,
    }


def _plain(value: Any) -> Any:
    """`value` with numbers as short as they are meaningful: nobody reads the thirteenth digit, and it is most bytes."""
    if isinstance(value, float):
        # Moments are long numbers of which every second counts.
        return round(value, 3) if value > 1e6 else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
