"""The sampling grid that both decoders share, and the surface they return.

R is the number of *cells* along an axis, as in Hunyuan3D's `octree_resolution`; there are R + 1 samples, at
(i / R) · 2·half − half for i = 0…R, so the first and the last lie on the box's faces exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Field = Callable[[F32], F32]
"""Points (N, 3) float32 in the box → logits (N,) float32: positive inside, surface at 0."""

OUTSIDE = -1e-6
"""What a sample on the box's faces is at most: outside the box is empty, so a field that leaves it is cut there."""


class Mesh(NamedTuple):
    """A closed, outward-wound triangle surface in the frame of the field; empty arrays when nothing is inside.

    vertices : (V, 3) float32
    faces : (F, 3) int32
    """

    vertices: F32
    faces: NDArray[np.int32]

    @classmethod
    def empty(cls) -> Mesh:
        """The surface of a field that is nowhere positive."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def axis(resolution: int, half: float = 1.0) -> F32:
    """Coordinates (R + 1,) of the samples along each axis. Raises ValueError for fewer than two cells."""
    if resolution < 2:
        raise ValueError(f"a grid of {resolution} cells has no inner sample; the resolution must be at least 2")
    return (np.arange(resolution + 1) / resolution * (2 * half) - half).astype(np.float32)


def on_faces(index: NDArray[np.integer[Any]], resolution: int) -> NDArray[np.bool_]:
    """Which of the samples (…, 3) lie on the box's faces."""
    found = (index <= 0) | (index >= resolution)
    return found[..., 0] | found[..., 1] | found[..., 2]
