"""The model's view of a picture: recentred on its cut-out, padded, resampled. Training uses this very function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meshkiln.errors import BadPicture

SIZE = 128
"""Side of the model's input in pixels."""

FILL = 0.8
"""Share of the crop's side that the cut-out's longer side takes; equals the shape's half-extent in the frame."""

OPAQUE = 128
"""Alpha from which a pixel counts as object when the bounding box is measured."""


def window(alpha: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The square of the picture that the model sees.

    alpha : (H, W) uint8
    Returns (cx, cy, side) in pixels, with pixel (0, 0) covering [0, 1)². The frame's point (x, y) lies at
    (cx + x·side/2, cy − y·side/2). Raises BadPicture when no pixel has alpha ≥ 128.
    """
    opaque = alpha >= OPAQUE
    rows = np.flatnonzero(opaque.any(axis=1))
    columns = np.flatnonzero(opaque.any(axis=0))
    if rows.size == 0:
        raise BadPicture("the cut-out is empty: no pixel has alpha ≥ 128; give a picture that shows an object")
    top, bottom = float(rows[0]), float(rows[-1] + 1)
    left, right = float(columns[0]), float(columns[-1] + 1)
    return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / FILL


def recentre(rgba: NDArray[np.uint8], size: int = SIZE, channels: slice = slice(None)) -> NDArray[np.float32]:
    """The picture as the model's input.

    rgba : (H, W, 4) uint8, straight alpha
    channels : of them all, those that are wanted
    Returns (4, size, size) float32 in [0, 1], premultiplied, row 0 at the top. Raises BadPicture when the
    cut-out is empty.
    """
    cx, cy, side = window(rgba[..., 3])
    left, top, right, bottom = cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2
    # Pillow's box must lie inside the image, so the square's enclosing pixels are copied onto empty ground first.
    x0, y0 = int(np.floor(left)) - 1, int(np.floor(top)) - 1
    x1, y1 = int(np.ceil(right)) + 1, int(np.ceil(bottom)) + 1
    height, width = rgba.shape[:2]
    seen = rgba[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    alpha = seen[..., 3].astype(np.float32) / np.float32(255)
    oy, ox = max(-y0, 0), max(-x0, 0)
    box = (left - x0, top - y0, right - x0, bottom - y0)
    wanted = range(4)[channels]
    out = np.empty((len(wanted), size, size), np.float32)
    ground = np.zeros((y1 - y0, x1 - x0), np.float32)
    own = ground[oy : oy + seen.shape[0], ox : ox + seen.shape[1]]
    for place, channel in enumerate(wanted):
        # One plane after another: each stays in the cache, where four together do not.
        own[:] = alpha if channel == 3 else seen[..., channel].astype(np.float32) / np.float32(255) * alpha
        plane = Image.fromarray(ground)
        out[place] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return np.clip(out, 0.0, 1.0)
