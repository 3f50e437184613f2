"""Connections: the server's HTTP protocol with bounds on what a client may do before, between and after requests.

What a request's body may take is bounded where it is read (`uploads`). Here it is who connects and sends nothing, who
sends a head byte by byte or without end, who goes on sending what nobody reads, and who does not take an answer in.

Of this the server offers nothing: that its protocol may be another class is all there is of a public way in (`http` of
`uvicorn.Config`); its bounds on connections and on kept-alive ones say nothing of heads, and an application is asked
only when a request is a task already. So steps of its class are taken here, in the order in which it takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkiln.gateway.problems import MEDIA_TYPE, Problem

HEAD_BYTES = 2**16
HEAD_SECONDS = 30.0
"""A head has to be whole within so many bytes and seconds; a connection may be without a request for as long."""
JOINED = 2**14
"""A body of fewer bytes is copied behind its head: one piece to send costs less than two."""
STALLED_SECONDS = 60.0
"""An answer of which nothing was taken for so long is not taken in any more."""

Shortcut = Callable[[bytes, Sequence[tuple[bytes, bytes]]], tuple[bytes, bytes] | None]
Refused = Callable[[Problem], None]


class Connection(HttpToolsProtocol):
    """One client's connection.

    shortcut : gives what to send for requests that need no more than that (`HotPath.shortcut`)
    refused : called for each problem that is told here, and nowhere else (`Metrics.refused`)
    """

    def __init__(self, shortcut: Shortcut | None, refused: Refused, **server: Any) -> None:
        super().__init__(**server)
        self._shortcut = shortcut
        self._refused = refused
        self._answered = False
        self._head_bytes = 0
        self._in_head = False
        self._since = self.loop.time()
        self._unsent, self._unsent_since = 0, 0.0
        self._dated: list[tuple[bytes, bytes]] | None = None
        self._ending = b""

    def data_received(self, data: bytes) -> None:
        """As the server's, with a bound on heads."""
        within = self._in_head
        # The server's own does the same, by two calls more for each piece.
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            pass  # nothing is upgraded to: it is answered as an ordinary request
        # What a head begins with may share its piece with the end of a body, and is not counted.
        if within and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.refuse(Problem(431, "head-too-large", "The request's head is too large"))

    def on_message_begin(self) -> None:
        # What the server's own does besides is put off until it is needed.
        self.url, self.headers = b"", []
        self._in_head, self._head_bytes, self._answered, self._since = True, 0, False, 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._shortcut is not None and self._answer(self._shortcut):
            self._answered = True
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.expect_100_continue = any(name == b"expect" and v.lower() == b"100-continue" for name, v in headers)
        self.headers += headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._answered:
            super().on_message_complete()

    def _answer(self, shortcut: Shortcut) -> bool:
        """Answer at once, if that is all there is to do and it is this request's turn."""
        parser, cycle = self.parser, self.cycle
        if parser.get_method() != b"GET" or not (cycle is None or cycle.response_complete) or self.pipeline:
            return False
        if self.flow.write_paused or not parser.should_keep_alive() or self.transport.is_closing():
            return False
        found = shortcut(self.url, self.headers)
        if found is None:
            return False
        head, body = found
        if self._dated is not self.server_state.default_headers:
            self._dated = self.server_state.default_headers  # a new list each second
            self._ending = b"".join(b"%b: %b\r\n" % header for header in self._dated) + b"\r\n"
        if len(body) < JOINED:
            self.transport.write(head + self._ending + body)
        else:
            self.transport.write(head + self._ending)
            self.transport.write(body)
        return True

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
        asked = self.cycle is not None and not self.cycle.response_complete
        if not asked:
            # Else it is a request that the application knows, and counts.
            self._refused(problem)
        # In the middle of an answer there is no place for another.
        if not (asked and self.cycle.response_started):
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
        self._since = self._since or now  # asking for the time at each request costs more than a late start here
        # The server's own timer closes kept-alive connections; it stops at the next byte, whatever that is.
        without = self._in_head or self.cycle is None or self.cycle.response_complete
        if without and self.timeout_keep_alive_task is None and now - self._since > HEAD_SECONDS:
            if self._in_head:
                self.refuse(Problem(408, "too-slow", "The request's head took too long to arrive"))
            else:
                self.transport.close()


def judge(connections: Iterable[Any]) -> None:
    """Look after all connections."""
    now = asyncio.get_running_loop().time()
    for connection in list(connections):
        connection.judge(now)
