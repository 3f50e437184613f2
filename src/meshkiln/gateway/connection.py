"""Connections: the server's HTTP protocol with bounds on what a client may do before, between and after requests.

What a request's body may take is bounded where it is read (`uploads`). Here it is who connects and sends nothing, who
sends a head byte by byte or without end, who goes on sending what nobody reads, and who does not take an answer in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkiln.gateway.problems import MEDIA_TYPE, Problem

HEAD_BYTES = 2**16
HEAD_SECONDS = 30.0
"""A head has to be whole within so many bytes and seconds; a connection may be without a request for as long."""
STALLED_SECONDS = 60.0
"""An answer of which nothing was taken for so long is not taken in any more."""


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_bytes = 0
        self._in_head = True
        self._since = self.loop.time()
        self._unsent, self._unsent_since = 0, 0.0

    def data_received(self, data: bytes) -> None:
        """As the server's, with a bound on heads."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and (self._head_bytes > 2 * HEAD_BYTES or len(data) < HEAD_BYTES // 4):
                self.refuse(Problem(431, "head-too-large", "The request's head is too large"))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is refused as everything else is."""
        self.refuse(Problem(400, "malformed", "The request is not HTTP", msg))

    def refuse(self, problem: Problem) -> None:
        """Answer with `problem` outside of any request, and close."""
        if self.transport.is_closing():
            return
        body = problem.body()
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        # In the middle of an answer there is no place for another.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(head.encode() + body)
        self.transport.close()

    def judge(self, now: float) -> None:
        """Close when the client's time is over."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > STALLED_SECONDS:
            self.transport.abort()
            return
        # The server's own timer closes kept-alive connections; it stops at the next byte, whatever that is.
        without = self._in_head or self.cycle is None or self.cycle.response_complete
        if without and self.timeout_keep_alive_task is None and now - self._since > HEAD_SECONDS:
            if self._in_head and self._head_bytes:
                self.refuse(Problem(408, "too-slow", "The request's head took too long to arrive"))
            else:
                self.transport.close()


def judge(connections: Iterable[Any]) -> None:
    """Look after all connections."""
    now = asyncio.get_running_loop().time()
    for connection in list(connections):
        connection.judge(now)
