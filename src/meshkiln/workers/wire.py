"""What crosses between the gateway's process and a worker: a JSON message and byte strings, framed. Never pickle.

    magic "MKW1" · length of the JSON (u32) · number of byte strings (u16) · their lengths (u64 each) · JSON · bytes

A worker decodes pictures from strangers, so the other side believes nothing it says: sizes are bounded, the JSON is
data. Plain sockets rather than descriptors of shared memory, whose fresh pages cost more than the copy they save
(`benchmarks/workers.py` has both).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

MAGIC = b"MKW1"
MAX_MESSAGE = 16 << 20
MAX_BYTES = 4 << 30
"""Bytes of JSON, and of all byte strings together, that one frame may have."""

_HEAD = struct.Struct("!4sIH")
_JOIN = 1 << 16


def send(connection: socket.socket, message: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one frame. Raises OSError when the other side is gone or does not read (see `patient`)."""
    text = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    head = _HEAD.pack(MAGIC, len(text), len(blobs)) + struct.pack(f"!{len(blobs)}Q", *map(len, blobs)) + text
    if sum(map(len, blobs)) <= _JOIN:
        connection.sendall(head + b"".join(blobs))
        return
    connection.sendall(head)
    for blob in blobs:
        connection.sendall(blob)


def receive(connection: socket.socket, most: int = MAX_BYTES) -> tuple[dict[str, Any], list[bytes]]:
    """The next frame. Raises EOFError when the other side is gone, ValueError for what is not a frame.

    most : bytes that its byte strings may have together
    """
    magic, length, count = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if magic != MAGIC or length > MAX_MESSAGE:
        raise ValueError(f"not a frame: it begins with {magic!r} and claims a message of {length} bytes")
    sizes = struct.unpack(f"!{count}Q", _exactly(connection, 8 * count))
    if sum(sizes) > most:
        raise ValueError(f"a frame of {sum(sizes)} bytes; at most {most} are taken")
    message = json.loads(_exactly(connection, length))
    if not isinstance(message, dict):
        raise ValueError(f"a message is a JSON object, not {type(message).__name__}")
    return message, [_exactly(connection, size) for size in sizes]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets with room for a picture on the way."""
    ends = socket.socketpair()
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    return ends


def patient(connection: socket.socket, seconds: float) -> None:
    """Let a read or write that has begun wait at most `seconds` for the other side, then raise OSError.

    The kernel's own timeouts: a Python timeout would make the socket non-blocking and every large read a loop.
    """
    value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, value)


def _exactly(connection: socket.socket, size: int) -> bytes:
    if size == 0:
        return b""
    first = connection.recv(size, socket.MSG_WAITALL)
    if len(first) == size:
        return first
    parts = [first]
    missing = size - len(first)
    while missing:
        part = connection.recv(missing, socket.MSG_WAITALL)
        if not part:
            raise EOFError("the other side is gone")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
