"""A job: one accepted request, and what became of it."""

from __future__ import annotations

import json
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
    result : once succeeded: key, digest, media_type, bytes, stages, cost_seconds, saved_seconds
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


COLUMNS = tuple(f.name for f in fields(Job))
_JSON = {"ask", "result", "error"}


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
    """The job that `row_of` made a row of."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name in _JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return Job(**{**values, "ask": Ask(**values["ask"])})
