"""Stage `encode`: the cut-out, recentred as in training, becomes image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.base import Work
from meshkiln.engines.vecset import crop, runtime

if TYPE_CHECKING:
    from meshkiln.engines.base import Value


def warm() -> None:
    """Load the graph."""
    runtime.session("encoder.onnx")


def encode(batch: Sequence[Work]) -> list[Value]:
    """The stage: for each cut-out `{"pixels"}`, `{"tokens": (T, C) float32, "uv_project": (3, 4) float64}`."""
    cutouts = [work.inputs[0]["pixels"] for work in batch]
    images = np.stack([crop.recentre(pixels) for pixels in cutouts])
    tokens = runtime.run("encoder.onnx", image=images)
    return [{"tokens": t, "uv_project": uv_project(p)} for t, p in zip(tokens, cutouts, strict=True)]


def uv_project(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """What takes a vertex (x, y, z, 1) of the frame to (u·s, v·s, s): its place in the cut-out, from the upper left.

    The model's frame neglects perspective, so this does too.
    """
    height, width = pixels.shape[:2]
    cx, cy, side = crop.window(pixels[..., 3])
    return np.array(
        [
            [side / 2 / width, 0, 0, cx / width],
            [0, -side / 2 / height, 0, cy / height],
            [0, 0, 0, 1],
        ]
    )
