"""A job: one accepted request, and what became of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
UNFINISHED = (QUEUED, RUNNING)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it was given: what a job keeps of it besides the picture."""

    engine: str
    parameters: Mapping[str, Any]
    recipe: str | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request and what became of it. Times in seconds since the epoch.

    picture : digest of the picture's bytes, hexadecimal
    deadline : when its result is of no use any more
    result : once succeeded: key, digest, media_type, bytes, stages, cost_seconds, saved_seconds; when it was deleted
    error : once failed: the problem document told to the caller
    """

    id: str
    ask: Ask
    picture: str
    client: str = ""
    priority: int = 0
    deadline: float | None = None
    idempotency: str | None = None
    state: str = QUEUED
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state not in UNFINISHED

    @property
    def deleted(self) -> bool:
        """Whether somebody had its result deleted."""
        return self.result is not None and "deleted" in self.result


UNREADABLE = {
    "type": "urn:meshkiln:problem:storage",
    "title": "The request cannot be kept",
    "status": 503,
    "detail": "what was kept of it cannot be read any more; send the picture again",
}
"""The error of a job whose row is damaged."""
COLUMNS = tuple(f.name for f in fields(Job))
_JSON = ("ask", "result", "error")
_OF_A_RESULT = {"key", "digest", "media_type", "bytes", "stages", "cost_seconds", "saved_seconds"}


def row_of(job: Job) -> tuple[Any, ...]:
    """`job` as values for `COLUMNS`."""
    values: list[Any] = []
    for name in COLUMNS:
        value = getattr(job, name)
        if name == "ask":
            value = {
                "engine": value.engine,
                "parameters": dict(value.parameters),
                "recipe": value.recipe,
                "refresh": value.refresh,
            }
        values.append(json.dumps(value) if name in _JSON and value is not None else value)
    return tuple(values)


def job_of(row: tuple[Any, ...]) -> Job:
    """The job that `row_of` made a row of. Of a row that cannot be read any more: one that has failed, and says so."""
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        told = {name: values[name] and json.loads(values[name]) for name in _JSON}
        job = Job(**{**values, **told, "ask": Ask(**told["ask"])})
        return job if _sound(job) else _unreadable(values)
    except (ValueError, TypeError, RecursionError):
        return _unreadable(values)


def _sound(job: Job) -> bool:
    """Whether everything is of its kind: SQLite, and JSON, give back whatever is in the file."""
    ask, result = job.ask, job.result
    texts = (job.id, job.picture, job.client, ask.engine, ask.recipe or "", job.idempotency or "")
    return (
        all(isinstance(text, str) for text in texts)
        and job.state in STATES
        and isinstance(job.priority, int)
        and _is_time(job.created)
        and all(time is None or _is_time(time) for time in (job.deadline, job.started, job.finished))
        and isinstance(ask.parameters, dict)
        and isinstance(ask.refresh, bool)
        and (job.error is None or isinstance(job.error, dict))
        and (result is None or _is_result(result))
    )


def _is_result(value: object) -> bool:
    if not (isinstance(value, dict) and value.keys() >= _OF_A_RESULT and isinstance(value["stages"], list)):
        return False
    return all(isinstance(stage, dict) and stage.keys() >= {"stage", "key"} for stage in value["stages"])


def _unreadable(values: Mapping[str, Any]) -> Job:
    created = values["created"] if _is_time(values["created"]) else 0.0
    finished = values["finished"] if _is_time(values["finished"]) else created
    return Job(
        str(values["id"]), Ask("", {}), "", state=FAILED, created=created, finished=finished, error=dict(UNREADABLE)
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
