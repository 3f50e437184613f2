"""Upstreams that misbehave: a real HTTP server on a free port, whose answers a function of the test's writes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mirror

Answer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]] | None
"""Status, body, headers; None closes the connection without a word. A header Content-Length is sent as it is."""

MESH = mirror.glb({"made": "by a peer"})


def well(path: str, document: dict[str, Any]) -> Answer:
    return 200, MESH


class Peer:
    """One server. asked : paths and documents in the order they came; most : how many were answered at one time"""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Answer], port: int = 0) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.busy = self.most = 0
        peer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    peer.asked.append((self.path, document))
                    peer.busy += 1
                    peer.most = max(peer.most, peer.busy)
                try:
                    self.tell(answer(self.path, document))
                finally:
                    with lock:
                        peer.busy -= 1

            def do_GET(self) -> None:
                if self.path == "/health":
                    self.tell((404, b'{"detail":"Not Found"}'))  # as the 2.0 server says
                else:
                    self.tell(answer(self.path, {}))

            def tell(self, said: Answer) -> None:
                self.close_connection = True
                if said is None:
                    return
                status, body, headers = (*said, {})[:3]
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def generated(self) -> int:
        return sum(path in ("/generate", "/send") for path, _ in self.asked)


@contextlib.contextmanager
def peer(answer: Callable[[str, dict[str, Any]], Answer], port: int = 0) -> Iterator[Peer]:
    made = Peer(answer, port)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
