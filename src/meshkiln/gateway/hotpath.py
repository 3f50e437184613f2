"""Stored answers without the web framework: a raw ASGI callable in front of it.

Two things are answered here: `GET|HEAD /v1/artifacts/{key}` whose bytes are in the store, and `POST /v1/generations` of
a picture as the body whose mesh is stored, for a file and a query that were answered before. Everything else goes on to
the framework unchanged. A memo takes (digest of the file, query) to the final key and the document that was told; it
is trusted only while the artifact is in the store.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshkiln.gateway.artifacts import answer
from meshkiln.gateway.represent import of_stored
from meshkiln.keys import Key, digest
from meshkiln.result import Result

if TYPE_CHECKING:
    from meshkiln.gateway.app import Gateway

MEMO = 100_000
"""Answers remembered, at about 3 KB each: as many as the memory store holds artifacts by default."""
_ARTIFACTS = "/v1/artifacts/"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer given before. head, body : the response, ready to send; saved : compute seconds it saves"""

    key: Key
    head: Message
    body: Message
    saved: float


class HotPath:
    """Answers what is stored; hands everything else to `app`."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self.app = app
        self.gateway = gateway
        self.store = gateway.store
        self.limit = gateway.settings.body_bytes
        self._memo: OrderedDict[tuple[bytes, bytes], Known] = OrderedDict()
        # Bound once: a labelled child is a look-up of its own.
        self._requests = {
            path: gateway.metrics.requests.labels(path, "200") for path in ("/v1/artifacts/{key}", "/v1/generations")
        }
        self._answers = gateway.metrics.answers.labels("memory")
        gateway.seen = self.remember

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if path.startswith(_ARTIFACTS) and method in ("GET", "HEAD"):
                if await self._artifact(path[len(_ARTIFACTS) :], scope, send):
                    return
            elif path == "/v1/generations" and method == "POST":
                await self._generation(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _artifact(self, name: str, scope: Scope, send: Send) -> bool:
        try:
            key = bytes.fromhex(name) if len(name) == 64 else None
        except ValueError:
            key = None
        artifact = None if key is None else self.store.get(Key(key))
        if artifact is None:
            return False
        found = answer(scope["method"], dict(scope["headers"]), f"mesh-{name[:12]}", artifact)
        await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
        await send({"type": "http.response.body", "body": found.body})
        self._requests["/v1/artifacts/{key}"].inc()
        return True

    async def _generation(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        plain = (
            headers.get(b"content-type", b"").startswith(b"image/")
            and length.isdigit()
            and int(length) <= self.limit
            and b"cache-control" not in headers
        )
        if not plain:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        messages: list[Message] = []
        while True:
            message = await receive()
            messages.append(message)
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        bodies = [message.get("body", b"") for message in messages]
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        known = self._memo.get((digest(body), scope["query_string"]))
        if known is None or self.store.get(known.key) is None:
            await self.app(scope, _replay(messages, receive), send)
            return
        await send(known.head)
        await send(known.body)
        self._requests["/v1/generations"].inc()
        self._answers.inc()
        self.gateway.service.answered_stored += 1
        self.gateway.metrics.saved.inc(known.saved)
        self.gateway.metrics.stored_seconds.observe(time.perf_counter() - started)

    def remember(self, request: Request, picture: bytes, result: Result) -> None:
        """Take in an answer that the framework's side gave from the store."""
        if not request.headers.get("content-type", "").startswith("image/"):
            return
        response = JSONResponse(of_stored(result))
        head = {"type": "http.response.start", "status": 200, "headers": response.raw_headers}
        body = {"type": "http.response.body", "body": bytes(response.body)}
        self._memo[(digest(picture), request.url.query.encode())] = Known(result.key, head, body, result.saved)
        if len(self._memo) > MEMO:
            self._memo.popitem(last=False)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A receive that gives what was read already, then goes on."""
    ahead = iter(messages)

    async def again() -> Message:
        for message in ahead:
            return message
        return await receive()

    return again
