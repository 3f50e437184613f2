"""The page /docs: the OpenAPI description for reading, without a script and without a request to anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

from fastapi import FastAPI, Response

from meshkiln.gateway.studio import HEADERS

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>API · Meshkiln</title>
<link rel="icon" href="/studio/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/studio/style.css">
</head>
<body>
<header><a class="brand" href="/"><img src="/studio/icon.svg" alt="" width="26" height="26">Meshkiln</a>
<nav aria-label="Pages"><a href="/">Studio</a><a href="/operations">Operations</a>
<a href="/docs" aria-current="page">API</a></nav></header>
<main>
<h1>API</h1>
<p>{lead} The description for machines is <a href="/openapi.json">/openapi.json</a>.</p>
{body}
</main>
</body>
</html>
"""


def add(app: FastAPI) -> None:
    """Serve the description of `app` at /docs."""

    @cache
    def page() -> str:
        return html(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page(), headers=HEADERS, media_type="text/html; charset=utf-8")


def html(description: dict[str, Any]) -> str:
    """An OpenAPI description as a page: operations by tag, their parameters, bodies and answers."""
    tags: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                tag = (operation.get("tags") or ["other"])[0]
                tags.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    body = "".join(f"<h2>{escape(tag.capitalize())}</h2>" + "".join(operations) for tag, operations in tags.items())
    return _PAGE.format(lead=escape(description["info"].get("description", "")), body=body)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    summary = escape(operation.get("summary", ""))
    yield f"<details><summary><code>{method.upper()} {escape(path)}</code> {summary}</summary>"
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    if given := operation.get("parameters"):
        yield "<p>Parameters</p><ul>"
        for parameter in given:
            needed = ", required" if parameter.get("required") else ""
            yield f"<li><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}{needed})"
            yield f" {_limits(parameter.get('schema', {}))} {escape(parameter.get('description', ''))}</li>"
        yield "</ul>"
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{escape(media)}</code></p>"
        if properties := content.get("schema", {}).get("properties"):
            yield "<ul>"
            for name, schema in properties.items():
                about = escape(schema.get("description", ""))
                yield f"<li><code>{escape(name)}</code> {_limits(schema)} {about}</li>"
            yield "</ul>"
    yield "<p>Answers</p><ul>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<li><code>{escape(str(status))}</code> {escape(answer.get('description', ''))}</li>"
    yield "</ul></details>"


def _limits(schema: dict[str, Any]) -> str:
    """Type, range, choices and default of a value, in words."""
    words = [str(schema[key]) for key in ("type",) if isinstance(schema.get(key), str)]
    if "enum" in schema:
        words.append("one of " + ", ".join(map(str, schema["enum"])))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        words.append(
            f"from {low} to {high}" if None not in (low, high) else f"from {low}" if high is None else f"to {high}"
        )
    if schema.get("default") is not None:
        words.append(f"default {schema['default']}")
    return escape("; ".join(words))
