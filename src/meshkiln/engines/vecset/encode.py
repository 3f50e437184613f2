"""Stage `encode`: the cut-out, recentred as in training, becomes image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.base import Work
from meshkiln.engines.vecset import crop, runtime
from meshkiln.engines.vecset.camera import OUTLINE

if TYPE_CHECKING:
    from meshkiln.engines.base import Value


def warm() -> None:
    """Load the graph."""
    runtime.session("encoder.onnx")


def encode(batch: Sequence[Work]) -> list[Value]:
    """The stage: for each cut-out `{"pixels"}`, what the model and the texture need to know of it.

    tokens : (T, C) float32
    outline : (128, 16) uint8, the crop's silhouette as packed bits
    window : (4,) float64, where the crop is in the cut-out: (u, v) of its middle, and half its width and height
    """
    cutouts = [work.inputs[0]["pixels"] for work in batch]
    tokens = runtime.run("encoder.onnx", image=np.stack([crop.recentre(pixels) for pixels in cutouts]))
    return [
        {"tokens": its, "outline": np.packbits(outline(pixels), axis=1), "window": window(pixels)}
        for its, pixels in zip(tokens, cutouts, strict=True)
    ]


def outline(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The silhouette (128, 128) of the crop that the model sees of a cut-out (H, W, 4)."""
    seen: NDArray[np.bool_] = crop.recentre(pixels, OUTLINE, slice(3, 4))[0] >= 0.5
    return seen


def window(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the crop is in the cut-out (H, W, 4): (u, v) of its middle and half its width and height, in [0, 1]."""
    height, width = pixels.shape[:2]
    cx, cy, side = crop.window(pixels[..., 3])
    return np.array([cx / width, cy / height, side / 2 / width, side / 2 / height])
