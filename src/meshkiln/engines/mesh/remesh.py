"""A solid from triangles that bound none: what they enclose, as voxels, extracted anew. The last resort."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MARGIN = 3
"""Empty voxels around the mesh, so that the outside is one region and the surface closes inside the grid."""


def remesh(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], resolution: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The surface of everything that cannot be reached from outside without passing a triangle.

    vertices : (V, 3) float32; faces : (F, 3) int32
    resolution : voxels along the longest side; holes narrower than one voxel are closed, what is reached through
        wider ones becomes a sheet two voxels thick

    After F. Nooruddin and G. Turk, "Simplification and Repair of Polygonal Models Using Volumetric Techniques", IEEE
    TVCG 9, 2003. Returns vertices and faces in the frame of the input.
    """
    from scipy import ndimage
    from skimage import measure

    low, high = vertices.min(axis=0), vertices.max(axis=0)
    voxel = float((high - low).max()) / resolution or 1.0
    origin = low - MARGIN * voxel
    shape = tuple(np.ceil((high - low) / voxel).astype(int) + 2 * MARGIN + 1)
    wall = np.zeros(shape, np.bool_)
    wall[tuple(((_dense(vertices[faces], voxel / 2) - origin) / voxel + 0.5).astype(np.int64).T)] = True
    regions, _ = ndimage.label(~wall)
    solid = regions != regions[0, 0, 0]
    # Smoothing rounds the stairs; half of a wall's voxels lie outside the surface, hence the level above one half.
    soft = ndimage.gaussian_filter(solid.astype(np.float32), 0.8)
    inner = regions > 0
    inner &= solid
    level = 0.6 if inner.any() else 0.4
    marching_cubes: Any = measure.marching_cubes
    points, triangles, _, _ = marching_cubes(soft, level, gradient_direction="ascent")
    return (points * voxel + origin).astype(np.float32), triangles.astype(np.int32)


def _dense(corners: NDArray[np.float32], spacing: float) -> NDArray[np.float32]:
    """Points on triangles (n, 3, 3), no further apart than `spacing`."""
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    pieces = np.maximum(np.ceil(longest / spacing).astype(np.int64), 1)
    points = []
    for count in np.unique(pieces):
        i, j = np.mgrid[: count + 1, : count + 1]
        kept = i + j <= count
        share = np.stack([i[kept], j[kept], count - i[kept] - j[kept]], axis=1) / count
        points.append(np.einsum("sk,nkc->nsc", share, corners[pieces == count]).reshape(-1, 3))
    return np.concatenate(points).astype(np.float32)
