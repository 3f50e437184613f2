"""A subject before a plain background: studio paper, a render's ground colour, a smooth gradient with soft shadows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 6.0
"""CIELAB distance within which a border pixel follows the background's colour surface."""


def separate(rgb: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """(H, W) bool, true on the subject, or None when the background is not plain.

    rgb : (H, W, 3) uint8 sRGB
    The background is a quadratic surface in CIELAB through the picture's border. It reaches as far as pixels follow
    it, connected to the border, and on through soft shadows; what shows through the subject's holes is background too.
    """
    ground = _ground(rgb)
    noise = ground.noise
    if ground.share < (0.6 if noise < 0.7 else 0.75):
        return None
    lab = _lab(rgb)
    surface = ground.surface(*rgb.shape[:2])
    difference = _norm(lab - surface)
    near = difference < max(5.0, 4 * noise)
    behind = _touching_border(near) | _holes(near, difference, noise)
    behind = _through_shadows(lab, surface, behind, noise)
    # What is left of a shadow is its faint rim: a seam too thin to be part of a thing that is so hard to see.
    solid = cv2.morphologyEx((~behind).astype(np.uint8), cv2.MORPH_OPEN, _disc(0.015 * max(behind.shape)))
    subject = _without_specks(~behind & ((difference > 16.0) | solid.astype(bool)))
    # Dark foliage follows a surface too, but leaves and all that is lit among them then stand at the border.
    return subject if np.mean(_border_of(subject)) < 0.1 else None


@dataclass(frozen=True, slots=True)
class _Ground:
    """The background's colour: `fit` (6, 3) over `_terms`, between `low` and `high` (3,), in CIELAB.

    share : of the border's pixels that follow it; noise : their median distance from it
    """

    fit: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    share: float
    noise: float

    def surface(self, height: int, width: int) -> NDArray[np.float32]:
        """(height, width, 3) float32."""
        y = (np.arange(height) / height * 2 - 1)[:, None]
        x = (np.arange(width) / width * 2 - 1)[None, :]
        out = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            one, by_x, by_y, by_xx, by_xy, by_yy = self.fit[:, channel]
            rows, columns = one + by_y * y + by_yy * y * y, by_x * x + by_xx * x * x
            np.clip(rows + columns + (by_xy * y) * x, self.low[channel], self.high[channel], out=out[..., channel])
        return out


def _ground(rgb: NDArray[np.uint8]) -> _Ground:
    """The colour that most of the picture's border follows."""
    height, width = rgb.shape[:2]
    ring = max(1, round(0.02 * max(height, width)))
    border = np.ones((height, width), bool)
    border[ring : height - ring, ring : width - ring] = False
    rows, columns = np.nonzero(border)
    every = max(1, len(rows) // 6000)
    rows, columns = rows[::every], columns[::every]
    seen = _lab(rgb[rows, columns][None])[0].astype(np.float64)
    middle = np.median(seen, axis=0)
    colour = middle
    for _ in range(3):
        same = np.linalg.norm(seen - colour, axis=1) < _TOLERANCE
        colour = np.median(seen[same], axis=0) if same.any() else colour
    y, x = rows / height * 2 - 1, columns / width * 2 - 1
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    distance = np.linalg.norm(seen - middle, axis=1)
    followers = distance < 15.0
    fit = np.zeros((6, 3))
    for tolerance in (2 * _TOLERANCE, 1.3 * _TOLERANCE, _TOLERANCE, _TOLERANCE):
        if np.mean(followers) < 0.2:
            return _Ground(fit, middle, middle, 0.0, float("inf"))
        fit = np.linalg.lstsq(terms[followers], seen[followers], rcond=None)[0]
        distance = np.linalg.norm(terms @ fit - seen, axis=1)
        followers = distance < tolerance
    # One colour is the better account of studio white and of a render's ground: a surface bends towards the subject.
    if np.mean(same) >= 0.95 * np.mean(followers):
        distance = np.linalg.norm(seen - colour, axis=1)
        return _Ground(fit, colour, colour, float(np.mean(same)), float(np.median(distance[same])))
    if not followers.any():
        return _Ground(fit, middle, middle, 0.0, float("inf"))
    low, high = seen[followers].min(axis=0) - 2, seen[followers].max(axis=0) + 2
    return _Ground(fit, low, high, float(np.mean(followers)), float(np.median(distance[followers])))


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)


def _norm(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Lengths along the last axis; numpy's reductions are slow over so short a one."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), np.float32)


def _border_of(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def _touching_border(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of `region` that touch the picture's border."""
    _, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    at_border = np.unique(_border_of(labels))
    return np.asarray(np.isin(labels, at_border[at_border > 0]))


def _holes(near: NDArray[np.bool_], difference: NDArray[np.float32], noise: float) -> NDArray[np.bool_]:
    """Enclosed regions through which the background shows: large, as even as itself, and sharply bounded.

    A grey thing before grey passes through the background's colour too, but softly, as its shading goes.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8), connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA]
    mean = np.bincount(labels.ravel(), difference.ravel(), count) / np.maximum(area, 1)
    through = np.zeros_like(near)
    for label in np.flatnonzero((area >= 0.001 * near.size) & (mean < 2.0 + 1.5 * noise)):
        left, top, width, height = stats[label, :4]
        around = np.s_[max(top - 4, 0) : top + height + 4, max(left - 4, 0) : left + width + 4]
        region = labels[around] == label
        rim = cv2.dilate(region.astype(np.uint8), _disc(7)).astype(bool) & ~region
        # No shading dwells on the background's very colour: a region of nothing else may have a blurred rim.
        sharp = 6.0 if mean[label] < 0.3 else 15.0
        if label > 0 and rim.any() and np.median(difference[around][rim]) > sharp:
            through[around] |= region
    return through


def _through_shadows(
    lab: NDArray[np.float32], surface: NDArray[np.float32], behind: NDArray[np.bool_], noise: float
) -> NDArray[np.bool_]:
    """`behind` grown into what is darker background: of its hue, without edges, and wide enough not to be a seam."""
    ratio = lab[..., 0] / np.maximum(surface[..., 0], 1.0)
    tint = _norm(lab[..., 1:] - surface[..., 1:] * np.minimum(ratio, 1.0)[..., None])
    smooth = cv2.GaussianBlur(lab, (0, 0), 1.2)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125)
    slope = np.hypot(_norm(across), _norm(down))
    gentle = min(2.5, max(0.6, 640 / max(behind.shape)))  # CIELAB units a pixel
    shadow = (ratio > 0.3) & (ratio < 1.2) & (tint < 4.0 + noise) & (slope < gentle)
    wide = cv2.morphologyEx((shadow | behind).astype(np.uint8), cv2.MORPH_OPEN, _disc(0.008 * max(behind.shape)))
    return _touching_border(wide.astype(bool) | behind) | behind


def _disc(diameter: float) -> NDArray[np.uint8]:
    size = max(3, round(diameter)) | 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _without_specks(subject: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of at least a hundredth of the largest: the rest is noise of the background."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8), connectivity=8)
    if len(stats) < 2:
        return np.zeros_like(subject)
    area = stats[1:, cv2.CC_STAT_AREA]
    kept = np.concatenate([[False], area >= 0.01 * area.max()])
    return np.asarray(kept[labels])
