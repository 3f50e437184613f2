"""A silhouette's two sheets, front and back, joined along the border: marching squares with a rounded rim."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.inflate.poisson import crossing

RIM = 4
"""Rings that the cells along the border are cut into: the surface stands upright there."""


class Sheets(NamedTuple):
    """One sheet of triangles over the silhouette; the other is its mirror image.

    at : (N, 2) float64, column and row of each vertex on the grid
    height : (N,) float64, squared depth in cells; 0 exactly on the border, > 0 elsewhere
    faces : (M, 3) int64, counter-clockwise as seen by the viewer (rows running down)
    """

    at: NDArray[np.float64]
    height: NDArray[np.float64]
    faces: NDArray[np.int64]


def sheets(level: NDArray[np.float32], height: NDArray[np.float64]) -> Sheets:
    """Triangles over the region level > 0.

    level : (h, w) float32, outside (≤ 0) all along the edge of the grid
    height : (h, w) float64, > 0 wherever level > 0

    The region's border is a set of simple loops, and no other edge joins two border vertices; so the sheet and its
    mirror image, sharing the border, make a closed manifold.
    """
    inside = level > 0
    rows, columns = np.nonzero(inside)
    node = np.full(level.shape, -1, np.int64)
    node[inside] = np.arange(len(rows))
    at, heights = [np.stack([columns, rows], axis=1).astype(np.float64)], [height[inside]]
    # chain[cell edge] lists vertex ids from the border (0) to the inside node (RIM).
    across = _chains(level, height, node, at, heights, axis=1)
    down = _chains(level, height, node, at, heights, axis=0)
    # Corners and edges of each cell, counter-clockwise for the viewer, from the upper left.
    corners = (node[:-1, :-1], node[1:, :-1], node[1:, 1:], node[:-1, 1:])
    edges = (down[:, :-1], across[1:, :], down[:, 1:], across[:-1, :])
    code = sum((corner >= 0).astype(np.int64) << i for i, corner in enumerate(corners))
    # Two opposite corners: joined when the middle of the cell is inside.
    middle = level[:-1, :-1] + level[1:, :-1] + level[1:, 1:] + level[:-1, 1:] > 0
    code = np.where(((code == 5) | (code == 10)) & middle, code + 16, code)
    faces: list[NDArray[np.int64]] = []
    for case, (segments, fans) in _CASES.items():
        cells = code == case
        if not cells.any():
            continue
        faces += [np.stack([corners[i][cells] for i in fan], axis=1) for fan in fans]
        for leaving, entering in segments:
            faces += _strip(edges[leaving][cells], edges[entering][cells])
    return Sheets(np.concatenate(at), np.concatenate(heights), np.concatenate(faces))


def _cases() -> dict[int, tuple[list[tuple[int, int]], list[tuple[int, int, int]]]]:
    """Per cell code: border segments as (edge left by, edge entered by), and triangles of inside corners."""
    cases: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int, int]]]] = {15: ([], [(0, 1, 2), (0, 2, 3)])}
    for i in range(4):
        a, b, c = (i + 1) % 4, (i + 2) % 4, (i + 3) % 4
        cases[1 << i] = ([(i, c)], [])
        cases[1 << i | 1 << c] = ([(i, b)], [])
        cases[15 - (1 << a)] = ([(i, a)], [(b, c, i)])
    for i in range(2):
        opposite = 1 << i | 1 << (i + 2)
        cases[opposite] = ([(i, (i + 3) % 4), (i + 2, i + 1)], [])
        cases[opposite + 16] = ([(i, i + 1), (i + 2, (i + 3) % 4)], [])
    return cases


_CASES = _cases()


def _chains(
    level: NDArray[np.float32],
    height: NDArray[np.float64],
    node: NDArray[np.int64],
    at: list[NDArray[np.float64]],
    heights: list[NDArray[np.float64]],
    axis: int,
) -> NDArray[np.int64]:
    """New vertices on every grid edge along `axis` that the border crosses, appended to `at` and `heights`.

    Returns (edges down, edges across, RIM + 1) vertex ids; −1 where the border does not cross.
    """
    low = [slice(None)] * 2
    high = [slice(None)] * 2
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    first, second = node[tuple(low)], node[tuple(high)]
    chain = np.full((*first.shape, RIM + 1), -1, np.int64)
    fresh = sum(len(part) for part in heights)
    for forward in (True, False):
        crossed = (first >= 0) & (second < 0) if forward else (first < 0) & (second >= 0)
        row, column = np.nonzero(crossed)
        start = np.stack([column, row], axis=1).astype(np.float64)
        step = np.zeros(2)
        step[1 - axis] = 1.0
        if not forward:
            start, step = start + step, -step
        here = start.astype(np.int64)
        there = (start + step).astype(np.int64)
        reach = crossing(level[here[:, 1], here[:, 0]], level[there[:, 1], there[:, 0]])
        tall = height[here[:, 1], here[:, 0]]
        for ring in range(RIM):
            # Height grows about linearly from the border: squares of equal parts make equal steps of depth.
            share = (ring / RIM) ** 2
            at.append(start + step * (reach * (1 - share))[:, None])
            heights.append(tall * share)
            chain[row, column, ring] = fresh + np.arange(len(row))
            fresh += len(row)
        chain[row, column, RIM] = node[here[:, 1], here[:, 0]]
    return chain


def _strip(a: NDArray[np.int64], b: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Triangles between chains a and b, (n, RIM + 1) each, whose border ends (0) follow one another a, b."""
    faces = []
    for ring in range(RIM):
        faces.append(np.stack([a[:, ring + 1], a[:, ring], b[:, ring]], axis=1))
        second = np.stack([a[:, ring + 1], b[:, ring], b[:, ring + 1]], axis=1)
        # Where both chains end in one node the last quad is a triangle.
        faces.append(second[second[:, 0] != second[:, 2]])
    return faces
