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
    twin = _twins(faces, *_gathered(faces, len(vertices)))
    if twin is None:
        return _unpaired(faces, len(vertices))
    if folded := int(_folded(faces, twin).sum()):
        return f"{folded} triangles lie on others, back to back"
    if pinched := int(_fans(faces, twin, len(vertices)).sum()) - len(vertices):
        return f"{pinched} vertices join more than one fan of triangles"
    if volume(vertices, faces) <= 0:
        return "the triangles face inwards"
    return ""


def at_fault(faces: Faces, count: int) -> NDArray[np.bool_]:
    """Which of `count` vertices keep triangles (F, 3), none of which names a vertex twice, from closing around them."""
    found = np.zeros(count, np.bool_)
    edge, number = _gathered(faces, count)
    twin = _twins(faces, edge, number)
    if twin is not None:
        found[faces[_folded(faces, twin)]] = True
        found |= _fans(faces, twin, count) != 1
        return found
    first = np.flatnonzero(np.concatenate([[True], edge[1:] != edge[:-1]]))
    wrong = edge[first[np.diff(first, append=len(edge)) != 2]]
    # Where all are in two triangles, some triangles are wound against others: no vertex is to blame.
    found[wrong // count] = found[wrong % count] = True
    return found if len(wrong) else np.ones(count, np.bool_)


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


def _twins(faces: Faces, edge: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.int32] | None:
    """For each directed edge its reverse, (3·F,); None unless each is in one triangle and its reverse in one other.

    edge, number : as `_gathered` gives them. The edge that leaves corner i of triangle f has number i·F + f.
    """
    if len(edge) % 2 or (edge[::2] != edge[1::2]).any() or (edge[1:-1:2] == edge[2::2]).any():
        return None
    one, other = number[::2], number[1::2]
    start = faces.T.ravel()
    if (start[one] == start[other]).any():
        return None
    twin = np.empty(len(number), np.int32)
    twin[one], twin[other] = other, one
    return twin


def _gathered(faces: Faces, count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """All directed edges in an order that brings those with the same two ends together: ends, as lower · `count` +
    higher, and the edges' numbers."""
    start, end = _ends(faces)
    edge = (np.minimum(start, end) * count + np.maximum(start, end)).astype(np.uint64)
    bits = len(edge).bit_length()
    if bits + (count * count).bit_length() > 64:
        order = np.argsort(edge, kind="stable")
        return edge[order], order.astype(np.uint64)
    # Sorting numbers that carry their place is several times faster than sorting places by what is there.
    edge <<= np.uint64(bits)
    edge |= np.arange(len(edge), dtype=np.uint64)
    edge.sort()
    return edge >> np.uint64(bits), edge & np.uint64((1 << bits) - 1)


def _unpaired(faces: Faces, count: int) -> str:
    """What is wrong with the edges of triangles whose edges are no twins."""
    start, end = _ends(faces)
    leaving, returning = np.sort(start * count + end), np.sort(end * count + start)
    if doubled := int((leaving[1:] == leaving[:-1]).sum()):
        return f"{doubled} directed edges are in more than one triangle"
    lone = len(np.setdiff1d(leaving, returning, assume_unique=True))
    return f"{lone} edges have a triangle on one side only, or both wound alike"


def _ends(faces: Faces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each triangle's directed edges, by start and end: first the edges that leave corner 0, then 1, then 2."""
    start = faces.T.astype(np.int64)
    return start.ravel(), start[[1, 2, 0]].ravel()


def _folded(faces: Faces, twin: NDArray[np.int32]) -> NDArray[np.bool_]:
    """As `back_to_back`, where the twins are known: a fold's triangles have all their edges in common."""
    across = faces.T[[2, 0, 1]].ravel()
    folded: NDArray[np.bool_] = (across == across[twin]).reshape(3, -1).any(axis=0)
    return folded


def _fans(faces: Faces, twin: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """How many fans of triangles there are around each of `count` vertices."""
    start = faces.T.ravel()
    # From a corner to the next one around the same vertex: over the reverse of the edge that leaves it.
    following = twin + np.int32(len(faces))
    following[following >= len(twin)] -= np.int32(len(twin))
    corner = np.arange(len(twin), dtype=np.int32)
    least = corner
    for _ in range(int(np.bincount(start).max()).bit_length()):
        least = np.minimum(least, least[following])
        following = following[following]
    return np.bincount(start[least == corner], minlength=count)


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
