"""Errors over HTTP: one place that turns what went wrong into a problem document (RFC 9457)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshkiln import errors
from meshkiln.gateway.jobs import IdempotencyConflict

MEDIA_TYPE = "application/problem+json"
INSIDE = "the server's log tells more"
"""What callers are told of what is none of theirs."""
_TYPE = "urn:meshkiln:problem:"

_KINDS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (errors.BadPicture, 422, "bad-picture", "The picture cannot be used"),
    (errors.BadParameter, 422, "bad-parameter", "A parameter is unknown or out of range"),
    (errors.UnknownEngine, 422, "unknown-engine", "There is no such engine"),
    (errors.BadInput, 422, "bad-input", "The request cannot be served as it is"),
    (IdempotencyConflict, 422, "idempotency-conflict", "The idempotency key was used for another request"),
    (errors.Paused, 503, "intake-paused", "Nothing new is accepted for now"),
    (errors.QueueFull, 503, "queue-full", "Too much is waiting"),
    (errors.PoolClosed, 503, "shutting-down", "The server is shutting down"),
    (errors.DeadlinePassed, 504, "deadline-passed", "The deadline passed before the result was ready"),
    (errors.Cancelled, 409, "cancelled", "The generation was cancelled"),
    (errors.PoisonedTask, 422, "poisoned", "This picture makes the workers fail"),
    (errors.UpstreamFailed, 502, "upstream-failed", "The servers that make meshes failed"),
    (errors.UpstreamsDown, 503, "upstreams-down", "No server that makes meshes is in service"),
    (errors.StageFailed, 500, "stage-failed", "A stage failed"),
    (errors.StoreError, 503, "storage", "The request cannot be kept"),
)

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Problem(Exception):
    """What is told to the caller. status : HTTP status; kind : the stable end of its type URI"""

    status: int
    kind: str
    title: str
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The problem document."""
        told = {"type": _TYPE + self.kind, "title": self.title, "status": self.status}
        return {**told, "detail": self.detail} if self.detail else told

    def body(self) -> bytes:
        """The problem document as JSON bytes."""
        return json.dumps(self.document()).encode()


def problem_of(error: Exception) -> Problem:
    """The problem that tells `error`; an unexpected one tells nothing of its inside, nor any where things are kept."""
    if isinstance(error, Problem):
        return error
    for kind, status, name, title in _KINDS:
        if isinstance(error, kind):
            headers = {}
            if isinstance(error, errors.QueueFull | errors.UpstreamsDown):
                headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
            return Problem(status, name, title, _told(error), headers)
    return Problem(500, "internal", "The server failed", INSIDE)


def _told(error: Exception) -> str:
    if isinstance(error, errors.StoreError):
        log.error("%s", error)
        return error.told or INSIDE
    if isinstance(error, errors.StageFailed) and error.told:
        log.error("%s", error, exc_info=error)
        return f"{error.told}; {INSIDE}"
    return str(error)


def not_found(what: str) -> Problem:
    """404 for something that is not there."""
    return Problem(404, "not-found", "There is no such thing", what)
