"""Reading what was posted: a picture as the body, a multipart form, or JSON; bounded in size and time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from meshkiln.gateway.problems import Problem
from meshkiln.gateway.uploads import Held, Uploads

_AT_ONCE = 2**16
"""A body of fewer bytes is parsed on the event loop; a larger one would hold up everybody for milliseconds."""
_FIELDS, _FIELD_BYTES = 100, 2**16
SHORT = 2**14
"""Bytes of a body that holds no picture."""
OF_THE_CALL = ("engine", "recipe", "wait", "timeout", "priority")
"""Fields that are about the call and not parameters of the engine."""


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Posted:
    """What a caller posted.

    texts : parameters given as text (query, form); values : parameters given as JSON values
    call : the fields of `OF_THE_CALL` that were given, as text
    replaced : what the query says that the body says again; the body counts, but neither may be nonsense
    """

    picture: bytes
    texts: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)


async def posted(request: Request, limit: int, held: Held) -> Posted:
    """What `request` carries, on the account of `held`.

    Raises Problem: 400 malformed, 408 too slow, 413 too large, 415 another media type, or compressed.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await whole_body(request, limit, held)
    query = dict(request.query_params)
    if media_type == "multipart/form-data":
        if len(body) < _AT_ONCE:
            return _split(*await _form(request.headers, body), query)
        return _split(*await asyncio.to_thread(lambda: asyncio.run(_form(request.headers, body))), query)
    if media_type == "application/json":
        return _json(body, query) if len(body) < _AT_ONCE else await asyncio.to_thread(_json, body, query)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return _split(body, {}, query)
    raise Problem(
        415,
        "unsupported-media-type",
        "The body's media type is not understood",
        "send multipart/form-data with a file field `image`, application/json with `image` in base64, or the picture "
        "itself as image/png, image/jpeg, image/webp, …",
    )


async def whole_body(request: Request, limit: int, held: Held) -> bytes:
    """The body's bytes, on the account of `held`. Raises Problem when it is larger than `limit`, or takes too long to
    arrive."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        # A small body may unpack to any size.
        detail = "send it as it is, without Content-Encoding"
        raise Problem(415, "unsupported-encoding", "Compressed bodies are not taken", detail)
    uploads: Uploads = request.app.state.uploads
    return await uploads.body(request.receive, request.headers.get("content-length", ""), limit, held)


async def short(request: Request, model: type[Model]) -> Model:
    """The JSON of a short body as a `model`. Raises Problem: as `posted` does, and 422 for what is no such thing.

    The framework would read the whole body whatever its size, hence this in its place, and `described`.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A form of another site's page cannot send that without being asked about it first.
        detail = "send application/json"
        raise Problem(415, "unsupported-media-type", "The body's media type is not understood", detail)
    try:
        with request.app.state.uploads.holding() as held:
            return model.model_validate_json(await whole_body(request, SHORT, held))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise Problem(422, "bad-parameter", "A parameter is unknown or out of range", told) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """What the OpenAPI description says of a body that `short` reads."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


class _Parser(MultiPartParser):
    # Bodies are bounded and in memory already: nothing is gained by a temporary file.
    spool_max_size = 2**40


async def _form(headers: Headers, body: bytes) -> tuple[bytes, dict[str, str]]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        # With _FIELDS as the bound of fields, so that a form of a million of them is refused and not built.
        form = await _Parser(headers, stream(), max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES).parse()  # type: ignore[arg-type]
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise Problem(400, "no-picture", "There is no picture", "send it as the file field `image`")
        return image.file.read(), {name: value for name, value in form.items() if isinstance(value, str)}
    except (MultiPartException, HTTPException, ValueError, KeyError, LookupError) as error:
        detail = str(getattr(error, "message", error))
        raise Problem(400, "malformed", "The multipart form cannot be read", detail) from None


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
    replaced = {name: query[name] for name in (*call, *document) if name in query}
    return Posted(picture, asked.texts, document, {**asked.call, **call}, replaced)


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
    replaced = {name: query[name] for name in query if name in texts}
    return Posted(picture, given, {}, call, replaced)
