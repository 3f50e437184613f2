"""What the HTTP benchmark compares with: a plain FastAPI application, and a bare callable that reads and hashes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from blake3 import blake3
from fastapi import FastAPI, Response

FILES = {path.name: path.read_bytes() for path in Path(os.environ.get("PEER_FILES", "/nonexistent")).glob("*.bin")}

plain = FastAPI()


@plain.get("/{name}")
async def file(name: str) -> Response:
    return Response(FILES[name], media_type="application/octet-stream")


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads a body, hashes it, says so."""
    if scope["type"] != "http":
        return
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = blake3(b"".join(parts)).hexdigest().encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
