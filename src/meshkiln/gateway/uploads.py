"""Bodies on their way in: bounded each, bounded together, and bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Receive

from meshkiln.gateway.problems import Problem

RECEIVE_SECONDS = 60.0
"""Seconds in which a body has to arrive; who is slower is holding a connection, not sending a picture."""


@dataclass(slots=True)
class Held:
    """Bytes of one body that are held in memory."""

    bytes: int = 0


class Uploads:
    """What bodies may take of this process's memory. On the event loop only.

    most : bytes of all bodies together, from their first byte until they are let go
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """An account for one body, settled at the end."""
        held = Held()
        try:
            yield held
        finally:
            self.held -= held.bytes

    async def body(self, receive: Receive, length: str, limit: int, held: Held) -> bytes:
        """The whole body, on the account of `held`.

        length : the Content-Length header, or ""
        Raises Problem: 413 larger than `limit`, 408 too slow, 503 too many at once, 400 disconnected.
        """
        announced = int(length) if length.isascii() and length.isdigit() else 0
        if announced > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(RECEIVE_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Problem(400, "disconnected", "The connection was closed before the body was whole")
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    held.bytes += len(chunk)
                    self.held += len(chunk)
                    if size > limit:
                        raise _too_large(limit)
                    if self.held > self.most:
                        detail = f"{self.most} bytes may be on their way together"
                        raise Problem(503, "busy", "Too many uploads at once", detail, {"Retry-After": "1"})
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            detail = f"{RECEIVE_SECONDS:.0f} s are allowed"
            raise Problem(
                408, "too-slow", "The body took too long to arrive", detail, {"Connection": "close"}
            ) from None


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", "The body is too large", f"at most {limit} bytes are taken")
