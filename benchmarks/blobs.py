"""Pictures to post: as many distinct ones as are wanted, of any size in bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def picture(number: int, pixels: int = 96, noise: bool = False) -> bytes:
    """A coloured blob on white, another for each number; with `noise` about 100 KiB of it."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[-1 : 1 : pixels * 1j, -1 : 1 : pixels * 1j]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    edge = 0.5 + 0.2 * np.cos((2 + number % 5) * angle + random.uniform(0, 6)) * random.uniform(0.2, 1)
    colour = random.integers(20, 230, 3)
    pixels_ = np.where((radius < edge)[..., None], colour, 255).astype(np.uint8)
    if noise:
        inside = (radius < edge)[..., None] * random.integers(0, 20, pixels_.shape)
        pixels_ = (pixels_ - inside).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels_).save(out, "PNG", compress_level=1)
    return out.getvalue()


def padded(data: bytes, size: int) -> bytes:
    """A PNG with so much after its end that it has `size` bytes; decoders do not look there."""
    return data + b"\0" * max(0, size - len(data))
