"""Stored answers without the web framework: a raw ASGI callable in front of it, and a shortcut in front of that.

Two things are answered here: `GET|HEAD /v1/artifacts/{key}` whose bytes are in the store, and `POST /v1/generations` of
a picture as the body whose mesh is stored, for a file and a query that were answered before. Everything else goes on to
the framework unchanged. A plain GET of what memory holds, by far the most frequent request, does not even become an
ASGI call: `shortcut` gives the connection the bytes to send.

What is remembered here are heads and documents, never an artifact's bytes, and it is trusted only while the artifact is
in the store.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshkiln.gateway.artifacts import answer, fields
from meshkiln.gateway.hosts import refuse
from meshkiln.gateway.metrics import ARTIFACT, GENERATIONS, SAMPLED, Again
from meshkiln.gateway.problems import Problem
from meshkiln.gateway.results import KEY
from meshkiln.keys import Digest, Key, digest
from meshkiln.result import Result
from meshkiln.store.base import Artifact
from meshkiln.store.tiers import Tiers
from meshkiln.telemetry import names

if TYPE_CHECKING:
    from meshkiln.gateway.gateway import Gateway

DOCUMENTS, HEADS = 4096, 4096
"""Documents and heads remembered, at about 4 and 2 KB each; more cost the framework's way, not an answer."""
QUERY_BYTES = 1024
"""An answer to a longer query is not remembered: one parameter said again and again makes 64 KiB of it."""
LARGE = 2**19
"""A body of more bytes is hashed on a thread: half a millisecond is all that others may be held up for."""
_ARTIFACTS = "/v1/artifacts/"
_CONDITIONS = frozenset((b"if-none-match", b"range", b"if-range"))
_NOT_PLAIN = _CONDITIONS | {b"origin", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"traceparent"}


@dataclass(frozen=True, slots=True)
class Heads:
    """How an artifact's answers begin: as ASGI messages, and as bytes that want a date and an empty line.

    digest : of the artifact they are of
    """

    key: Key
    digest: Digest
    etag: bytes
    whole: Message
    unchanged: Message
    whole_bytes: bytes
    unchanged_bytes: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """An answer given before. head, body : the response, ready to send; saved : compute seconds it saves

    memory, disk : where such answers are counted, by where the mesh was found
    """

    key: Key
    head: Message
    body: Message
    saved: float
    memory: Again
    disk: Again


