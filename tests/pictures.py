"""Small pictures for tests, drawn from nothing: shapes before grounds, and the files that carry them."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def file(image: Image.Image | Pixels, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def file_of_16_bits(samples: NDArray[np.uint16], extension: str = ".png") -> bytes:
    """A 16-bit grey (H, W), RGB or RGBA picture; Pillow cannot write one, OpenCV can (in BGR order)."""
    if samples.ndim == 3:
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return bytes(cv2.imencode(extension, np.ascontiguousarray(samples))[1])


def gradient(height: int = 24, width: int = 40, alpha: bool = False) -> Pixels:
    """Every row and column its own colour; with `alpha`, from clear at the left to opaque at the right."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x * 7 + y * 13) % 256]
    if alpha:
        planes.append(np.clip(x * 340 // width - 40, 0, 255))
    return np.stack(planes, axis=-1).astype(np.uint8)


def ring(size: int = 256, outer: float = 0.38, inner: float = 0.18) -> Mask:
    """A disc with a hole."""
    y, x = np.mgrid[:size, :size]
    radius = np.hypot((y + 0.5) / size - 0.5, (x + 0.5) / size - 0.5)
    return np.asarray((radius < outer) & (radius >= inner))


def mug(size: int = 256) -> Mask:
    """A mug with a handle one can see through."""
    image = np.zeros((size, size), np.uint8)
    s = size / 256
    cv2.ellipse(image, (int(168 * s), int(128 * s)), (int(44 * s), int(50 * s)), 0, 0, 360, 1, max(1, int(16 * s)))
    cv2.rectangle(image, (int(60 * s), int(60 * s)), (int(165 * s), int(200 * s)), 1, -1)
    return image.astype(bool)


def painted(mask: Mask, colour: tuple[int, int, int], ground: Pixels | tuple[int, int, int], seed: int = 0) -> Pixels:
    """(H, W, 3): `mask` in a shaded, slightly grainy `colour` before `ground`, antialiased."""
    height, width = mask.shape
    y = np.mgrid[:height, :width][0] / max(1, height)
    grain = np.random.default_rng(seed).normal(0, 2.0, (height, width, 1))
    shaded = np.array(colour) * (1.1 - 0.4 * y)[..., None] + grain
    behind = np.broadcast_to(np.array(ground, np.float64), (height, width, 3))
    share = (
        cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 0.6)[..., None] if min(mask.shape) > 8 else mask[..., None]
    )
    return np.rint(np.clip(shaded * share + behind * (1 - share), 0, 255)).astype(np.uint8)


def foliage(height: int = 256, width: int = 256, seed: int = 1) -> Pixels:
    """A ground with structure at every scale, in greens and browns: noise with a 1/f spectrum."""
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(3):
        total = np.zeros((height, width))
        for octave in range(6):
            cells = 2 << octave
            coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
            total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / (octave + 1.5)
        planes.append(total)
    light, hue, grain = planes
    colour = np.stack([60 + 22 * light + 14 * hue, 85 + 26 * light, 40 + 14 * light + 6 * grain], axis=-1)
    return np.rint(np.clip(colour, 0, 255)).astype(np.uint8)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(1, (a | b).sum()))
