"""What the store holds of finished meshes, newest first."""

from __future__ import annotations

import asyncio
import heapq
import json
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
from meshkiln.keys import digest
from meshkiln.kiln import Kiln
from meshkiln.store.base import Store
from meshkiln.store.rows import Entry


def newest(store: Store, kilns: Mapping[str, Kiln], limit: int, before: float) -> list[dict[str, Any]]:
    """At most `limit` meshes stored before that time (seconds since the epoch). Blocks."""
    return [_document(kilns, entry) for entry in meshes(store, kilns, limit, before)]


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


def mesh_of(kilns: Mapping[str, Kiln], entry: Entry) -> str:
    """What files of one mesh have in common: engine, picture, and all parameters but the file's own."""
    engine, source, parameters = (entry.provenance.get(name) for name in ("engine", "source", "parameters"))
    if not (isinstance(source, str) and isinstance(parameters, dict)):
        return entry.key.hex()  # it does not tell
    return json.dumps([engine, source, besides_files(kilns[str(engine)], parameters)])


def besides_files(kiln: Kiln, parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The parameters that are not the file's own."""
    own = kiln.engine.stages[-1].parameters
    return sorted((name, value) for name, value in parameters.items() if name not in own)


def _document(kilns: Mapping[str, Kiln], entry: Entry) -> dict[str, Any]:
    key, told = entry.key.hex(), entry.provenance
    costs = told.get("costs")
    return {
        "key": key,
        "media_type": entry.media_type,
        "bytes": entry.size,
        "created": entry.created,
        "mesh": digest(mesh_of(kilns, entry).encode()).hex(),
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
