"""Deleting a mesh for everybody: in all its formats, with their pictures, from the store and from what jobs keep.

What it was made of stays: asked for again, it is made again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from meshkiln.errors import BadParameter
from meshkiln.gateway import previews
from meshkiln.gateway.gallery import besides_files, mesh_of, meshes
from meshkiln.gateway.gateway import Gateway
from meshkiln.gateway.job import SUCCEEDED, Job
from meshkiln.gateway.problems import not_found
from meshkiln.gateway.results import KEY
from meshkiln.gateway.service import Service
from meshkiln.keys import Key
from meshkiln.kiln import Kiln


def delete(service: Service, key: Key) -> set[Key]:
    """Delete what is kept under `key` and, when that is a mesh, its other formats; the keys of all that went.

    Raises StoreError when the disk does not take it. Blocks.
    """
    store, kilns = service.store, service.kilns
    stored = {entry.key: mesh_of(kilns, entry) for entry in meshes(store, kilns)}
    found = {key} | _keys(_jobs(service, {key}))
    shapes = {stored[one] for one in found if one in stored}
    found |= {one for one, shape in stored.items() if shape in shapes}
    jobs = _jobs(service, found)
    gone = _keys(jobs) | {one for one in found if one in store}
    # The jobs first: as long as one is not told, it would give what the store has not.
    service.jobs.delete_results(jobs)
    store.delete_many(gone.union(*(previews.keys(kilns, one) for one in gone)))
    return gone


def _jobs(service: Service, keys: Iterable[Key]) -> list[Job]:
    """Jobs whose result has one of those keys, and those that asked for the same mesh as another file."""
    found: dict[str, Job] = {}
    for key in keys:
        near = [job for job in service.jobs.of_pictures(key.hex()) if job.state == SUCCEEDED and not job.deleted]
        own = [job for job in near if job.result is not None and job.result["key"] == key.hex()]
        asked = {_asked(service.kilns, job) for job in own}
        found |= {job.id: job for job in near if job in own or _asked(service.kilns, job) in asked}
    return list(found.values())


def _keys(jobs: Iterable[Job]) -> set[Key]:
    return {Key(bytes.fromhex(job.result["key"])) for job in jobs if job.result is not None}


def _asked(kilns: Mapping[str, Kiln], job: Job) -> str:
    """What jobs of one picture have in common that asked for files of one mesh."""
    kiln, ask = kilns.get(job.ask.engine), job.ask
    if kiln is None:
        return job.id
    try:
        parameters = kiln.engine.over_recipe(ask.recipe, ask.parameters)
    except BadParameter:
        return job.id  # of an engine that has changed since
    return json.dumps([ask.engine, besides_files(kiln, parameters)])


def add_routes(app: FastAPI, gateway: Gateway) -> None:
    """Serve `DELETE /v1/artifacts/{key}`."""

    @app.delete(
        "/v1/artifacts/{key}",
        tags=["artifacts"],
        summary="Delete a mesh, for everybody",
        description=(
            "In all its formats, with their pictures, from the store and from what jobs keep: their results are then "
            "gone (410). What it was made of stays; asked for again, it is made again."
        ),
    )
    async def delete_(key: str) -> Response:
        gone = await asyncio.to_thread(delete, gateway.service, Key(bytes.fromhex(key))) if KEY.match(key) else set()
        if not gone:
            raise not_found(f"nothing is kept under {key}")
        return JSONResponse({"deleted": sorted(one.hex() for one in gone)})
