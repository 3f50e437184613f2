"""A subject before a natural background: a centred figure whose colours differ from those of the picture's border."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 224
"""Longest side in pixels at which colour models are fitted and cut."""


def separate(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool, true on the subject; nowhere when nothing stands out.

    rgb : (H, W, 3) uint8 sRGB
    GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004) from an elliptical prior.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    trimap = _prior(size[1], size[0])
    cv2.setRNGSeed(0)  # of this thread: GrabCut's k-means draws from it
    try:
        cv2.grabCut(small, trimap, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of either kind for a colour model
        return np.zeros((height, width), bool)
    subject = _parts((trimap & 1).astype(bool))
    full = cv2.resize(subject.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def _prior(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y + 0.5) / height * 2 - 1, (x + 0.5) / width * 2 - 1)
    trimap = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    trimap[radius < 0.6] = cv2.GC_PR_FGD
    trimap[radius < 0.12] = cv2.GC_FGD
    trimap[radius > 1.0] = cv2.GC_BGD
    ring = max(1, round(0.03 * max(height, width)))
    for edge in (np.s_[:ring], np.s_[-ring:], np.s_[:, :ring], np.s_[:, -ring:]):
        trimap[edge] = cv2.GC_BGD
    return trimap


def _parts(subject: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of at least a tenth of the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return np.zeros_like(subject)
    area = stats[1:, cv2.CC_STAT_AREA]
    return np.asarray(np.concatenate([[False], area >= 0.1 * area.max()])[labels])
