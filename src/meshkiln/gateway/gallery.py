"""What the store holds of finished meshes, newest first."""

from __future__ import annotations

import asyncio
import heapq
import math
import sys
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse

from meshkiln.engines.picture import CUTOUT
from meshkiln.gateway import previews
from meshkiln.gateway.gateway import Gateway
from meshkiln.gateway.purge import disk_of, entries
from meshkiln.gateway.represent import STORED
from meshkiln.kiln import Kiln
from meshkiln.store.base import Store
from meshkiln.store.rows import Entry


def newest(store: Store, kilns: Mapping[str, Kiln], limit: int, before: float) -> list[dict[str, Any]]:
    """At most `limit` meshes stored before that time (seconds since the epoch). Blocks."""
    return [_document(entry) for entry in meshes(store, kilns, limit, before)]


def meshes(store: Store, kilns: Mapping[str, Kiln], limit: int = sys.maxsize, before: float = math.inf) -> list[Entry]:
    """`newest`, as the store has them."""
    makers = [kiln.engine for name, kiln in kilns.items() if name != CUTOUT.name]
    last = {(engine.name, engine.stages[-1].name) for engine in makers}

    def is_mesh(entry: Entry) -> bool:
        return entry.created < before and (entry.provenance.get("engine"), entry.provenance.get("stage")) in last

    disk = disk_of(store)
    if disk is not None:
        types = {kind for engine in makers for kind in (*engine.formats.values(), engine.stages[-1].media_type)}
        return disk.newest(types, limit, before, is_mesh)
    return heapq.nlargest(limit, filter(is_mesh, entries(store)), key=lambda entry: entry.created)


def _document(entry: Entry) -> dict[str, Any]:
    key, told = entry.key.hex(), entry.provenance
    costs = told.get("costs")
    return {
        "key": key,
        "media_type": entry.media_type,
        "bytes": entry.size,
        "created": entry.created,
        "engine": told.get("engine"),
        "parameters": told.get("parameters"),
        "source": told.get("source"),
        "cost_seconds": sum(costs.values()) if isinstance(costs, dict) else entry.cost,
        "links": {
            "self": f"/v1/artifacts/{key}",
            "generation": f"/v1/generations/{STORED}{key}",
            "preview": previews.link(key),
        },
    }


def add_routes(app: FastAPI, gateway: Gateway) -> None:
    """Serve `/v1/artifacts`."""

    @app.get("/v1/artifacts", tags=["artifacts"], summary="Meshes in the store, newest first")
    async def listing(
        limit: int = Query(24, ge=1, le=200),
        before: float | None = Query(None, ge=0, le=1e12, description="`next` of the page before"),
    ) -> Response:
        until = math.inf if before is None else before
        found = await asyncio.to_thread(newest, gateway.store, gateway.service.kilns, limit, until)
        return JSONResponse({"artifacts": found, "next": found[-1]["created"] if len(found) == limit else None})
