"""The pages for people, as they were built from web/ (`make studio`)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import FastAPI, Request, Response

from meshkiln.gateway.problems import not_found
from meshkiln.keys import digest

PAGES = {"/": "index.html", "/operations": "operations.html"}
"""Paths of the pages, and their files."""
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # blob: is what the visitor gave, and a mesh's texture; neither comes from elsewhere.
        "img-src 'self' blob:",
        "connect-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The names stay when the contents change, so each use asks whether they did; the answer is a 304.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}

_NEVER = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*\Z", re.IGNORECASE)
"""The weight of what is not to be sent."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the pages. packed : the same, compressed by gzip"""

    data: bytes
    packed: bytes
    etag: str


@cache
def names() -> frozenset[str]:
    """Every file there is to serve."""
    return frozenset(
        path.name for path in (files("meshkiln") / "studio").iterdir() if path.name.rpartition(".")[2] in TYPES
    )


@cache
def file(name: str) -> File:
    """The file of that name, one of `names`."""
    data = (files("meshkiln") / "studio" / name).read_bytes()
    return File(data, gzip.compress(data, 9, mtime=0), digest(data).hex()[:32])


def add(app: FastAPI) -> None:
    """Serve the pages, and their files under /studio/."""
    for path, name in PAGES.items():
        app.get(path, include_in_schema=False)(_page(name))

    @app.get("/studio/{name}", include_in_schema=False)
    async def part(name: str, request: Request) -> Response:
        if name not in names() or name in PAGES.values():
            raise not_found("the studio has no file of that name")
        return _answer(request, name)


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        return _answer(request, name)

    return page


def unpacks(accepted: str) -> bool:
    """Whether Accept-Encoding names gzip, and not only to refuse it with a weight of 0 (RFC 9110, 12.5.3)."""
    if "gzip" not in accepted or ";" not in accepted:
        return "gzip" in accepted
    weights = {coding.strip(): weight for coding, _, weight in (one.partition(";") for one in accepted.split(","))}
    return "gzip" in weights and not _NEVER.match(weights["gzip"])


def _listed(request: Request, name: str) -> str:
    """A header whose value is a list: its lines are one."""
    return ", ".join(request.headers.getlist(name))


def _answer(request: Request, name: str) -> Response:
    found = file(name)
    packed = unpacks(_listed(request, "accept-encoding"))
    # Either form has a tag of its own: a strong tag names bytes.
    headers = {**HEADERS, "ETag": f'"{found.etag}-gz"' if packed else f'"{found.etag}"'}
    if headers["ETag"] in _listed(request, "if-none-match"):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(found.packed if packed else found.data, headers=headers, media_type=TYPES[name.rpartition(".")[2]])
