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
    Raises BadPicture when alpha is zero everywhere.
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
    solid = part > peak / 2
    level = cv2.GaussianBlur(part.astype(np.float32), (0, 0), max(0.45 * step, 0.7)) * (2 / peak) - 1
    thin = _thin(solid, level > 0, step)
    if thin.any():
        # As wide as a cell's diagonal: then its nodes hang together whichever way it runs.
        reach = int(np.ceil(1.5 * step)) | 1
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        level = np.maximum(level, cv2.dilate(thin.astype(np.float32), brush) * 1.5 - 1)
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
    to_picture = (x + 0.5 + left - pad, y + 0.5 + top - pad, step)
    return Silhouette(_without_specks(nodes), to_picture)


def _thin(solid: NDArray[np.bool_], kept: NDArray[np.bool_], step: float) -> NDArray[np.bool_]:
    """The pixels of features that smoothing would lose, such as antennas; not the corners that it rounds off."""
    lost = (solid & ~kept).astype(np.uint8)
    if not lost.any():
        return lost.astype(np.bool_)
    _, label = cv2.connectedComponents(lost, connectivity=8)
    if kept.any():
        away = cv2.distanceTransform((~kept).astype(np.uint8), cv2.DIST_L2, 3) > 1.5 * step + 1
    else:
        away = np.ones(lost.shape, np.bool_)
    features = np.unique(label[away & (lost > 0)])
    found: NDArray[np.bool_] = np.isin(label, features) & (lost > 0)
    return found


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
