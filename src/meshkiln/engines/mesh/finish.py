"""Stage `finish`: the mesh an engine made, as a solid of the number of triangles asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.base import Work
from meshkiln.engines.mesh.clusters import clustered
from meshkiln.engines.mesh.solid import Faces, Vertices, back_to_back, closed, distinct, fault, volume
from meshkiln.errors import StageFailed

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

AGGRESSIVENESS = (3, 5, 7)
"""How fast the collapse lowers its standards, in turn until the target is reached. The library's default, 7, at once
gives the side whose faces come first half as many triangles as the other, and slivers."""

MANY = 3.2
"""Times the triangles asked for from which vertices are clustered before edges are collapsed …"""

SPREAD = 1.5
"""… in cells whose faces have this many times the area of a triangle asked for, which leaves half as many again."""

Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]

NUDGE = 1e-4
"""How far vertices that lie on one another are moved apart, as a share of the mesh's longest side."""


def finish(batch: Sequence[Work]) -> list[Value]:
    """The stage: `{"vertices", "faces", …}` in, a solid out, other arrays as they are. Parameter `faces`."""
    values: list[Value] = []
    for work in batch:
        mesh: dict[str, NDArray[Any]] = work.inputs[0]
        vertices, faces = solidify(mesh["vertices"], mesh["faces"], int(work.parameters["faces"]))
        values.append({**mesh, "vertices": vertices, "faces": faces})
    return values


def solidify(vertices: Vertices, faces: Faces, target: int = 0) -> Mesh:
    """The mesh as a solid without a `fault`, of about `target` triangles when it has more (0: keep all). Parts
    that so few triangles cannot show may disappear; should nothing closed be left, there are more than asked for.

    vertices : (V, 3) float; faces : (F, 3) int
    Returns (V', 3) float32 and (F', 3) int32.

    Three measures, each taken only when the one before left a fault. Quadric edge collapse can leave two sheets
    sharing an edge or a vertex: the Manifold library takes them apart. What it does not accept (open borders, mixed
    winding) is filled as voxels and extracted anew: coarser, but a solid. Raises StageFailed when there is nothing to
    make a solid of.
    """
    if len(faces) == 0 or not np.isfinite(vertices).all():
        raise StageFailed("the engine's mesh is empty or not finite; nothing can be exported from it")
    mesh = _welded(vertices, faces)
    if len(mesh[1]) == 0:
        raise StageFailed("the engine's mesh has no triangle with an area; nothing can be exported from it")
    looked_at = False
    while target and len(mesh[1]) > target:
        simple = _simplified(mesh, target)
        # Looked at afterwards only: most meshes come closed, and looking at all their triangles takes longer.
        if not fault(*simple):
            return simple
        apart = _apart(_unfolded(simple))
        if apart is not None and not fault(*apart):
            return apart
        if looked_at:
            # So few triangles that nothing closed was left.
            target *= 2
        elif fault(*mesh):
            mesh = _repaired(mesh)
        looked_at = True
    return mesh if not fault(*mesh) else _repaired(mesh)


def _repaired(mesh: Mesh) -> Mesh:
    """`mesh` without a fault, by taking apart what touches, else by voxels."""
    from meshkiln.engines.mesh.remesh import remesh

    apart = _apart(mesh)
    if apart is not None and not fault(*apart):
        return apart
    for resolution in (128, 96, 64):
        rebuilt = _apart(remesh(*mesh, resolution))
        if rebuilt is not None and not fault(*rebuilt):
            return rebuilt
    raise StageFailed("the engine's mesh encloses no volume; nothing solid can be made of it")


def _welded(vertices: Vertices, faces: Faces) -> Mesh:
    """Vertices at one point made one, triangles without area in the index dropped, unused vertices dropped."""
    points = np.ascontiguousarray(vertices, np.float32)
    first, like = distinct(points)
    linked = faces if len(first) == len(points) else first[like][faces]
    a, b, c = linked.T
    flat = (a == b) | (b == c) | (c == a)
    return _compact(points, linked[~flat] if flat.any() else linked)


def _compact(points: NDArray[np.float32], faces: NDArray[np.integer[Any]]) -> Mesh:
    used = np.zeros(len(points), np.bool_)
    used[faces] = True
    if used.all():
        return points.copy(), np.array(faces, np.int32, order="C")
    place = np.cumsum(used, dtype=np.int32) - 1
    return points[used], place[faces].astype(np.int32)


def _unfolded(mesh: Mesh) -> Mesh:
    """Pairs of triangles that lie back to back, which enclose nothing, dropped."""
    points, faces = mesh
    return _compact(points, faces[~back_to_back(faces)])


def _simplified(mesh: Mesh, target: int) -> Mesh:
    """Quadric edge collapse (M. Garland, P. Heckbert, "Surface Simplification Using Quadric Error Metrics", 1997)."""
    import fast_simplification

    # Below a tetrahedron nothing closed is left.
    target = max(target, 4)
    if len(mesh[1]) > MANY * target:
        mesh = clustered(*mesh, SPREAD, target) or mesh
    if len(mesh[1]) <= target:
        return mesh
    for aggressiveness in AGGRESSIVENESS:
        points, faces = fast_simplification.simplify(*mesh, target_count=target, agg=aggressiveness)
        simple = _welded(points, faces)
        if not len(simple[1]):
            break
        mesh = simple
        if len(mesh[1]) <= target:
            break
    return mesh


def _apart(mesh: Mesh) -> Mesh | None:
    """Sheets that share an edge or a vertex taken apart and turned outwards; None when the mesh is not closed."""
    import manifold3d

    points, faces = mesh
    # Manifold says so itself, but on open meshes it has been seen to crash the process first (3.5.4).
    if not closed(faces):
        return None
    given = manifold3d.Mesh(np.ascontiguousarray(points), np.ascontiguousarray(faces, np.uint32))
    body = manifold3d.Manifold(given)
    if body.status() != manifold3d.Error.NoError or body.is_empty():
        return None
    made = body.to_mesh()
    points = np.ascontiguousarray(made.vert_properties[:, :3], np.float32)
    faces = made.tri_verts.astype(np.int32)
    if volume(points, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    return _compact(_nudged(points, faces), faces)


def _nudged(points: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Vertices at one point moved inwards by different amounts, so that welding will not join them again."""
    step = NUDGE * float(np.ptp(points, axis=0).max())
    for _ in range(4):
        order = np.lexsort(points.T)
        alike = np.concatenate([[False], (points[order][1:] == points[order][:-1]).all(axis=1)])
        if not alike.any():
            break
        # Rank within a run of equal points: 0 for its first.
        position = np.arange(len(points))
        rank = position - np.maximum.accumulate(np.where(alike, 0, position))
        normals = np.zeros(points.shape)
        corner = points[faces]
        area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        for i in range(3):
            np.add.at(normals, faces[:, i], area)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        inward = -normals / np.where(length > 0, length, 1)
        points = points.copy()
        points[order] += (inward[order] * (step * rank)[:, None]).astype(np.float32)
    return points
