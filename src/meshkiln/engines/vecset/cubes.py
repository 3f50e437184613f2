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

    ambiguous : (256, 6) bool     faces whose inside corners are diagonal
    row : (256, 64) int16         case, faces that join their insides as bits → row
    triangles : (rows,) int64     how many
    sample : (rows, T, 3, 3) int8 each triangle corner's edge: offset (x, y, z) of its lower end …
    along : (rows, T, 3) int8     … and its axis, or 3 for the cell's central vertex
    """

    ambiguous: NDArray[np.bool_]
    row: NDArray[np.int16]
    triangles: NDArray[np.int64]
    sample: NDArray[np.int8]
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
    count = np.array([len(triangles) for triangles in filled])
    sample = np.zeros((len(filled), count.max(), 3, 3), np.int8)
    along = np.zeros((len(filled), count.max(), 3), np.int8)
    for r, triangles in enumerate(filled):
        for t, triangle in enumerate(triangles):
            for c, (low, high) in enumerate(triangle):
                along[r, t, c] = _CENTRE if low < 0 else (4, 2, 1).index(high - low)
                sample[r, t, c] = CORNERS[max(low, 0)]
    return Tables(ambiguous, row, count, sample, along)


def cases(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Cell cases (n, B, B, B) of samples (n, B+1, B+1, B+1): bit c is set where corner c is inside."""
    side = inside.shape[1] - 1
    bits = inside.view(np.uint8)
    case = np.zeros((len(inside), side, side, side), np.uint8)
    for number, (x, y, z) in enumerate(CORNERS):
        case |= bits[:, x : x + side, y : y + side, z : z + side] << np.uint8(number)
    return case


def extract(
    values: F32, neighbours: NDArray[np.int32], origin: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """The surface between positive samples and the others, on bricks.

    values : (n, B+1, B+1, B+1) float32   samples of brick i from `origin[i]` on, with one layer of the next bricks'
    neighbours : (n, 8) int32             number of the brick at each corner offset; read only where an edge starts
    origin : (n, 3) int32
    Returns vertices (V, 3) in samples and faces (F, 3), wound outward (away from the positive side).
    """
    side = values.shape[1] - 1
    table = tables()
    inside = values > 0
    case = cases(inside)
    own = inside[:, :-1, :-1, :-1]
    code = np.zeros(own.shape, np.uint8)
    for along, far in enumerate((inside[:, 1:, :-1, :-1], inside[:, :-1, 1:, :-1], inside[:, :-1, :-1, 1:])):
        code |= (own != far).view(np.uint8) << np.uint8(along)

    # Vertices are numbered sample by sample, and at a sample by axis; `first` is a sample's lowest number.
    at = np.flatnonzero(code)
    bits = code.reshape(-1)[at]
    first = np.zeros(code.size, np.int32)
    first[at] = np.concatenate(([0], np.cumsum(_POPCOUNT[bits])[:-1])) if at.size else 0
    vertices = np.empty((int(_POPCOUNT[bits].sum()), 3))
    brick, *offset = np.unravel_index(at, code.shape)
    index = np.stack(offset, axis=1)
    here = values[brick, *offset].astype(np.float64)
    for along in range(3):
        chosen = np.flatnonzero(bits >> along & 1)
        step = np.eye(3, dtype=np.int64)[along]
        there = values[brick[chosen], *(index[chosen] + step).T].astype(np.float64)
        share = np.clip(here[chosen] / (here[chosen] - there), CLAMP, 1 - CLAMP)
        number = first[at[chosen]] + _POPCOUNT[bits[chosen] & (2**along - 1)]
        vertices[number] = (origin[brick[chosen]] + index[chosen]) + share[:, None] * step

    cell = np.flatnonzero((case != 0) & (case != 255))
    signs, crossing = case.reshape(-1), code.reshape(-1)
    pieces = []
    for start in range(0, len(cell), CHUNK):
        some = cell[start : start + CHUNK]
        where = np.stack(np.unravel_index(some, own.shape)).astype(np.int32)
        row = table.row[signs[some], _joined(values, signs[some], where)]
        count = table.triangles[row]
        owner = np.repeat(np.arange(len(some)), count)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        axes = table.along[row[owner], nth]
        sample = table.sample[row[owner], nth]
        brick, x, y, z = where[:, owner]
        x, y, z = x[:, None] + sample[..., 0], y[:, None] + sample[..., 1], z[:, None] + sample[..., 2]
        next_x, next_y, next_z = x == side, y == side, z == side
        home = neighbours[brick[:, None], next_x * 4 + next_y * 2 + next_z].astype(np.int64)
        address = ((home * side + x * ~next_x) * side + y * ~next_y) * side + z * ~next_z
        faces = first[address] + _POPCOUNT[crossing[address] & _BELOW[axes]]
        vertices, faces = _centred(vertices, faces, axes == _CENTRE, owner)
        pieces.append(faces)
    return vertices, np.concatenate(pieces) if pieces else np.zeros((0, 3), np.int32)


_POPCOUNT = np.array([0, 1, 1, 2, 1, 2, 2, 3], np.int32)
_BELOW = np.array([0, 1, 3, 0], np.uint8)
"""Axis → bits of the axes before it."""


def _joined(values: F32, case: NDArray[np.uint8], where: NDArray[np.int32]) -> NDArray[np.uint8]:
    """For each cell, the ambiguous faces (as bits) whose bilinear saddle is inside, so that their insides join."""
    ambiguous = tables().ambiguous[case]
    joined = np.zeros(len(case), np.uint8)
    for number, face in enumerate(FACES):
        some = np.flatnonzero(ambiguous[:, number])
        brick, x, y, z = where[:, some]
        a, b, c, d = (
            values[brick, x + i, y + j, z + k].astype(np.float64) for i, j, k in (CORNERS[corner] for corner in face)
        )
        # The saddle's value is (ac − bd) / (a + c − b − d); the denominator has the sign of a and c.
        positive = np.where(a > 0, a * c > b * d, b * d > a * c)
        joined[some] |= positive.astype(np.uint8) << np.uint8(number)
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
