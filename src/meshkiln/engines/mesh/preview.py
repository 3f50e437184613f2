"""Stage `preview`: a finished mesh as a small picture, for people who look for one among many. No other reads it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshkiln.render import render

if TYPE_CHECKING:
    from meshkiln.engines.base import Value, Work

SIDE = 384
"""Pixels along each side."""


def preview(batch: Sequence[Work]) -> list[Value]:
    """A PNG (RGBA, transparent around the mesh) for each item, whose input is the bytes of a mesh file."""
    return [_png(work) for work in batch]


def _png(work: Work) -> bytes:
    out = io.BytesIO()
    render(work.inputs[0], views=("three-quarter",), size=SIDE, background=None).save(out, "PNG")
    return out.getvalue()
