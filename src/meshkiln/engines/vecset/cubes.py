"""Marching cubes on bricks of samples, table-driven and vectorised; closed and manifold by construction.

The tables are derived here rather than listed. On each face of a cell the crossing edges are joined so that the inside
lies to one side; on a face whose inside corners are diagonal, the sign of the bilinear saddle decides (the asymptotic
decider of Nielson & Hamann 1991), which both cells at that face see alike. The joins close into loops around the cell.
Each loop is filled with triangles, none of whose inner sides lies in a face of the cell (about a central vertex
where that is impossible), so two cells can never lay the same side twice.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.grid import F32

CORNERS = tuple(product((0, 1), repeat=3))
"""Corner number 4·x + 2·y + z → offset (x, y, z)."""

CLAMP = 1e-3
"""A vertex keeps this share of an edge from either end, so that no triangle shrinks to a point at a sample."""

CHUNK = 1 << 16
"""Cells that are filled with triangles at once: what that needs is a dozen times what it leaves."""

_CENTRE = 3
_SQUARES = (((0, 0), (1, 0), (1, 1), (0, 1)), ((0, 0), (0, 1), (1, 1), (1, 0)))


def _face(along: int, side: int) -> tuple[int, ...]:
    """Corners of the face at `side` of axis `along`, clockwise seen from outside the cell."""
    weight = (4, 2, 1)
    u, v = (along + 1) % 3, (along + 2) % 3
    return tuple(side * weight[along] + a * weight[u] + b * weight[v] for a, b in _SQUARES[side])


FACES = tuple(_face(along, side) for along in range(3) for side in (0, 1))

Edge = tuple[int, int]


def _loops(case: int, joined: int) -> list[list[Edge]]:
    """Loops of crossing edges (pairs of corners, lower first); bit f of `joined`: face f joins its inside corners."""
    following: dict[Edge, Edge] = {}
    for number, face in enumerate(FACES):
        inside = [case >> corner & 1 for corner in face]
        turn = 1 if joined >> number & 1 else -1
        edges = [(min(a, b), max(a, b)) for a, b in zip(face, face[1:] + face[:1], strict=True)]
        leaves = [i for i in range(4) if inside[i] and not inside[(i + 1) % 4]]
        enters = [i for i in range(4) if not inside[i] and inside[(i + 1) % 4]]
        for i in leaves:
            following[edges[i]] = edges[min(enters, key=lambda j: (j - i) * turn % 4)]
    loops = []
    while following:
        loop = [min(following)]
        while (edge := following.pop(loop[-1])) != loop[0]:
            loop.append(edge)
        loops.append(loop)
    return loops


def _fill(loop: list[Edge]) -> list[tuple[int, int, int]] | None:
    """Triangles (positions in the loop) with no inner side in a face of the cell; None when there are none such."""
    count = len(loop)
    home = [{number for number, face in enumerate(FACES) if a in face and b in face} for a, b in loop]

    def lies_in_face(i: int, j: int) -> bool:
        return (j - i) % count not in (1, count - 1) and bool(home[i] & home[j])

    @cache
    def best(i: int, j: int) -> list[tuple[int, int, int]] | None:
        if j - i < 2:
            return []
        for k in range(i + 1, j):
            if not lies_in_face(i, k) and not lies_in_face(k, j):
                left, right = best(i, k), best(k, j)
                if left is not None and right is not None:
                    return [*left, *right, (i, k, j)]
        return None

    return best(0, count - 1)


class Tables(NamedTuple):
    """What a cell's signs mean; a row is one case with one choice at its ambiguous faces.

    ambiguous : (256, 6) bool    faces whose inside corners are diagonal
    row : (256, 64) int16        case, faces that join their insides as bits → row
    triangles : (rows,) int32    how many …
    start : (rows,) int32        … and the first one's place in the following
    corner : (all, 3) int8       each triangle corner's edge: corner number of its lower end …
    along : (all, 3) int8        … and its axis, or 3 for the cell's central vertex
    """

    ambiguous: NDArray[np.bool_]
    row: NDArray[np.int16]
    triangles: NDArray[np.int32]
    start: NDArray[np.int32]
    corner: NDArray[np.int8]
    along: NDArray[np.int8]


@cache
def tables() -> Tables:
    """The tables, derived once per process (tens of milliseconds)."""
    ambiguous = np.zeros((256, 6), bool)
    row = np.zeros((256, 64), np.int16)
    filled: list[list[tuple[Edge, Edge, Edge]]] = []
    for case in range(256):
        signs = [[case >> corner & 1 for corner in face] for face in FACES]
        ambiguous[case] = [s[0] == s[2] != s[1] == s[3] for s in signs]
        open_faces = np.flatnonzero(ambiguous[case])
        for choice in product((0, 1), repeat=len(open_faces)):
            joined = sum(int(bit) << int(face) for bit, face in zip(choice, open_faces, strict=True))
            row[case, joined] = len(filled)
            triangles: list[tuple[Edge, Edge, Edge]] = []
            for loop in _loops(case, joined):
                fill = _fill(loop)
                if fill is None:
                    triangles += [(a, b, (-1, -1)) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]
                else:
                    triangles += [(loop[i], loop[j], loop[k]) for i, j, k in fill]
            filled.append(triangles)
    edges = np.array([edge for triangles in filled for triangle in triangles for edge in triangle]).reshape(-1, 3, 2)
    low, high = edges[..., 0], edges[..., 1]
    along = np.where(low < 0, _CENTRE, np.array([0, 2, 1, 0, 0])[high - low]).astype(np.int8)
    count = np.array([len(triangles) for triangles in filled], np.int32)
    start = np.cumsum(count, dtype=np.int32) - count
    return Tables(ambiguous, row, count, start, np.maximum(low, 0).astype(np.int8), along)


def cases(values: F32) -> NDArray[np.uint8]:
    """The case (n·(B+1)³,) of the cell from each sample (n, B+1, B+1, B+1) on; in the last layers it means nothing.

    Bit c is set where corner c is inside.
    """
    edge = values.shape[1]
    case = (values > 0).view(np.uint8).reshape(-1)
    # A neighbour is a fixed number of samples further on: whole arrays are put together without a look at their shape.
    for bits, further in ((1, 1), (2, edge), (4, edge * edge)):
        with_next = case.copy()
        with_next[:-further] |= case[further:] << np.uint8(bits)
        case = with_next
    return case


class _Layout(NamedTuple):
    """Places in a brick of (B+1)³ samples.

    own : ((B+1)³,) bool         not in the last layers
    offset : ((B+1)³, 3) float64
    step : (3,) int32            from a sample to the next along an axis
    corner : (8,) int32          from a sample to a corner of the cell that starts at it
    """

    own: NDArray[np.bool_]
    offset: NDArray[np.float64]
    step: NDArray[np.int32]
    corner: NDArray[np.int32]


@cache
def _layout(edge: int) -> _Layout:
    offset = np.stack(np.unravel_index(np.arange(edge**3), (edge,) * 3), axis=1)
    step = np.array([edge * edge, edge, 1], np.int32)
    return _Layout(offset.max(axis=1) < edge - 1, offset.astype(np.float64), step, np.array(CORNERS, np.int32) @ step)


def extract(
    values: F32, neighbours: NDArray[np.int32], origin: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """The surface between positive samples and the others, on bricks.

    values : (n, B+1, B+1, B+1) float32   samples of brick i from `origin[i]` on, with one layer of the next bricks'
    neighbours : (n, 8) int32             number of the brick at each corner offset; read only where an edge starts
    origin : (n, 3) int32
    Returns vertices (V, 3) in samples and faces (F, 3), wound outward (away from the positive side).
    """
    edge = values.shape[1]
    size = edge**3
    layout = _layout(edge)
    case = cases(values)
    cell = np.flatnonzero((case - np.uint8(1) < 254) & np.broadcast_to(layout.own, (len(values), size)).reshape(-1))
    signs = case[cell]

    # Vertices are numbered sample by sample, and at a sample by axis; every one lies in the cell from its sample on.
    code = _CROSSING[signs]
    some = np.flatnonzero(code)
    at, bits = cell[some], code[some]
    number = np.cumsum(_POPCOUNT[bits], dtype=np.int32)
    number -= _POPCOUNT[bits]
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    vertices = _vertices(flat, at, bits, number, origin, layout)
    # A sample's lowest number and its crossings, in one word; in the last layers they are the next bricks'.
    words = np.empty(case.size, np.int32)
    words[at] = number << 3 | bits
    _halo(words.reshape(values.shape), neighbours)

    table = tables()
    pieces = []
    for start in range(0, len(cell), CHUNK):
        here, its = cell[start : start + CHUNK], signs[start : start + CHUNK]
        row = table.row[its, _joined(flat, its, here, layout)]
        count = table.triangles[row]
        last = np.cumsum(count)
        triangle = np.arange(last[-1]) + np.repeat(table.start[row] - (last - count), count)
        along = table.along[triangle]
        word = words[layout.corner[table.corner][triangle] + np.repeat(here, count)[:, None]]
        faces = (word >> 3) + _POPCOUNT[word & _BELOW[along]]
        if (along == _CENTRE).any():
            vertices, faces = _centred(vertices, faces, along == _CENTRE, np.repeat(np.arange(len(here)), count))
        pieces.append(faces)
    return vertices, np.concatenate(pieces) if pieces else np.zeros((0, 3), np.int32)


def _vertices(
    flat: F32,
    at: NDArray[np.int64],
    bits: NDArray[np.uint8],
    number: NDArray[np.int32],
    origin: NDArray[np.int32],
    layout: _Layout,
) -> NDArray[np.float64]:
    """Where the edges that leave samples `at` cross the surface; `bits` tells which do, `number` the first's place."""
    size = len(layout.own)
    brick = at // size
    placed = origin.astype(np.float64)[brick] + layout.offset[at - brick * size]
    vertices = np.repeat(placed, _POPCOUNT[bits], axis=0)
    near = flat[at].astype(np.float64)
    for along in range(3):
        chosen = np.flatnonzero(bits & (1 << along))
        here = near[chosen]
        share = here / (here - flat[at[chosen] + layout.step[along]])
        np.clip(share, CLAMP, 1 - CLAMP, out=share)
        vertices[number[chosen] + _POPCOUNT[bits[chosen] & _BELOW[along]], along] += share
    return vertices


