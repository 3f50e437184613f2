"""A subject before a natural background: a central figure whose colours differ from those around it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 224
"""Longest side in pixels at which the subject is cut; alpha is refined at full size afterwards."""

COARSE = 144
"""Longest side at which the hypotheses are cut that vote on where the subject is."""

_BACKGROUND, _SUBJECT = cv2.GC_BGD, cv2.GC_FGD
_PERHAPS_BACKGROUND, _PERHAPS_SUBJECT = cv2.GC_PR_BGD, cv2.GC_PR_FGD

# Chosen of 12 such hypotheses, alone and in sets of up to five, on the tuning half of `benchmarks/matte.py`.
_ELLIPSES = ((0.7, 0.15, 1.0), (0.5, 0.2, 0.9))
"""(perhaps subject within, surely subject within, surely background beyond), in half-sides of the picture."""
_BOX = 0.76
"""Share of each side within which all is perhaps subject, in the third hypothesis."""
_BAND = 8
"""Pixels at the coarse scale by which the last cut may move the majority's edge."""


def separate(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool, true on the subject; nowhere when nothing stands out.

    rgb : (H, W, 3) uint8 sRGB
    GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004) from three central figure-ground hypotheses, as in constrained
    parametric min-cuts (Carreira, Sminchisescu, CVPR 2010); their majority seeds a last cut at a finer scale.
    """
    height, width = rgb.shape[:2]
    coarse, fine = _reduced(rgb, COARSE), _reduced(rgb, SIDE)
    hypotheses = [_ellipse(coarse, *radii) for radii in _ELLIPSES] + [_box(coarse, _BOX)]
    cuts = [_parts(_cut(coarse, trimap)) for trimap in hypotheses]
    majority = np.stack(cuts).sum(axis=0) >= 2
    subject = _parts(_cut(fine, _near_edge_of(majority, fine.shape[1], fine.shape[0])))
    full = cv2.resize(subject.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def _reduced(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _ellipse(rgb: NDArray[np.uint8], perhaps: float, surely: float, beyond: float) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y + 0.5) / height * 2 - 1, (x + 0.5) / width * 2 - 1)
    trimap = np.full((height, width), _PERHAPS_BACKGROUND, np.uint8)
    trimap[radius < perhaps] = _PERHAPS_SUBJECT
    trimap[radius < surely] = _SUBJECT
    trimap[radius > beyond] = _BACKGROUND
    ring = max(1, round(0.03 * max(height, width)))
    for edge in (np.s_[:ring], np.s_[-ring:], np.s_[:, :ring], np.s_[:, -ring:]):
        trimap[edge] = _BACKGROUND
    return trimap


def _box(rgb: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    trimap = np.full((height, width), _BACKGROUND, np.uint8)
    trimap[top : height - top, left : width - left] = _PERHAPS_SUBJECT
    return trimap


def _near_edge_of(subject: NDArray[Any], width: int, height: int) -> NDArray[np.uint8]:
    """The trimap (height, width) that is sure of `subject` and its background but for a band along their border."""
    inside = subject.astype(np.uint8)
    kernel = np.ones((2 * _BAND + 1, 2 * _BAND + 1), np.uint8)
    trimap = np.where(subject, _PERHAPS_SUBJECT, _PERHAPS_BACKGROUND).astype(np.uint8)
    trimap[cv2.erode(inside, kernel) > 0] = _SUBJECT
    trimap[cv2.dilate(inside, kernel) == 0] = _BACKGROUND
    return np.asarray(cv2.resize(trimap, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _cut(rgb: NDArray[np.uint8], trimap: NDArray[np.uint8], rounds: int = 3) -> NDArray[np.bool_]:
    cv2.setRNGSeed(0)  # of this thread: GrabCut's k-means draws from it
    try:
        cv2.grabCut(rgb, trimap, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels of one kind for a colour model
        return np.zeros(trimap.shape, bool)
    return np.asarray((trimap == _SUBJECT) | (trimap == _PERHAPS_SUBJECT))


def _parts(subject: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of at least a tenth of the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return np.zeros_like(subject)
    area = stats[1:, cv2.CC_STAT_AREA]
    return np.asarray(np.concatenate([[False], area >= 0.1 * area.max()])[labels])