class HotPath:
    """Answers what is stored; hands everything else to `app`.

    serves : whether a Host header is one of ours; asked by the shortcut, which no guard stands in front of
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self.app = app
        self.serves: Callable[[bytes], bool] = lambda host: False
        self.gateway = gateway
        self.store = gateway.store
        self.limit = gateway.settings.body_bytes
        self.metrics = gateway.metrics
        self._documents: OrderedDict[tuple[bytes, bytes], Known] = OrderedDict()
        self._heads: OrderedDict[bytes, Heads] = OrderedDict()
        # A look into memory takes less than a microsecond; the disk is asked on a thread.
        memory = self.store.memory if isinstance(self.store, Tiers) else self.store
        self._at_hand: Callable[[object], bool] = memory.__contains__ if memory.name == "memory" else lambda key: False
        gateway.seen = self.remember

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_ARTIFACTS) and not scope["query_string"]:
                if scope["method"] in ("GET", "HEAD") and await self._artifact(path[14:], scope, send):
                    return
            elif path == "/v1/generations" and scope["method"] == "POST":
                await self._generation(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _artifact(self, name: str, scope: Scope, send: Send) -> bool:
        if not KEY.match(name):
            return False
        key = Key(bytes.fromhex(name))
        started = time.perf_counter()
        url = b"/v1/artifacts/" + name.encode()
        heads = self._heads.get(url)
        artifact: Artifact | None
        if self._at_hand(key):
            artifact = self.store.get(key)
        else:
            artifact = await asyncio.to_thread(self.store.get, key)
        if artifact is None:
            self._heads.pop(url, None)
            return False
        if heads is None or heads.digest != artifact.digest:
            heads = self._heads[url] = _heads(name, key, artifact)
            if len(self._heads) > HEADS:
                self._heads.popitem(last=False)
        if scope["method"] == "GET":
            condition = None
            for header in scope["headers"]:
                if header[0] in _CONDITIONS:
                    condition = header
                    break
            if condition is None:
                await send(heads.whole)
                await send({"type": "http.response.body", "body": artifact.data})
                self.metrics.answered(ARTIFACT, "200", time.perf_counter() - started)
                return True
            if condition == (b"if-none-match", heads.etag):
                await send(heads.unchanged)
                await send(_EMPTY)
                self.metrics.answered(ARTIFACT, "304", time.perf_counter() - started)
                return True
        found = answer(scope["method"], fields(scope["headers"]), f"mesh-{name[:12]}", artifact)
        await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
        await send({"type": "http.response.body", "body": found.body})
        self.metrics.answered(ARTIFACT, str(found.status), time.perf_counter() - started)
        return True

    def shortcut(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
        """What to send for a plain GET of an artifact that memory holds: a head without its end, and the body.

        None for everything else, which is then asked for in the ordinary way.
        """
        heads = self._heads.get(url)
        if heads is None:
            return None
        metrics = self.metrics
        started = time.perf_counter() if metrics.on and metrics.plain % SAMPLED == 0 else 0.0
        host, unchanged = None, False
        for name, value in headers:
            if name == b"host":
                if host is not None:
                    return None
                host = value
            elif name in _NOT_PLAIN:
                if name != b"if-none-match" or value != heads.etag:
                    return None
                unchanged = True
        if host is None or not self.serves(host) or not self._at_hand(heads.key):
            return None
        artifact = self.store.get(heads.key)
        if artifact is None or artifact.digest != heads.digest:
            return None
        if metrics.on:
            if unchanged:
                metrics.unchanged += 1
            else:
                metrics.plain += 1
                if started:
                    metrics.timed.observe(time.perf_counter() - started)
        return (heads.unchanged_bytes, b"") if unchanged else (heads.whole_bytes, artifact.data)

    async def _generation(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if (
            not headers.get(b"content-type", b"").startswith(b"image/")
            or b"cache-control" in headers
            or b"content-encoding" in headers
            or b"idempotency-key" in headers
        ):
            await self.app(scope, receive, send)
            return
        uploads = self.gateway.uploads
        try:
            with uploads.holding() as held:
                body = await uploads.body(receive, headers.get(b"content-length", b"").decode(), self.limit, held)
                started = time.perf_counter()
                name = digest(body) if len(body) < LARGE else await asyncio.to_thread(digest, body)
        except Problem as problem:
            self.metrics.refused(problem, GENERATIONS)
            await refuse(send, problem)
            return
        known = self._documents.get((name, scope["query_string"]))
        at_hand = known is not None and self._at_hand(known.key)
        if known is None or not (at_hand or await asyncio.to_thread(self._there, known.key)):
            again = _replay(body, receive)
            del body  # whoever waits for his mesh is here all the time
            await self.app(scope, again, send)
            return
        given = headers.get(b"x-request-id")
        await send(known.head if given is None else _named(known.head, given))
        await send(known.body)
        if self.metrics.on:
            (known.memory if at_hand else known.disk).answered(known.saved, time.perf_counter() - started)

    def _there(self, key: Key) -> bool:
        return key in self.store

    def remember(self, request: Request, picture: bytes, response: JSONResponse, result: Result) -> None:
        """Take in an answer that the framework's side gave from the store."""
        query: bytes = request.scope["query_string"]
        if len(query) > QUERY_BYTES or not request.headers.get("content-type", "").startswith("image/"):
            return
        head = {"type": "http.response.start", "status": 200, "headers": response.raw_headers}
        body = {"type": "http.response.body", "body": bytes(response.body)}
        name = (digest(picture), query)
        again, stage = self.metrics.again, result.stages[-1].stage
        self._documents[name] = Known(
            result.key, head, body, result.saved, again["memory", stage], again["disk", stage]
        )
        if len(self._documents) > DOCUMENTS:
            self._documents.popitem(last=False)


def _named(head: Message, given: bytes) -> Message:
    """The head of an answer to who gave his request a name. Making one up for all others is not worth its cost."""
    name = names.begin(given.decode("latin-1"))
    return {**head, "headers": [*head["headers"], (b"x-request-id", name.encode())]}


def _heads(name: str, key: Key, artifact: Artifact) -> Heads:
    whole = answer("GET", {}, f"mesh-{name[:12]}", artifact)
    etag = dict(whole.headers)[b"etag"]
    unchanged = answer("GET", {b"if-none-match": etag}, "", artifact)
    return Heads(
        key,
        artifact.digest,
        etag,
        {"type": "http.response.start", "status": 200, "headers": whole.headers},
        {"type": "http.response.start", "status": 304, "headers": unchanged.headers},
        b"HTTP/1.1 200 OK\r\n" + lines(whole.headers),
        b"HTTP/1.1 304 Not Modified\r\n" + lines(unchanged.headers),
    )


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


_EMPTY: Message = {"type": "http.response.body", "body": b""}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives a body that was read already, and lets go of it; then goes on."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
