"""A cut-out's silhouette on the working grid, with its border between the nodes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from meshkiln.errors import BadPicture

GRID = 256
"""Cells along the longer side of the cut-out."""

ENLARGE = 4.0
"""A small cut-out is enlarged no further than this: there is no more to see."""

BLUR = 0.6
"""Standard deviation of the smoothing in cells; never below one pixel, for a hard-edged cut-out has stairs."""

SPECK = 12
"""Parts and holes of fewer nodes are noise of the matte, unless they are large beside the largest part."""
SPECK_SHARE = 0.01


class Silhouette(NamedTuple):
    """level : (h, w) float32, > 0 inside, < 0 outside, outside all along the edge of the grid.

    to_picture : (x0, y0, step): node (row, column) lies at picture point (x0 + column·step, y0 + row·step), where
        pixel (0, 0) covers [0, 1)²
    """

    level: NDArray[np.float32]
    to_picture: tuple[float, float, float]


def sample(alpha: NDArray[np.uint8], grid: int = GRID) -> Silhouette:
    """The silhouette, smoothed to what the grid can show; what is thinner than a cell is kept, a cell and a half wide.

    alpha : (H, W) uint8; the border lies where it crosses half of its maximum
    Raises BadPicture when alpha is zero everywhere, or where it is not are specks that all fall between the nodes.
    """
    peak = int(alpha.max(initial=0))
    if peak == 0:
        raise BadPicture("the cut-out is fully transparent; give a picture that shows an object")
    opaque = alpha > peak / 2
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    step = max(max(bottom - top, right - left) / grid, 1 / ENLARGE)
    # Empty ground all round, so that blurring and sampling never meet an edge.
    pad = int(np.ceil(3 * step)) + 3
    part = np.pad(alpha[top:bottom, left:right], pad)
    level = cv2.GaussianBlur(part.astype(np.float32), (0, 0), max(BLUR * step, 1.0)) * (2 / peak) - 1
    level = np.maximum(level, _lines((part > peak / 2).astype(np.uint8), (level > 0).astype(np.uint8), step))
    width, height = (int(np.ceil(side / step)) + 4 for side in (right - left, bottom - top))
    # In `part`, pixel (0, 0) has its centre at (0, 0) for OpenCV.
    x = part.shape[1] / 2 - 0.5 - (width - 1) / 2 * step
    y = part.shape[0] / 2 - 0.5 - (height - 1) / 2 * step
    matrix = np.array([[step, 0, x], [0, step, y]])
    nodes = cv2.warpAffine(
        level,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=-1.0,
    )
    nodes[[0, -1], :] = nodes[:, [0, -1]] = -1.0
    if not (nodes > 0).any():
        raise BadPicture("the cut-out is a few specks far apart; give a picture that shows an object")
    to_picture = (x + 0.5 + left - pad, y + 0.5 + top - pad, step)
    return Silhouette(_without_specks(nodes.astype(np.float32, copy=False)), to_picture)


def _lines(solid: NDArray[np.uint8], smooth: NDArray[np.uint8], step: float) -> NDArray[np.float32]:
    """Features too thin to survive smoothing, such as antennas, drawn a cell or more wide, as a level.

    Rounded corners are lost too, but lie close to what is kept; a line reaches away from it.
    """
    nothing = np.full(solid.shape, -1.0, np.float32)
    reach = max(int(np.ceil(step)), 1) | 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach + 2, reach + 2))
    thick = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, brush)
    lost = (solid & (thick == 0)).astype(np.uint8)
    if not lost.any():
        return nothing
    away = cv2.distanceTransform(1 - thick, cv2.DIST_L2, 3) if thick.any() else np.full(solid.shape, np.inf)
    _, label = cv2.connectedComponents(lost, connectivity=8)
    line = np.isin(label, np.unique(label[(lost > 0) & (away > 2 * step + 2)])) & (lost > 0)
    if not line.any():
        return nothing
    inward = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    ridge = line & (inward > cv2.dilate(inward, np.ones((3, 3), np.uint8)) - 0.3)
    width = 0.6 * max(step, 1.0)
    drawn = cv2.GaussianBlur(ridge.astype(np.float32), (0, 0), width) * (2 * width * np.sqrt(2 * np.pi)) - 1
    level: NDArray[np.float32] = np.minimum(drawn, 0.5).astype(np.float32)
    return level


def _without_specks(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """Parts and holes too small to mean anything, gone."""
    for sign in (1.0, -1.0):
        # Diagonal neighbours count as joined inside and as apart outside, as border and interior must differ.
        one = (sign * level > 0).astype(np.uint8)
        _, label, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8 if sign > 0 else 4)
        area = stats[1:, cv2.CC_STAT_AREA]
        if len(area) == 0:
            continue
        small = (area < SPECK) & (area < SPECK_SHARE * area.max())
        noise = np.isin(label, 1 + np.flatnonzero(small))
        level = np.where(noise, np.float32(-0.5 * sign), level)
    return level
