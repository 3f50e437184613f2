"""The pinhole that a picture was probably taken from: the model's frame is free of perspective, the picture is not.

A camera looks along −z from (0, 0, distance) and its crop is a square window in the plane z = 0. The crop was fitted
around what the picture shows, and the mesh is not quite that: distance and window are taken under which the mesh's
silhouette agrees best with the cut-out's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.crop import FILL
from meshkiln.engines.vecset.grid import F32, Mesh

F64 = NDArray[np.float64]

OUTLINE = 128
"""Side of the outline in pixels. What is splatted covers each pixel that it touches, which a coarser one feels."""

SPLATTED = 30_000
"""Points of the surface that a silhouette is splatted from: a few a pixel of what they cover."""

NEARNESS = np.linspace(0, 0.45, 10)
"""1 / distance that is tried: from no perspective to the widest view that training pictures have (50°)."""

STEPS = (0.03, 0.015, 0.008)
"""By how much of half its window the best camera is moved and zoomed; the last is half a pixel."""


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
    return _fitted(x / depth, y / depth, nearness)


def fit(mesh: Mesh, outline: NDArray[np.bool_]) -> Camera:
    """The camera from which the mesh looks most like the outline (S, S), row 0 at the top; the farthest of equals.

    From each distance the window is tried that a crop of the mesh would have, and the one in which its silhouette has
    the outline's area and centroid: they bear with a limb that is missing or too long, whose are the extents. The best
    of all is then moved and zoomed while that helps.
    """
    points = mesh.vertices
    if len(points) == 0:
        return Camera(0.0, (0.0, 0.0), 1.0)
    if not outline.any():
        # Of a hairline no pixel is half covered, and what covers nothing has no centroid.
        return looking(points, 0.0)
    if len(points) < SPLATTED:
        # Sparse vertices would leave holes in what is splatted.
        points = np.concatenate([points, *(points[mesh.faces[:, [k, k - 1]]].mean(axis=1) for k in range(3))])
    x, y, z = np.ascontiguousarray(points[:: max(1, len(points) // SPLATTED)].T, np.float32)
    wanted = _moments(outline)
    best, chosen, its = -1.0, looking(points, 0.0), (x, y)
    for nearness in NEARNESS[NEARNESS * float(z.max()) < 0.8]:
        closer = 1 / (1 - z * np.float32(nearness))
        at = x * closer, y * closer
        start = _fitted(*at, float(nearness))
        fitted = _silhouette(*at, start, len(outline))
        moved = _matched(start, _moments(fitted), wanted)
        for camera, seen in ((start, fitted), (moved, _silhouette(*at, moved, len(outline)))):
            agreement = _agreement(seen, outline)
            if agreement > best + 1e-3:
                best, chosen, its = agreement, camera, at
    return _climbed(*its, chosen, best, outline)


def _climbed(x: F32, y: F32, camera: Camera, best: float, outline: NDArray[np.bool_]) -> Camera:
    """The camera moved and zoomed as long as the silhouette of points (N,) of the image plane agrees better."""
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for along in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                dx, dy, zoom = (step * camera.half * k for k in along)
                centre = camera.centre[0] + dx, camera.centre[1] + dy
                other = Camera(camera.nearness, centre, camera.half + zoom)
                agreement = _agreement(_silhouette(x, y, other, len(outline)), outline)
                if agreement > best + 1e-4:
                    best, camera, improved = agreement, other, True
    return camera


def _agreement(seen: NDArray[np.bool_], outline: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return int(np.count_nonzero(seen & outline)) / max(int(np.count_nonzero(seen | outline)), 1)


def _fitted(x: F32 | F64, y: F32 | F64, nearness: float) -> Camera:
    """The camera whose window fits the points (N,) of the image plane as a crop would."""
    left, right, bottom, top = float(x.min()), float(x.max()), float(y.min()), float(y.max())
    return Camera(nearness, ((left + right) / 2, (bottom + top) / 2), max(right - left, top - bottom) / 2 / FILL)


def _silhouette(x: F32, y: F32, camera: Camera, size: int) -> NDArray[np.bool_]:
    """(size, size): what points (N,) of the image plane cover of the camera's window."""
    scale = np.float32(size / 2 / camera.half)
    column = ((x - np.float32(camera.centre[0])) * scale + size / 2).astype(np.int32)
    row = ((np.float32(camera.centre[1]) - y) * scale + size / 2).astype(np.int32)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    covered = np.zeros(size * size, bool)
    covered[(row * size + column)[inside]] = True
    return covered.reshape(size, size)


Moments = tuple[float, float, float]
"""Of a silhouette: its area, and x and y of its centroid, in the window, [−1, 1]²."""


def _moments(seen: NDArray[np.bool_]) -> Moments:
    size = len(seen)
    row, column = np.nonzero(seen)
    area = len(row) * 4 / size**2
    return area, (float(column.mean()) + 0.5) / size * 2 - 1, 1 - (float(row.mean()) + 0.5) / size * 2


def _matched(camera: Camera, seen: Moments, wanted: Moments) -> Camera:
    """The camera moved and zoomed so that what has moments `seen` through it has those `wanted`."""
    half = camera.half * (seen[0] / wanted[0]) ** 0.5
    x, y = (camera.centre[k] + seen[1 + k] * camera.half - wanted[1 + k] * half for k in range(2))
    return Camera(camera.nearness, (x, y), half)
