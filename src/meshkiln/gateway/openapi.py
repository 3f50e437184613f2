"""What the OpenAPI description says beyond what the routes' signatures tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Query

from meshkiln.engines.base import Parameter
from meshkiln.kiln import Kiln
from meshkiln.settings import Settings

DESCRIPTION = (
    "A picture in, a mesh out; and never the same thing made twice. "
    "Post a picture, follow its events or wait, and get the artifact it links to. "
    "Errors are problem documents (RFC 9457)."
)
PROBLEM: dict[str, Any] = {
    "description": "What was wrong, as a problem document (RFC 9457)",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            }
        }
    },
}
_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["state", "queue", "stage", "step"]},
        "data": {"type": "string", "description": "a JSON object"},
    },
}
EVENTS: dict[str, Any] = {
    "summary": "What happens to a generation, as server-sent events",
    "description": "Events `state`, `queue`, `stage` and `step`; resumable with Last-Event-ID.",
    "responses": {200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "The events"}},
}
_SCALAR = {"type": ["boolean", "number", "string"]}
_PARAMETER = {
    "type": "object",
    "required": ["name", "default", "allowed", "help", "low", "high", "choices"],
    "properties": {
        "name": {"type": "string"},
        "default": _SCALAR,
        "allowed": {"type": "string", "description": "what would be right, in words"},
        "help": {"type": "string"},
        "low": {"type": ["number", "null"]},
        "high": {"type": ["number", "null"]},
        "choices": {"type": "array", "items": {"type": "string"}},
    },
}
_ENGINE = {
    "type": "object",
    "required": ["name", "default", "help", "stages", "formats", "recipes", "recipe", "parameters"],
    "properties": {
        "name": {"type": "string"},
        "default": {"type": "boolean", "description": "whether requests that name no engine are its"},
        "help": {"type": "string"},
        "stages": {"type": "array", "items": {"type": "string"}},
        "formats": {"type": "object", "additionalProperties": {"type": "string", "description": "a media type"}},
        "recipes": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": _SCALAR},
            "description": "names for settings of parameters",
        },
        "recipe": {
            "type": ["string", "null"],
            "description": "the one of requests that name none; null: the parameters' defaults hold",
        },
        "parameters": {"type": "array", "items": _PARAMETER},
    },
}
ENGINES: dict[str, Any] = {
    "summary": "Engines, their parameters and recipes",
    "responses": {
        200: {
            "description": "The engines",
            "content": {"application/json": {"schema": {"type": "array", "items": _ENGINE}}},
        }
    },
}
BASE64 = {"type": "string", "contentEncoding": "base64", "pattern": "^(?:[A-Za-z0-9+/]{4})+$"}
PICTURE = Query(None, pattern="^png$", description="`png`: a picture of it, when it is a mesh or a cut-out")
_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
ARTIFACT: dict[str, Any] = {
    "summary": "The bytes of an artifact",
    "description": "With a strong ETag, If-None-Match, Range and If-Range. Caches ask before use: it may be deleted.",
    "responses": {
        200: {"content": _BYTES, "description": "The bytes"},
        206: {"content": _BYTES, "description": "A range of them"},
        304: {"description": "They are what If-None-Match names"},
    },
}


def generate(kilns: Mapping[str, Kiln], settings: Settings) -> dict[str, Any]:
    """The description of `POST /v1/generations`, its limits among it."""
    parameters = {p.name: p for kiln in kilns.values() for p in kiln.engine.parameters}
    recipes = sorted({name for kiln in kilns.values() for name in kiln.engine.recipes})
    fields = {name: schema(p) for name, p in parameters.items()}
    call = {
        "engine": {"type": "string", "enum": list(kilns)},
        "recipe": {"type": "string", "enum": recipes, "description": "a name for a setting of parameters"},
        "wait": {
            "type": "number",
            "minimum": 0,
            "maximum": 1e6,
            "description": f"seconds; more than {settings.wait_seconds:g} count as that",
        },
        "timeout": {"type": "number", "minimum": 0, "maximum": 86400, "description": "seconds"},
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
    }
    binary: dict[str, Any] = {"type": "string", "format": "binary", "maxLength": settings.body_bytes}
    binary["description"] = f"a picture of at most {settings.picture_pixels} pixels"
    form: dict[str, Any] = {"type": "object", "required": ["image"], "properties": {"image": binary, **call, **fields}}
    form["additionalProperties"] = False
    document = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": BASE64, **call, **fields},
        "additionalProperties": False,
    }
    pictures = ("image/png", "image/jpeg", "image/webp", "image/tiff", "image/bmp", "image/gif")
    return {
        "summary": "Make a mesh of a picture, or find it",
        "description": (
            f"A body of at most {settings.body_bytes} bytes, a picture of at most {settings.picture_pixels} pixels. "
            "A stored result answers at once (200); else the accepted "
            "job (202), or the finished one when it is ready within `wait` seconds (also as `Prefer: wait=N`). "
            "The header `Idempotency-Key` is honoured (a key used for another request: 422); "
            "`Cache-Control: no-cache` computes anew."
        ),
        "responses": {
            200: {"description": "The finished generation"},
            202: {"description": "The accepted generation; Location names it"},
        },
        "openapi_extra": {
            "parameters": [
                *_in("query", {**call, **fields}),
                *_in("header", {"Prefer": {"type": "string"}}),
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {"schema": form},
                    "application/json": {"schema": document},
                    **{kind: {"schema": binary} for kind in pictures},
                },
            },
        },
    }


def schema(parameter: Parameter) -> dict[str, Any]:
    """A parameter's JSON schema."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    told: dict[str, Any] = {
        "type": kinds[type(parameter.default)],
        "default": parameter.default,
        "description": f"{parameter.help}; {parameter.allowed()}",
    }
    if parameter.choices:
        told["enum"] = list(parameter.choices)
    if parameter.low is not None:
        told["minimum"] = parameter.low
    if parameter.high is not None:
        told["maximum"] = parameter.high
    return told


def _in(place: str, schemas: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return [{"name": name, "in": place, "required": False, "schema": told} for name, told in schemas.items()]
