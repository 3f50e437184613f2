"""The picture as a mesh's colours: projected along the view, the hidden side mirrored, edges without background."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SURE = 0.9
"""Share of full opacity from which a pixel shows the object alone; below it, background shines through."""

MARGIN = 4
"""Pixels kept around the projected mesh, so that filtering at its border finds colours."""


def place(vertices: NDArray[Any], uv_project: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where vertices lie in the cut-out.

    vertices : (V, 3) float, in the mesh's frame
    uv_project : (3, 4), homogeneous vertex to homogeneous (u, v)
    Returns (V, 2) float64, (0, 0) the upper left corner of the picture, (1, 1) the lower right one.
    """
    moved = vertices.astype(np.float64) @ uv_project[:, :3].T + uv_project[:, 3]
    spot: NDArray[np.float64] = moved[:, :2] / moved[:, 2:]
    return spot


def paint(
    vertices: NDArray[Any], uv_project: NDArray[np.float64], pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A texture and each vertex's place on it. A point behind another gets the same colour, mirrored as it were.

    vertices : (V, 3) float; uv_project : (3, 4); pixels : (H, W, 4) uint8, the cut-out
    Returns (h, w, 3) uint8, the part of the picture that the mesh covers with every pixel coloured as the object, and
    (V, 2) float64 from its upper left corner (0, 0) to its lower right one (1, 1).
    """
    size = np.array([pixels.shape[1], pixels.shape[0]])
    spots = place(vertices, uv_project) * size
    low = np.clip(np.floor(spots.min(axis=0)).astype(int) - MARGIN, 0, size - 1)
    high = np.clip(np.ceil(spots.max(axis=0)).astype(int) + MARGIN, low + 1, size)
    part = filled(pixels[low[1] : high[1], low[0] : high[0]])
    return part, np.clip((spots - low) / (high - low), 0, 1)


def filled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object's colours, carried on over its edge and over everything that is not the object.

    pixels : (H, W, 4) uint8, straight alpha
    Returns (H, W, 3) uint8. Pixels on the edge, where the background still shines through, take the colour of the
    nearest one that shows the object alone; thin features, which are all edge, keep theirs.
    """
    colour, alpha = np.ascontiguousarray(pixels[..., :3]), pixels[..., 3]
    sure = (alpha >= SURE * alpha.max()).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(sure, cross, borderType=cv2.BORDER_REPLICATE)
    known = inner | (sure & (cv2.dilate(inner, np.ones((5, 5), np.uint8)) == 0))
    if known.all():
        return colour
    _, label = cv2.distanceTransformWithLabels(1 - known, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    # Label 1 … n of the nearest known pixel → its colour.
    palette = np.zeros((int(label.max()) + 1, 3), np.uint8)
    is_known = known > 0
    palette[label[is_known]] = colour[is_known]
    spread = palette[label]
    # Nearest colours come in streaks; smoothed, they are a plausible ground and compress well.
    soft = cv2.GaussianBlur(spread, (0, 0), 3)
    far = cv2.dilate(known, np.ones((5, 5), np.uint8)) == 0
    spread[far] = soft[far]
    return spread


def colours(texture: NDArray[np.uint8], spots: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(V, 3) uint8 colours of the texture (h, w, 3) at (V, 2) places from upper left (0, 0) to lower right (1, 1)."""
    x, y = (spots * (texture.shape[1], texture.shape[0]) - 0.5).astype(np.float32).T
    # OpenCV samples pictures of fewer than 2¹⁵ rows, so the vertices stand in columns of that.
    picked = [
        cv2.remap(
            texture, x[i : i + 32_000, None], y[i : i + 32_000, None], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        for i in range(0, len(x), 32_000)
    ]
    return np.concatenate(picked).reshape(-1, 3).astype(np.uint8, copy=False)
