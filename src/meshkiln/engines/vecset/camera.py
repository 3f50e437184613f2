"""The pinhole that a picture was probably taken from: the model's frame is free of perspective, the picture is not.

A camera looks along −z from (0, 0, distance) and its crop is a square window in the plane z = 0, fitted around what is
seen as `crop.window` fits it around the cut-out. The distance is what mesh and picture do not tell: the one is taken
under which the mesh's silhouette agrees best with the cut-out's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.crop import FILL
from meshkiln.engines.vecset.grid import F32, Mesh

F64 = NDArray[np.float64]

OUTLINE = 64
"""Side of the outline in pixels."""

SPLATTED = 30_000
"""Points of the surface that a silhouette is splatted from: a dozen a pixel of what they cover."""

NEARNESS = np.linspace(0, 0.45, 10)
"""1 / distance that is tried: from no perspective to the widest view that training pictures have (50°)."""


@dataclass(frozen=True, slots=True)
class Camera:
    """nearness : 1 / distance, 0 for no perspective; centre, half : of the window in the plane z = 0"""

    nearness: float
    centre: tuple[float, float]
    half: float

    def crop(self, points: NDArray[np.floating[Any]]) -> F64:
        """Points (N, 3) of the frame → (N, 2) in the crop, [−1, 1]², x right, y up."""
        depth = 1 - points[:, 2].astype(np.float64) * self.nearness
        return (points[:, :2] / depth[:, None] - self.centre) / self.half

    def matrix(self) -> F64:
        """(3, 4): a vertex (x, y, z, 1) → (crop x·s, crop y·s, s)."""
        s = np.array([0, 0, -self.nearness, 1.0])
        x, y = np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])
        return np.stack([(x - self.centre[0] * s) / self.half, (y - self.centre[1] * s) / self.half, s])


def looking(points: NDArray[np.floating[Any]], nearness: float) -> Camera:
    """The camera at that distance whose window fits the points (N, 3) as a crop would."""
    # As `Camera.crop` with nothing moved, but axis by axis: there are hundreds of thousands of points.
    x, y, z = (points[:, along].astype(np.float64) for along in range(3))
    depth = 1 - z * nearness
    x, y = x / depth, y / depth
    left, right, bottom, top = float(x.min()), float(x.max()), float(y.min()), float(y.max())
    half = max(right - left, top - bottom) / 2 / FILL
    return Camera(nearness, ((left + right) / 2, (bottom + top) / 2), half)


def fit(mesh: Mesh, outline: NDArray[np.bool_]) -> Camera:
    """The camera from which the mesh looks most like the outline (S, S), row 0 at the top; the farthest of equals."""
    points = mesh.vertices
    if len(points) == 0:
        return Camera(0.0, (0.0, 0.0), 1.0)
    if len(points) < SPLATTED:
        # Sparse vertices would leave holes in what is splatted.
        points = np.concatenate([points, *(points[mesh.faces[:, [k, k - 1]]].mean(axis=1) for k in range(3))])
    x, y, z = np.ascontiguousarray(points[:: max(1, len(points) // SPLATTED)].T, np.float32)
    best, chosen = -1.0, 0.0
    for nearness in NEARNESS[NEARNESS * float(z.max()) < 0.8]:
        closer = 1 / (1 - z * np.float32(nearness))
        agreement = _agreement(x * closer, y * closer, outline)
        if agreement > best + 1e-3:
            best, chosen = agreement, float(nearness)
    return looking(mesh.vertices, chosen)


def _agreement(x: F32, y: F32, outline: NDArray[np.bool_]) -> float:
    """Intersection over union of the outline and what points (N,) of the image plane cover, fitted as a crop."""
    size = len(outline)
    low_x, high_x, low_y, high_y = x.min(), x.max(), y.min(), y.max()
    scale = np.float32(size * FILL / max(high_x - low_x, high_y - low_y))
    column = ((x - (low_x + high_x) / 2) * scale + size / 2).astype(np.int32)
    row = ((low_y + high_y) / 2 - y) * scale + size / 2
    splat = np.zeros(size * size, bool)
    splat[row.astype(np.int32) * size + column] = True
    seen = splat.reshape(outline.shape)
    return float((seen & outline).sum() / max((seen | outline).sum(), 1))
