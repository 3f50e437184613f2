"""Small loose pieces, which a learned field leaves where it hesitates, taken out of a mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.grid import Mesh

SHARE = 0.02
"""A piece enclosing less than this share of the largest piece's volume is a floater."""


def without_floaters(mesh: Mesh, share: float = SHARE) -> Mesh:
    """The pieces of a closed mesh that enclose at least `share` of what the largest does, cavities counted alike."""
    if len(mesh.faces) == 0:
        return mesh
    count = len(mesh.vertices)
    lowest = pieces(mesh.faces, count)
    if not lowest.any():
        return mesh
    piece = lowest[mesh.faces[:, 0]]
    x, y, z = np.ascontiguousarray(mesh.vertices.T)
    a, b, c = np.ascontiguousarray(mesh.faces.T)
    six = x[a] * (y[b] * z[c] - z[b] * y[c]) + y[a] * (z[b] * x[c] - x[b] * z[c]) + z[a] * (x[b] * y[c] - y[b] * x[c])
    volume = np.abs(np.bincount(piece, six, count))
    large = volume >= share * volume.max()
    kept = large[lowest]
    number = np.cumsum(kept, dtype=np.int32) - np.int32(1)
    return Mesh(mesh.vertices[kept], number[mesh.faces[large[piece]]])


def pieces(faces: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """For each of `count` vertices, the lowest one of those that faces (F, 3) connect it with.

    Every vertex is hooked to its lowest neighbour and trees are made flat, until no face lies in two of them. Vertices
    that lie together have numbers that do, so most of the work is done at once.
    """
    lowest = np.arange(count, dtype=np.int32)
    while len(faces):
        corners = np.ascontiguousarray(faces.T)
        least = corners.min(axis=0)
        above = np.arange(count, dtype=np.int32)
        for corner in corners:
            np.minimum.at(above, corner, least)
        while not np.array_equal(further := above[above], above):
            above = further
        lowest = above[lowest]
        a, b, c = corners = above[corners]
        faces = corners.T[(a != b) | (b != c)]
    return lowest
