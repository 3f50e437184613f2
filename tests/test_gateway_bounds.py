"""What the gateway remembers of requests is bounded in bytes, whatever they say. Without a server."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse

from meshkiln.gateway.hosts import HostGuard
from meshkiln.gateway.hotpath import HotPath
from meshkiln.gateway.metrics import Metrics
from meshkiln.keys import Key
from meshkiln.store.memory import Memory


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def grown(work: Callable[[int], None], times: int) -> int:
    """Bytes more that are held after `work` was done so often."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(times):
            work(number)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_long_host_names_are_not_remembered() -> None:
    guard = HostGuard(nothing, "127.0.0.1")
    assert grown(lambda number: cast(None, guard.serves(b"%d" % number + b"x" * 60_000)), 100) < 1_000_000
    assert guard.serves(b"127.0.0.1:8081")
    assert not guard.serves(b"x" * 60_000)


def test_answers_to_long_queries_are_not_remembered() -> None:
    gateway = SimpleNamespace(
        store=Memory(2**20), settings=SimpleNamespace(body_bytes=2**20), metrics=Metrics(), seen=None
    )
    hot = HotPath(nothing, cast(Any, gateway))
    result = SimpleNamespace(key=Key(bytes(32)), saved=1.0, stages=[SimpleNamespace(stage="export")])

    def seen(number: int) -> None:
        query = b"seed=%d&" % number * 6_000
        headers = [(b"content-type", b"image/png")]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": headers}
        scope |= {"server": ("127.0.0.1", 80), "scheme": "http"}
        hot.remember(Request(scope), b"picture", JSONResponse({}), cast(Any, result))

    assert grown(seen, 100) < 1_000_000
