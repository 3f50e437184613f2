"""Stage `matte`: the subject of a picture, cut out with a soft alpha.

An alpha channel that says something is taken as it is. Otherwise the subject is separated from what is behind it: a
plain background by its colour (`plain`), a natural one by colour models (`natural`). Neither knows what things are: a
second subject, or a subject that is cut off by the picture's edge, may end on the wrong side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.picture import natural, plain
from meshkiln.errors import BadPicture

if TYPE_CHECKING:
    from meshkiln.engines.base import Value, Work

SIDE = 1024
"""Longest side of a cut-out in pixels; larger pictures are reduced, smaller ones kept."""

OPAQUE = 128
"""Alpha from which a pixel counts as subject."""

TRANSPARENT_SHARE = 0.01
"""An alpha channel says something when this share of the pixels is transparent; rounded corners alone do not."""


def matte(batch: Sequence[Work]) -> list[Value]:
    """One {"pixels": (h, w, 4) uint8 cut-out, longest side ≤ 1024} for each item, whose input is `read`'s value.

    Raises BadPicture, as `cut_out` does.
    """
    return [{"pixels": cut_out(work.inputs[0]["pixels"], str(work.parameters["matte"]))} for work in batch]


def cut_out(pixels: NDArray[np.uint8], how: str = "auto") -> NDArray[np.uint8]:
    """The cut-out of a picture: (h, w, 4) uint8, straight alpha, colour zeroed under zero alpha.

    pixels : (H, W, 4) uint8 sRGB, straight alpha
    how : "auto", or "alpha" to use the alpha channel whatever it says
    Raises BadPicture when the picture is fully transparent or no subject stands out from its background.
    """
    alpha = pixels[..., 3]
    if not alpha.any():
        raise BadPicture("the picture is fully transparent; give one that shows an object")
    given = how == "alpha" or float(np.mean(alpha < OPAQUE)) >= TRANSPARENT_SHARE
    small = reduced(pixels)
    if given:
        if not (small[..., 3] >= OPAQUE).any():
            raise BadPicture("no subject found: no pixel of the picture is at least half opaque")
        return small
    # The few transparent pixels that are left here (rounded corners) are background: let them look like it.
    rgb = np.ascontiguousarray(small[..., :3])
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the same sums in the same order on every machine
    try:
        top, bottom, left, right = _inside_bars(rgb)
        framed = np.ascontiguousarray(rgb[top:bottom, left:right])
        subject, band = plain.separate(framed), 2
        if subject is None:
            subject, band = natural.separate(framed), max(2, round(max(framed.shape[:2]) / natural.SIDE))
        mask = np.zeros(rgb.shape[:2], bool)
        mask[top:bottom, left:right] = subject
        mask &= small[..., 3] >= OPAQUE
        if not mask.any():
            raise BadPicture("no subject found: nothing stands out from the background; give a picture of an object")
        return _soft(rgb, mask, band)
    finally:
        cv2.setNumThreads(threads)


def reduced(pixels: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """The picture with its longest side at most `side`, by area averages of premultiplied colour."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if pixels[..., 3].min() == 255:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    # In strips of whole source rows, so that a 50 MP picture is never held in floating point.
    rows = max(1, (1 << 22) // width)
    small = np.zeros((size[1], size[0], 4), np.float32)
    edges = np.arange(size[1] + 1) * (height / size[1])
    step = max(1, int(rows * scale))
    for top in range(0, size[1], step):
        bottom = min(size[1], top + step)
        first, last = int(np.floor(edges[top])), min(height, int(np.ceil(edges[bottom])))
        strip = pixels[first:last].astype(np.float32)
        strip[..., :3] *= strip[..., 3:] / 255.0
        narrow = np.asarray(cv2.resize(strip, (size[0], last - first), interpolation=cv2.INTER_AREA), np.float32)
        small[top:bottom] = _row_averages(narrow, edges[top : bottom + 1] - first)
    alpha = small[..., 3:]
    small[..., :3] *= np.divide(255.0, alpha, out=np.zeros_like(alpha), where=alpha > 0.5)
    small[alpha[..., 0] <= 0.5] = 0
    return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)


