"""Whether triangles bound a solid: closed, consistently wound, manifold, facing outwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vertices = NDArray[np.floating[Any]]
Faces = NDArray[np.integer[Any]]


def fault(vertices: Vertices, faces: Faces) -> str:
    """The first thing that keeps a mesh from bounding a solid, in words; empty when nothing does.

    vertices : (V, 3) float; faces : (F, 3) int

    Asked for: finite positions, no two alike (so that formats without indices, such as STL, keep the mesh together);
    every directed edge in exactly one triangle and its reverse in exactly one other; around each vertex one fan of
    triangles; every vertex used; positive volume. Triangles may intersect one another: that is not looked for.
    """
    if len(faces) == 0:
        return "there are no triangles"
    if not np.isfinite(vertices).all():
        return "some vertices are not finite numbers"
    if faces.min() < 0 or faces.max() >= len(vertices):
        return "some triangles name vertices that do not exist"
    if int((np.bincount(faces.ravel(), minlength=len(vertices)) == 0).sum()):
        return "some vertices are in no triangle"
    if coincident := len(vertices) - len(distinct(vertices)[0]):
        return f"{coincident} vertices lie on others"
    start, end = _ends(faces)
    # Corner i of triangle f has number i·F + f, and so has the edge that leaves it.
    leaving, returning = start * len(vertices) + end, end * len(vertices) + start
    forward, backward = np.argsort(leaving), np.argsort(returning)
    edges = leaving[forward]
    if doubled := int((edges[1:] == edges[:-1]).sum()):
        return f"{doubled} directed edges are in more than one triangle"
    if unmatched := int((edges != returning[backward]).sum()):
        return f"{unmatched} edges have a triangle on one side only, or both wound alike"
    if folded := int(back_to_back(faces).sum()):
        return f"{folded} triangles lie on others, back to back"
    twin = np.empty(len(edges), np.int64)
    twin[backward] = forward
    if pinched := _fans(twin, int(np.bincount(start).max())) - len(vertices):
        return f"{pinched} vertices join more than one fan of triangles"
    if volume(vertices, faces) <= 0:
        return "the triangles face inwards"
    return ""


def volume(vertices: Vertices, faces: Faces) -> float:
    """Signed volume of a closed mesh, in its units cubed: positive when triangles face outwards."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("nc,nc->", a, np.cross(b, c)) / 6)


def closed(faces: Faces) -> bool:
    """Whether every directed edge is in as many triangles (F, 3) as its reverse; two sheets may share one."""
    if len(faces) == 0:
        return False
    start, end, count = *_ends(faces), int(faces.max()) + 1
    return np.array_equal(np.sort(start * count + end), np.sort(end * count + start))


def back_to_back(faces: Faces) -> NDArray[np.bool_]:
    """Which triangles (F, 3) have the three corners of another one. In a closed mesh these are folds of no volume."""
    corners = np.sort(faces, axis=1).astype(np.int64)
    order = np.lexsort(corners.T)
    alike = (corners[order][1:] == corners[order][:-1]).all(axis=1)
    folded = np.zeros(len(faces), np.bool_)
    folded[order[1:][alike]] = folded[order[:-1][alike]] = True
    return folded


def _ends(faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each triangle's directed edges, by start and end: first the edges that leave corner 0, then 1, then 2."""
    start = faces.astype(np.int64).T.ravel()
    return start, np.roll(faces.astype(np.int64), -1, axis=1).T.ravel()


def distinct(vertices: Vertices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of the different points among (V, 3), and for each point the number of its like among them.

    Points are compared as float32, bit for bit but for the sign of zero.
    """
    bits = (np.ascontiguousarray(vertices, np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
    # Sorting one number is many times faster than sorting rows. Should two points ever share it, rows are sorted.
    mixed = (bits[:, 0] * _ODD[0] ^ bits[:, 1] * _ODD[1] ^ (bits[:, 2] * _ODD[2] >> np.uint64(7))) * _ODD[3]
    ordered = np.sort(mixed)
    if (ordered[1:] != ordered[:-1]).all():
        every = np.arange(len(bits))
        return every, every
    _, first, like = np.unique(mixed, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first[like]], bits):
        _, first, like = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), like.reshape(-1).astype(np.int64)


_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


def _fans(twin: NDArray[np.int64], most: int) -> int:
    """How many fans of triangles there are around all vertices of a closed mesh.

    twin : for each directed edge, named by the corner it leaves, its reverse
    most : triangles around the busiest vertex
    """
    # From a corner to the next one around the same vertex: over the reverse of the edge that leaves it.
    following = (twin + len(twin) // 3) % len(twin)
    corner = np.arange(len(twin))
    least = corner
    for _ in range(most.bit_length()):
        least = np.minimum(least, least[following])
        following = following[following]
    return int((least == corner).sum())
