"""Stage `preview`: a cut-out as a small picture, for people who wait for the mesh. No other stage reads it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from meshkiln.engines.picture.matte import reduced

if TYPE_CHECKING:
    from meshkiln.engines.base import Value, Work

SIDE = 512
"""Longest side of a preview in pixels."""


def preview(batch: Sequence[Work]) -> list[Value]:
    """A PNG (RGBA, longest side ≤ `SIDE`) for each item, whose input is `matte`'s value."""
    return [_png(work) for work in batch]


def _png(work: Work) -> bytes:
    out = io.BytesIO()
    Image.fromarray(reduced(work.inputs[0]["pixels"], SIDE), "RGBA").save(out, "PNG")
    return out.getvalue()
