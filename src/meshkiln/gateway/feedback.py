"""What people thought of generations, kept beside the jobs for experiments to read; it outlives them.

A row says enough to be read by itself: which engine with which parameters made the mesh under which key.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from meshkiln import salvage
from meshkiln.errors import StoreError
from meshkiln.gateway.bodies import described, short
from meshkiln.gateway.gateway import Gateway
from meshkiln.store.faults import telling


class Verdict(BaseModel):
    """Thumbs up or down, and why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rating: Literal["up", "down"]
    reason: str = Field("", max_length=2000)


class Feedback:
    """Every verdict given, oldest first. Safe to use from many threads.

    folder : where `feedback.sqlite` is; clock : seconds since the epoch
    Raises StoreError when it cannot be kept there.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._rows = salvage.opened(folder / "feedback.sqlite", _connected)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"feedback cannot be kept in {folder}: {error}") from error

    def add(self, document: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
        """Keep `verdict` on the generation of that document; what `latest` then gives. Raises StoreError."""
        values = (
            document["id"],
            document.get("key"),
            document["engine"] or "",  # not known of every artifact
            json.dumps(document["parameters"]),
            verdict.rating,
            verdict.reason,
            given := self._clock(),
        )
        with telling("the feedback cannot be kept"), self._lock:
            self._rows.execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return {"rating": verdict.rating, "reason": verdict.reason, "given": given}

    def latest(self, generation: str) -> dict[str, Any] | None:
        """The last verdict on a generation. Raises StoreError."""
        with telling("the feedback cannot be read"), self._lock:
            row = self._rows.execute(
                "SELECT rating, reason, given FROM feedback WHERE generation = ? ORDER BY rowid DESC LIMIT 1",
                (generation,),
            ).fetchone()
        return None if row is None else dict(zip(("rating", "reason", "given"), row, strict=True))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._rows.close()


def _connected(path: Path) -> sqlite3.Connection:
    rows = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    rows.execute("PRAGMA journal_mode=WAL")
    rows.execute(
        "CREATE TABLE IF NOT EXISTS feedback (generation TEXT NOT NULL, key TEXT, engine TEXT NOT NULL,"
        " parameters TEXT NOT NULL, rating TEXT NOT NULL, reason TEXT NOT NULL, given REAL NOT NULL)"
    )
    rows.execute("CREATE INDEX IF NOT EXISTS by_generation ON feedback (generation)")
    return rows


def add_routes(app: FastAPI, gateway: Gateway, feedback: Feedback) -> None:
    """Serve `/v1/generations/{id}/feedback`."""

    @app.post(
        "/v1/generations/{id}/feedback",
        tags=["generations"],
        summary="Say what you think of it",
        description="Kept with the generation; the latest counts.",
        openapi_extra=described(Verdict),
    )
    async def give(id: str, request: Request) -> Response:
        document = await gateway.told(id)
        verdict = await short(request, Verdict)
        return JSONResponse(await asyncio.to_thread(feedback.add, document, verdict))

    @app.get("/v1/generations/{id}/feedback", tags=["generations"], summary="What was thought of it last, or null")
    async def given(id: str) -> Response:
        await gateway.told(id)
        return JSONResponse(await asyncio.to_thread(feedback.latest, id))