def _halo(words: NDArray[np.int32], neighbours: NDArray[np.int32]) -> None:
    """The last layers of (n, B+1, B+1, B+1) taken from the bricks that they belong to."""
    for number, offset in enumerate(CORNERS[1:], 1):
        there = (slice(None), *(slice(-1, None) if o else slice(-1) for o in offset))
        source = (slice(None), *(slice(1) if o else slice(-1) for o in offset))
        words[there] = words[source][neighbours[:, number]]


_POPCOUNT = np.array([0, 1, 1, 2, 1, 2, 2, 3], np.int32)
_BELOW = np.array([0, 1, 3, 0], np.uint8)
"""Axis → bits of the axes before it."""

_CROSSING = np.array(
    [
        sum((case ^ case >> further & 1) & 1 and 1 << along for along, further in enumerate((4, 2, 1)))
        for case in range(256)
    ],
    np.uint8,
)
"""Case → axes, as bits, along which the edge from the cell's first corner crosses the surface."""


def _joined(values: F32, case: NDArray[np.uint8], cell: NDArray[np.int64], layout: _Layout) -> NDArray[np.uint8]:
    """For each cell, the ambiguous faces (as bits) whose bilinear saddle is inside, so that their insides join."""
    joined = np.zeros(len(case), np.uint8)
    table = tables().ambiguous
    some = np.flatnonzero((table.sum(axis=1) > 0)[case])
    for number, face in enumerate(FACES):
        open_ = some[table[case[some], number]]
        a, b, c, d = (values[cell[open_] + layout.corner[corner]].astype(np.float64) for corner in face)
        # The saddle's value is (ac − bd) / (a + c − b − d); the denominator has the sign of a and c.
        positive = np.where(a > 0, a * c > b * d, b * d > a * c)
        joined[open_] |= positive.astype(np.uint8) << np.uint8(number)
    return joined


def _centred(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], centre: NDArray[np.bool_], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Give each cell that has one its central vertex: the mean of the loop that its triangles go around."""
    face = np.flatnonzero(centre[:, 2])
    if face.size == 0:
        return vertices, faces
    cells, member, size = np.unique(owner[face], return_inverse=True, return_counts=True)
    sums = np.zeros((len(cells), 3))
    np.add.at(sums, member, vertices[faces[face, 0]])
    faces[face, 2] = (len(vertices) + member).astype(np.int32)
    return np.concatenate([vertices, sums / size[:, None]]), faces
