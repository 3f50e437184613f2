"""Small loose pieces, which a learned field leaves where it hesitates, taken out of a mesh."""

from __future__ import annotations

import numpy as np

from meshkiln.engines.vecset.grid import Mesh

SHARE = 0.02
"""A piece enclosing less than this share of the largest piece's volume is a floater."""


def without_floaters(mesh: Mesh, share: float = SHARE) -> Mesh:
    """The pieces of a closed mesh that enclose at least `share` of what the largest does, cavities counted alike."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(mesh.faces) == 0:
        return mesh
    count = len(mesh.vertices)
    sides = mesh.faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(sides), np.int8), (sides[:, 0], sides[:, 1])), shape=(count, count))
    pieces, piece = connected_components(graph, directed=False)
    if pieces == 1:
        return mesh
    a, b, c = mesh.vertices.astype(np.float64)[mesh.faces].transpose(1, 0, 2)
    volume = np.abs(np.bincount(piece[mesh.faces[:, 0]], np.einsum("ij,ij->i", a, np.cross(b, c)), pieces))
    kept = (volume >= share * volume.max())[piece]
    number = np.cumsum(kept) - 1
    return Mesh(mesh.vertices[kept], number[mesh.faces[kept[mesh.faces[:, 0]]]].astype(np.int32))