def _row_averages(strip: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Area averages of the rows between successive `edges`, which may cut rows."""
    total = np.concatenate([np.zeros((1, *strip.shape[1:])), np.cumsum(strip, axis=0, dtype=np.float64)])
    whole = np.minimum(np.floor(edges).astype(int), len(strip) - 1)
    at = total[whole] + (edges - whole)[:, None, None] * strip[whole]
    return np.asarray(np.diff(at, axis=0) / np.diff(edges)[:, None, None], np.float32)


def _inside_bars(rgb: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what black or white bars letterbox; all of the picture when none do."""
    bounds = []
    for lines in (rgb, rgb.swapaxes(0, 1)):
        count = len(lines)
        colour = np.median(lines[0], axis=0)
        if colour.max() >= 24 and colour.min() <= 231:
            bounds += [0, count]
            continue
        off = cv2.absdiff(lines, np.broadcast_to(colour.astype(np.uint8), lines.shape)) > 24
        other = (off[..., 0] | off[..., 1] | off[..., 2]).mean(axis=1)
        some, most = np.flatnonzero(other > 0.03), np.flatnonzero(other > 0.5)
        # A bar ends along its whole length at once; a plain background ends where the subject begins.
        ends = most.size > count // 4 and most[0] > 0 and most[0] - some[0] <= 2 and some[-1] - most[-1] <= 2
        # Between the bars of a tiny picture there may be nothing left to look at.
        if ends and most[-1] - most[0] > 1:
            bounds += [int(most[0]) + 1, int(most[-1])]
        else:
            bounds += [0, count]
    return bounds[0], bounds[1], bounds[2], bounds[3]


def _soft(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], band: int) -> NDArray[np.uint8]:
    """The cut-out whose alpha falls softly within `band` pixels of the mask's edge, freed of background colour.

    There a pixel is I = αF + (1-α)B with F and B blurred over from either side; α is the projection of I onto B…F,
    drawn towards the mask where F and B are alike. The colour is the estimate of Forte and Pitié, "Approximate fast
    foreground colour estimation", ICIP 2021.
    """
    inside = mask.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    core, reach = cv2.erode(inside, kernel), cv2.dilate(inside, kernel)
    rows, columns = np.nonzero(reach > core)
    pixels = np.dstack([rgb, inside * np.uint8(255)])
    if rows.size:
        # Only what the band can see is blurred.
        far = 4 * band
        top, left = max(0, rows.min() - far), max(0, columns.min() - far)
        window = np.s_[top : rows.max() + far + 1, left : columns.max() + far + 1]
        colour = rgb[window].astype(np.float32) / 255.0
        at = (rows - top, columns - left)
        within, outside = inside[window], 1 - inside[window]
        foreground = _blurred(colour, core[window] + np.float32(0.01) * within, 6 * band + 1)[at]
        background = _blurred(colour, 1 - reach[window] + np.float32(0.01) * outside, 6 * band + 1)[at]
        towards = cv2.blur(within.astype(np.float32), (band + 1 | 1, band + 1 | 1))[at]
        seen, across = colour[at], foreground - background
        firmness = np.float32(0.005)
        share = np.einsum("ij,ij->i", seen - background, across) + firmness * towards
        share = np.clip(share / (np.einsum("ij,ij->i", across, across) + firmness), 0, 1)[:, None]
        clean = foreground + share * (seen - share * foreground - (1 - share) * background)
        pixels[rows, columns] = np.rint(np.clip(np.hstack([clean, share]), 0, 1) * 255).astype(np.uint8)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _blurred(colour: NDArray[np.float32], weight: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    total = np.maximum(cv2.blur(weight, (size, size)), 1e-6)
    weighted = cv2.blur(cv2.multiply(colour, cv2.merge([weight] * 3)), (size, size))
    return np.asarray(cv2.divide(weighted, cv2.merge([total] * 3)), np.float32)
