"""What surrounds each request that the framework answers: a name, a count, the time it took."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshkiln.gateway.metrics import Metrics
from meshkiln.telemetry import names


class Counted:
    """Counts and times requests by route and status, and gives each a name that its log lines and its answer carry."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), "aborted"
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        name = names.begin(given.decode("latin-1"))

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
