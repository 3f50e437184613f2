"""Reading what was posted: a picture as the body, a multipart form, or JSON; bounded in size and time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from meshkiln.gateway.problems import Problem

RECEIVE_SECONDS = 60.0
"""Seconds in which a body has to arrive; who is slower is holding a connection, not sending a picture."""
OF_THE_CALL = ("engine", "recipe", "wait", "timeout", "priority")
"""Fields that are about the call and not parameters of the engine."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What a caller posted.

    texts : parameters given as text (query, form); values : parameters given as JSON values
    call : the fields of `OF_THE_CALL` that were given, as text
    """

    picture: bytes
    texts: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, str] = field(default_factory=dict)


async def posted(request: Request, limit: int) -> Posted:
    """What `request` carries. Raises Problem: 400 malformed, 408 too slow, 413 too large, 415 another media type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await whole_body(request, limit)
    query = dict(request.query_params)
    if media_type == "multipart/form-data":
        return _split(*await _form(request, body), query)
    if media_type == "application/json":
        return _json(body, query)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return _split(body, {}, query)
    raise Problem(
        415,
        "unsupported-media-type",
        "The body's media type is not understood",
        "send multipart/form-data with a file field `image`, application/json with `image` in base64, or the picture "
        "itself as image/png, image/jpeg, image/webp, …",
    )


async def whole_body(request: Request, limit: int) -> bytes:
    """The body's bytes. Raises Problem when it is larger than `limit`, or takes too long to arrive."""
    too_large = Problem(413, "too-large", "The body is too large", f"at most {limit} bytes are taken")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            408, "too-slow", "The body took too long to arrive", f"{RECEIVE_SECONDS:.0f} s are allowed"
        ) from None
    except ClientDisconnect:
        raise Problem(400, "disconnected", "The connection was closed before the body was whole") from None
    return b"".join(chunks)


async def _form(request: Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    malformed = Problem(400, "malformed", "The multipart form cannot be read")
    try:
        form = await Request(request.scope, receive).form(max_files=1, max_fields=100, max_part_size=len(body) + 1)
    except (MultiPartException, HTTPException, ValueError, KeyError) as error:
        raise Problem(
            400, "malformed", "The multipart form cannot be read", str(getattr(error, "detail", error))
        ) from None
    try:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise Problem(400, "no-picture", "There is no picture", "send it as the file field `image`")
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        return await image.read(), texts
    except UnicodeDecodeError:
        raise malformed from None
    finally:
        await form.close()


def _json(body: bytes, query: Mapping[str, str]) -> Posted:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "malformed", "The body is not JSON") from None
    if not isinstance(document, dict):
        raise Problem(400, "malformed", "The body is not a JSON object")
    image = document.pop("image", None)
    picture = decoded(image)
    call = {name: str(document.pop(name)) for name in OF_THE_CALL if document.get(name) is not None}
    asked = _split(picture, {}, query)
    return Posted(picture, asked.texts, document, {**asked.call, **call})


def decoded(image: object) -> bytes:
    """The bytes of a picture in base64, with or without a `data:` prefix. Raises Problem."""
    if not isinstance(image, str):
        raise Problem(400, "no-picture", "There is no picture", "send it in base64 as `image`")
    text = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "malformed", "The picture is not base64", "`image` holds its bytes in base64") from None


def _split(picture: bytes, texts: Mapping[str, str], query: Mapping[str, str]) -> Posted:
    given = {**query, **texts}
    call = {name: given.pop(name) for name in OF_THE_CALL if name in given}
    return Posted(picture, given, {}, call)
