"""A real server for tests: uvicorn on a free port, real worker processes, the toy engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

import toy
from meshkiln.engines.base import Engine
from meshkiln.gateway.serve import Server
from meshkiln.settings import Settings

PNG = {"content-type": "image/png"}


@contextlib.contextmanager
def serving(
    folder: Path, kinds: Mapping[str, Engine] | None = None, ready: bool = True, **settings: Any
) -> Iterator[httpx.Client]:
    """A client of a server whose store and jobs are in `folder`.

    kinds : its engines; None is the toy alone
    ready : whether to wait for its workers
    """
    chosen = {"engine": "toy", "workers": 1, "port": 0, "shutdown_seconds": 5.0, **settings}
    made = Settings(cache_dir=str(folder / "cache"), data_dir=str(folder / "data"), **chosen)
    server = Server(made, {"toy": toy.ENGINE} if kinds is None else kinds)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        # Plain HTTP: certificates that nobody will show take longer to load than a toy picture takes to make.
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, verify=False) as client:
            until(lambda: not ready or client.get("/readyz").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive(), "the server did not stop"


def until(condition: Any, seconds: float = 40.0) -> None:
    """Wait for something another thread or process is bound to do."""
    beat, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        beat.wait(0.01)


def post(http: httpx.Client, picture: bytes, query: str = "wait=30", **headers: str) -> httpx.Response:
    return http.post(f"/v1/generations?{query}", content=picture, headers={**PNG, **headers})


def computed(document: dict[str, Any]) -> list[str]:
    return [s["stage"] for s in document["stages"] if s["source"] == "computed" and not s["joined"]]
