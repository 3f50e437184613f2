"""Logs as JSON lines or as text, each with the request and the trace it belongs to.

What a line tells is chosen where it is written: never a picture's content, nor what callers send to be recognised by.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from meshkiln.telemetry import names

REQUESTS = "meshkiln.requests"
"""The logger of a line for each request and each generation; silent unless asked for."""


class Json(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, request, trace, and its `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= _about(record)
        if record.exc_info and record.exc_info[0] is not None:
            told["error"] = record.exc_info[0].__name__
            told["stack"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


class Plain(logging.Formatter):
    """A record as a line of text: what `Json` tells besides the message stands behind it as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without its end and the stack below it."""
        return super().formatMessage(record) + "".join(f" {n}={_word(value)}" for n, value in _about(record).items())


def _word(value: Any) -> str:
    """A value that ends where a space is, and tells of no other line."""
    text = str(value)
    plain = text.isprintable() and not set(text) & set(' "=')
    return text if text and plain else json.dumps(text)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    """Request, trace and fields of a record."""
    request = names.request.get()
    return {**({"request": request} if request else {}), **_trace(), **getattr(record, "fields", {})}


def _trace() -> dict[str, str]:
    """The trace and span that are current, if there are traces at all."""
    traces = sys.modules.get("opentelemetry.trace")
    if traces is None:
        return {}
    context = traces.get_current_span().get_span_context()
    return {"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"} if context.is_valid else {}


def begin(as_json: bool, requests: bool) -> None:
    """Log to standard error from here on. requests : with a line for each request and generation"""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if as_json else Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if as_json:
        # The HTTP server writes through handlers of its own unless told otherwise.
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    logging.getLogger(REQUESTS).setLevel(logging.INFO if requests else logging.WARNING)


def tell(message: str, **fields: Any) -> None:
    """One line of the log of requests."""
    logging.getLogger(REQUESTS).info(message, extra={"fields": fields})
