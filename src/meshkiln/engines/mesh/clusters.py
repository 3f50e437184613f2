"""Fewer triangles fast: vertices that lie in one small cell become one, wherever the surface stays a manifold.

Vertex clustering (J. Rossignac, P. Borrel, "Multi-resolution 3D Approximations for Rendering Complex Scenes", 1993)
takes a fraction of the time of edge collapse and looks at nothing. So cells are smaller than the triangles that are
wanted in the end, and a cell in which sheets would be joined or folded keeps its vertices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.mesh.solid import at_fault

CELLS = 1 << 24
"""A mesh that takes more cells is left alone: the table of them would take longer than it saves."""

ROUNDS = 6
"""Times that faulty cells are given their vertices back. Two mostly do; a mesh that was not closed is left alone."""

SHARPENED = 0.15
"""The mean of a curved piece lies inside it. Moved away from its neighbours' mean by this share of what it is off, a
vertex is nearer to the surface, by a fifth (benchmarks/finish.py); with more of it, normals suffer."""

SAMPLED = 20_000
"""Triangles that the area is estimated from."""


def clustered(
    points: NDArray[np.float32], faces: NDArray[np.int32], spread: float, target: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]] | None:
    """A closed mesh with its vertices clustered, or None where that does not keep it closed and manifold.

    points : (V, 3) float32; faces : (F, 3) int32, closed
    spread, target : a cell's face has `spread` times the area that each of `target` triangles would have
    """
    some = points[faces[:: len(faces) // SAMPLED + 1]].astype(np.float64)
    area = np.linalg.norm(np.cross(some[:, 1] - some[:, 0], some[:, 2] - some[:, 0]), axis=1).sum() / 2
    side = float(np.sqrt(spread * area * len(faces) / len(some) / target))
    if not side > 0:
        return None
    place = [np.floor((along - along.min()) / np.float32(side)).astype(np.int64) for along in points.T]
    across = [int(along.max()) + 1 for along in place]
    if across[0] * across[1] * across[2] > CELLS:
        return None
    cell = (place[0] * across[1] + place[1]) * across[2] + place[2]
    taken = np.zeros(across[0] * across[1] * across[2], np.bool_)
    taken[cell] = True
    cluster = _numbered(taken)[cell]
    for _ in range(ROUNDS):
        members = np.bincount(cluster)
        linked = cluster[faces]
        a, b, c = linked.T
        linked = linked[(a != b) & (b != c) & (c != a)]
        if len(linked) == 0:
            return None
        wrong = at_fault(linked, len(members))
        # A vertex that was given back, with nothing but one cluster around it, is inside of that.
        idle = (members == 1) & (np.bincount(linked.ravel(), minlength=len(members)) == 0)
        wrong &= ~idle
        if not wrong.any():
            return _placed(points, cluster, linked)[~idle], _numbered(~idle)[linked]
        loose = np.flatnonzero(wrong[cluster])
        cluster = cluster.copy()
        cluster[loose] = np.arange(len(members), len(members) + len(loose), dtype=np.int32)
        cluster = _numbered(np.concatenate([~wrong, np.ones(len(loose), np.bool_)]))[cluster]
    return None


def _numbered(kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For each that is kept, its number among them."""
    return np.cumsum(kept, dtype=np.int32) - np.int32(1)


def _placed(points: NDArray[np.float32], cluster: NDArray[np.int32], linked: NDArray[np.int32]) -> NDArray[np.float32]:
    """Where the clusters' vertices (C, 3) go: the means of the points (V, 3) in them, sharpened."""
    members = np.bincount(cluster)
    corners = linked.ravel()
    triangles = np.maximum(np.bincount(corners, minlength=len(members)), 1)
    placed = np.empty((len(members), 3), np.float32)
    for along in range(3):
        mean = np.bincount(cluster, points[:, along]) / members
        its = mean[linked]
        around = np.bincount(corners, (its.sum(axis=1, keepdims=True) - its).ravel(), len(members)) / (2 * triangles)
        placed[:, along] = mean + SHARPENED * (members > 1) * (mean - around)
    return placed
