"""What surrounds requests: a name, a count, the time it took; and where they are wanted, a trace and a log line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshkiln.gateway.metrics import Metrics
from meshkiln.telemetry import names
from meshkiln.telemetry.logs import tell

if TYPE_CHECKING:
    from meshkiln.telemetry.traces import Traces


class HeadAsGet:
    """Serves HEAD where GET is served (RFC 9110, 9.1): as GET, of which the HTTP server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and head_as_get(scope["path"]):
            headers = [header for header in scope["headers"] if header[0] != b"range"]  # is about GET alone
            scope = {**scope, "method": "GET", "headers": headers}
        await self.app(scope, receive, send)


def head_as_get(path: str) -> bool:
    """Whether HEAD of `path` is answered as GET: not where it is served by itself, nor what streams until an end."""
    return not path.startswith("/v1/artifacts/") and not path.endswith("/events")


class Counted:
    """Counts and times requests by route and status, and gives each a name that its log lines and its answer carry."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), "aborted"
        name = names.begin(_given(scope))

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            # The framework has put the route in the scope by now; of what has none, the path is anybody's choice.
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.answered(route, status, time.perf_counter() - started)


class Traced:
    """Surrounds each request with a span, and names that in the answer."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self.app, self.traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = (b"traceparent", b"tracestate")
        headers = {n.decode(): v.decode("latin-1") for n, v in scope["headers"] if n in wanted}
        with self.traces.request(scope["method"], headers) as span:

            async def naming(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    named = [(n.encode(), v.encode()) for n, v in self.traces.names(span).items()]
                    message = {**message, "headers": [*message.get("headers", ()), *named]}
                await send(message)

            await self.app(scope, receive, naming)
            route = _route(scope)
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.route": route, "meshkiln.request": names.request.get()})


class Logged:
    """Writes a line for each request, and has its answer carry the name that is in the line.

    Its route is told and not its URL, which holds what callers wrote.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, size = time.perf_counter(), 0, 0
        name = names.begin(_given(scope))

        async def watching(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status, headers = message["status"], message.get("headers", ())
                if not any(header == b"x-request-id" for header, _ in headers):
                    # The hot path and the guard give no names of their own.
                    message = {**message, "headers": [*headers, (b"x-request-id", name.encode())]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, watching)
        finally:
            seconds = round(time.perf_counter() - started, 6)
            tell("answered", method=scope["method"], route=_route(scope), status=status, seconds=seconds, bytes=size)


def _given(scope: Scope) -> str:
    """The name that a request came with, or ""."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")


def _route(scope: Scope) -> str:
    """The route that answered; of what the framework did not see, which of the two that the hot path answers."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        return str(route)
    path: str = scope["path"]
    if path.startswith("/v1/artifacts/"):
        return "/v1/artifacts/{key}"
    return path if path == "/v1/generations" else "none"
