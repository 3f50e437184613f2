"""The name of the request being served: in its answer, its log lines and its trace."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

request: ContextVar[str] = ContextVar("meshkiln-request", default="")
"""The request that the running code works for; empty when that is none or many."""
_GOOD = re.compile(r"[A-Za-z0-9._-]{1,64}")


def begin(given: str = "") -> str:
    """Name the request that is served from here on: as its caller did, when that is a word, else by chance."""
    name = given if _GOOD.fullmatch(given) else secrets.token_hex(8)
    request.set(name)
    return name
