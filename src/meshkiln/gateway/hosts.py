"""Who may call from a browser: a foreign Host or Origin gets 403.

A page of somebody else's cannot reach a server on this machine by a name it controls (DNS rebinding: the Host is then
foreign), nor make a visitor's browser post or delete here (the Origin is then foreign).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from meshkiln.gateway.problems import MEDIA_TYPE, Problem

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HOST_BYTES = 300
"""A Host header longer than a name and a port can be is judged each time: anybody can send one of 64 KiB."""


class HostGuard:
    """Refuses foreign hosts and origins, and answers CORS preflights of the origins that are allowed.

    host : the listening address; on a wildcard address any IP literal is served, as no page can be at one it spoofs
    allowed : further host names
    origins : origins whose pages may call, such as "https://studio.example.org"
    refused : told of what was refused
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        allowed: Iterable[str] = (),
        origins: Iterable[str] = (),
        refused: Callable[[Problem], None] = lambda problem: None,
    ) -> None:
        self.app, self.refused = app, refused
        listening = f"[{host}]" if ":" in host else host
        self.names = {name.lower() for name in (*LOOPBACK, listening, *allowed)}
        self.any_address = host in ("", "0.0.0.0", "::")
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self._known: dict[bytes, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:  # which one counts is not the same to everybody on the way (RFC 9112, 3.2)
                    await self._refuse(send, Problem(400, "malformed", "The request has two Host headers"))
                    return
                host = value
            elif name == b"origin":
                origin = value
        if host is None or not self.serves(host):
            await self._refuse(send, Problem(403, "foreign-host", "This host name is not served", _hint(host)))
            return
        if origin is None:
            await self.app(scope, receive, send)
            return
        text = origin.decode("latin-1").lower()
        if text in self.origins:
            await self._with_cors(origin, scope, receive, send)
        elif _place(text) == host.lower():
            await self.app(scope, receive, send)
        else:
            detail = "set cors_origins to let pages of other origins call"
            await self._refuse(send, Problem(403, "foreign-origin", "Pages of this origin may not call", detail))

    def serves(self, host: bytes) -> bool:
        """Whether a Host header names this server."""
        known = self._known.get(host)
        if known is None:
            known = self._judge(host.decode("latin-1").lower())
            if len(self._known) < 1000 and len(host) <= HOST_BYTES:
                self._known[host] = known
        return known

    def _judge(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        bare = name if colon and port.isdigit() and not (host.startswith("[") and host.endswith("]")) else host
        if bare in self.names:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(bare.strip("[]"))
        except ValueError:
            return False
        return True

    async def _refuse(self, send: Send, problem: Problem) -> None:
        self.refused(problem)
        await refuse(send, problem)

    async def _with_cors(self, origin: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        allow = [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"location, retry-after, etag, content-range, content-disposition"),
            (b"vary", b"Origin"),
        ]
        if scope["method"] == "OPTIONS":
            asked = dict(scope["headers"]).get(b"access-control-request-headers", b"")
            allow += [
                (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", b"600"),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": allow})
            await send({"type": "http.response.body", "body": b""})
            return

        async def allowing(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                assert isinstance(headers, list)
                message = {**message, "headers": [*headers, *allow]}
            await send(message)

        await self.app(scope, receive, allowing)  # type: ignore[arg-type]


def _place(origin: str) -> bytes | None:
    """Host and port of an origin; None for "null" and what is none."""
    try:
        return urlsplit(origin).netloc.encode("latin-1") or None
    except ValueError:
        return None


def _hint(host: bytes | None) -> str:
    if host is None:
        return "send a Host header"
    return f"{host.decode('latin-1')!r} is foreign here; add it to allowed_hosts if it is yours"


async def refuse(send: Send, problem: Problem) -> None:
    """Send `problem` as a whole response."""
    body = problem.body()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
