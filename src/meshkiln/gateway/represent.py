"""How generations look from outside: JSON documents of jobs and of stored answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshkiln.engines.base import Engine
from meshkiln.gateway import previews
from meshkiln.gateway.job import SUCCEEDED, Job
from meshkiln.result import Result

STORED = "k"
"""An id that begins so names a stored answer: what follows is its key. No job was made for it."""


def of_job(job: Job, place: tuple[int, float] | None, engine: Engine | None, converts: bool) -> dict[str, Any]:
    """A job's document.

    place : its position among the distinct generations that wait (0: it is being made), and estimated seconds left
    engine : the one it asks for, unless that is not served any more
    converts : whether its result can be had in other formats than its own
    """
    document: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "engine": job.ask.engine,
        "recipe": job.ask.recipe,
        "parameters": dict(job.ask.parameters),
        "priority": job.priority,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "position": None if place is None else place[0],
        "estimated_seconds": None if place is None else round(place[1], 3),
        "error": None if job.error is None else dict(job.error),
        "links": {"self": f"/v1/generations/{job.id}", "events": f"/v1/generations/{job.id}/events"},
    }
    if job.state == SUCCEEDED and job.result is not None:
        document |= _told(job.result)
        document["links"]["artifact"] = f"/v1/artifacts/{job.result['key']}"
        document["links"] |= _links(job.id, job.result, engine, converts)
    return document


def of_stored(result: Result, engine: Engine | None, converts: bool = True) -> dict[str, Any]:
    """The document of an answer that was stored whole.

    engine : the one that made it, unless not served any more
    converts : whether it can be had in other formats than its own
    """
    key = result.key.hex()
    told = result.as_json()
    parameters = result.provenance.get("parameters")
    return {
        "id": f"{STORED}{key}",
        "state": SUCCEEDED,
        "engine": result.provenance.get("engine"),
        "recipe": None,
        "parameters": parameters if isinstance(parameters, dict) else {},
        "priority": 0,
        "created": result.provenance.get("made"),
        "started": None,
        "finished": result.provenance.get("made"),
        "position": None,
        "estimated_seconds": None,
        "error": None,
        **_told(told),
        "links": {
            "self": f"/v1/generations/{STORED}{key}",
            "events": f"/v1/generations/{STORED}{key}/events",
            "artifact": f"/v1/artifacts/{key}",
            **_links(f"{STORED}{key}", told, engine, converts),
        },
    }


def _links(id: str, result: Mapping[str, Any], engine: Engine | None, converts: bool) -> dict[str, Any]:
    """Where the formats are that can be had, and pictures of what stages made."""
    keys = {stage["stage"]: stage["key"] for stage in result["stages"] if stage["key"] is not None}
    kinds = engine.formats.items() if engine else ()
    formats = [name for name, kind in kinds if converts or kind == result["media_type"]]
    shown = [stage.name for stage in engine.stages if stage.preview and stage.name in keys] if engine else []
    return {
        "formats": {name: f"/v1/generations/{id}/artifacts/{name}" for name in formats},
        "previews": {name: previews.link(keys[name]) for name in shown},
    }


def of_end(job: Job) -> dict[str, Any]:
    """What the last event of a job that has ended says."""
    told: dict[str, Any] = {"state": job.state}
    if job.error is not None:
        told["error"] = dict(job.error)
    if job.result is not None:
        told["key"] = job.result["key"]
    return told


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("key", "digest", "media_type", "bytes", "stages", "cost_seconds", "saved_seconds")
    return {name: result[name] for name in names}
