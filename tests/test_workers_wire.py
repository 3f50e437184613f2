"""Frames between processes: whole, bounded, and never believed."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.workers import wire
from meshkiln.workers.worker import Gone, Setup, Worker


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = wire.pair()
    with ours, theirs:
        yield ours, theirs


json = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@settings(deadline=None)
@given(json, st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_sent_arrives(message: dict[str, object], blobs: list[bytes]) -> None:
    ours, theirs = wire.pair()
    with ours, theirs:
        wire.send(ours, message, blobs)
        wire.send(ours, {"the": "next"})
        assert wire.receive(theirs) == (message, blobs)
        assert wire.receive(theirs) == ({"the": "next"}, [])


def test_a_frame_in_pieces_with_signals_between_them_is_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    data = bytes(range(256)) * 4000
    received: list[object] = []
    reader = threading.Thread(target=lambda: received.append(wire.receive(theirs)))
    frame = wire.MAGIC + struct.pack("!IHQ", 2, 1, len(data)) + b"{}" + data
    before = signal.signal(signal.SIGUSR1, lambda number, where: None)
    try:
        reader.start()
        beat = threading.Event()
        for first in range(0, len(frame), 50_000):
            ours.sendall(frame[first : first + 50_000])
            beat.wait(0.002)  # more often than not the reader is in the middle of its read by then
            if reader.is_alive() and reader.ident is not None:
                signal.pthread_kill(reader.ident, signal.SIGUSR1)  # a read that has begun returns what it has
        reader.join(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [({}, [data])]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a frame"),
        (wire.MAGIC + struct.pack("!IH", 2**31, 0), "not a frame"),
        (wire.MAGIC + struct.pack("!IHQQ", 2, 2, 600, 600) + b"{}", "at most 1000"),
        (wire.MAGIC + struct.pack("!IH", 2, 0) + b"[]", "JSON object"),
        (wire.MAGIC + struct.pack("!IH", 2, 0) + b"{{", "Expecting"),
        (wire.MAGIC + struct.pack("!IH", 2, 0) + b"\xc3\x28", "utf"),
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_read(
    ends: tuple[socket.socket, socket.socket], frame: bytes, words: str
) -> None:
    ours, theirs = ends
    ours.sendall(frame)
    with pytest.raises(ValueError, match=words):
        wire.receive(theirs, most=1000)


def test_half_a_frame_is_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.sendall(wire.MAGIC + struct.pack("!IHQ", 2, 1, 100) + b"{}" + b"half")
    ours.close()
    with pytest.raises(EOFError):
        wire.receive(theirs)


def test_no_value_that_json_does_not_have_is_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        wire.send(ends[0], {"seconds": float("nan")})


def test_a_worker_ends_by_itself_when_its_connection_does() -> None:
    worker = Worker(Setup())
    ready = worker.receive(60)
    assert ready is not None
    assert ready[0] == {"say": "ready"}
    worker.bury(grace=30.0)
    assert worker.death() == "it exited with status 0"
    with pytest.raises(Gone):
        worker.send({"do": "run"})
