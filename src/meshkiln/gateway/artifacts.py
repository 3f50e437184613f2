"""Answers that carry an artifact: validators, ranges and media types (RFC 9110). Pure: headers in, an answer out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshkiln.store.base import Artifact

Headers = list[tuple[bytes, bytes]]

SUFFIXES = {
    "model/gltf-binary": "glb",
    "application/zip": "obj.zip",
    "model/vnd.ply": "ply",
    "model/stl": "stl",
    "model/3mf": "3mf",
    "image/png": "png",
}
_NONE_MATCH = b"if-none-match"
_RANGE = re.compile(rb"bytes=(\d{0,19})-(\d{0,19})\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent. body : a view of the artifact's own bytes, never a copy; empty for HEAD, 304 and 416"""

    status: int
    headers: Headers
    body: memoryview | bytes


def fields(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """A request's headers by name, given in lower case. If-None-Match, a list, may come on several lines that are one
    (RFC 9110, 5.3); of another the last counts."""
    found = dict(headers)
    if len(found) < len(headers) and _NONE_MATCH in found:
        found[_NONE_MATCH] = b", ".join(value for name, value in headers if name == _NONE_MATCH)
    return found


def answer(method: str, headers: Mapping[bytes, bytes], name: str, artifact: Artifact) -> Answer:
    """The answer to a GET or HEAD of `artifact`.

    headers : of the request, names in lower case; If-None-Match, Range and If-Range are honoured
    name : the file's name without its ending, for Content-Disposition
    """
    # The digest of the bytes and not the key: two keys may hold the same bytes, and a validator is about bytes.
    etag = b'"' + artifact.digest.hex().encode() + b'"'
    common = [
        (b"etag", etag),
        # Its bytes never change, but it may be deleted: a cache asks whether it is still there, which is a 304.
        (b"cache-control", b"private, no-cache"),
        (b"accept-ranges", b"bytes"),
    ]
    if _matches(headers.get(_NONE_MATCH), etag):
        return Answer(304, common, b"")
    size = len(artifact.data)
    suffix = SUFFIXES.get(artifact.media_type, "bin")
    described = [
        *common,
        (b"content-type", artifact.media_type.encode()),
        (b"content-disposition", f'attachment; filename="{name}.{suffix}"'.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    part = None
    if method == "GET" and headers.get(b"if-range") in (None, etag):
        part = _part(headers.get(b"range"), size)
    if part == (0, 0):
        return Answer(416, [*common, (b"content-range", b"bytes */%d" % size), (b"content-length", b"0")], b"")
    if part is None:
        body = b"" if method == "HEAD" else memoryview(artifact.data)
        return Answer(200, [*described, (b"content-length", b"%d" % size)], body)
    start, end = part
    described += [
        (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)),
        (b"content-length", b"%d" % (end - start)),
    ]
    return Answer(206, described, memoryview(artifact.data)[start:end])


def _matches(given: bytes | None, etag: bytes) -> bool:
    if given is None:
        return False
    # If-None-Match compares weakly (RFC 9110, 13.1.2): a W/ in front does not matter.
    return given.strip() == b"*" or etag in (tag.strip().removeprefix(b"W/") for tag in given.split(b","))


def _part(given: bytes | None, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a single byte range; None for the whole, (0, 0) for one that cannot be satisfied.

    Several ranges, and what is not a byte range, are ignored, as RFC 9110 (14.2) allows.
    """
    found = _RANGE.match(given.strip()) if given else None
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < int(first):
            return None
    return (start, end) if start < end else (0, 0)
