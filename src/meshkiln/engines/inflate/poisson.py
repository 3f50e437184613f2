"""The height over a silhouette: Δh = −4 inside, h = 0 on the border, which runs between the nodes of a grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.sparse import csr_array, diags_array

SOURCE = 4.0
"""−Δh: with 4, a disc of radius R gets h = R² − r², the square of a ball's depth."""

COARSEST = 32
"""Grids with no longer side than this start from zero; finer ones from the solution on half the grid."""

TOLERANCE = 1e-3
"""Relative residual at which the solve stops; on photographs the depth is then within 0.01 cells of the exact one."""

MOST_STEPS = 5_000
"""Several times what the largest grid takes from nothing."""

CLEARANCE = 0.05
"""The border keeps this share of a cell away from the nodes, so that no coefficient explodes."""


def crossing(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the border lies on the way from inside nodes (level > 0) to outside ones, as a share of the cell."""
    # A level is cut off far from the border, where it says nothing about distance.
    share = inside.astype(np.float64) / (inside.astype(np.float64) - outside)
    return np.clip(share, CLEARANCE, 1 - CLEARANCE)


def solve(level: NDArray[np.float32]) -> NDArray[np.float64]:
    """The height at every node, in squared cells: > 0 where level > 0, else 0.

    level : (h, w) float32, outside (≤ 0) all along the edge of the grid

    Second order at the border: F. Gibou, R. Fedkiw, L.-T. Cheng, M. Kang, "A Second-Order-Accurate Symmetric
    Discretization of the Poisson Equation on Irregular Domains", J. Comput. Phys. 176, 2002. Conjugate gradients
    start from the coarser grid's solution: F. Bornemann, P. Deuflhard, "The cascadic multigrid method for elliptic
    problems", Numer. Math. 75, 1996.
    """
    inside = level > 0
    height = np.zeros(level.shape)
    count = int(inside.sum())
    if count == 0:
        return height
    index = np.zeros(level.shape, np.int32)
    index[inside] = np.arange(count, dtype=np.int32)
    diagonal = np.zeros(level.shape)
    rows, columns = [], []
    for here, there in _neighbours():
        linked = inside[here] & inside[there]
        rows.append(index[here][linked])
        columns.append(index[there][linked])
        diagonal[here] += linked
        border = inside[here] & ~inside[there]
        diagonal[here][border] += 1 / crossing(level[here][border], level[there][border])
    row, column = np.concatenate(rows), np.concatenate(columns)
    coupling = csr_array((np.full(len(row), -1.0), (row, column)), shape=(count, count))
    matrix = (coupling + diags_array(diagonal[inside])).tocsr()
    found = _conjugate_gradients(matrix, np.full(count, SOURCE), _from_half(level)[inside], 1 / diagonal[inside])
    # A node's own source and nearest border bound its height from below; an unsettled solve may not dip under.
    height[inside] = np.maximum(found, SOURCE / diagonal[inside] / 4)
    return height


def _conjugate_gradients(
    matrix: csr_array, source: NDArray[np.float64], guess: NDArray[np.float64], inverse: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The solution of matrix · x = source from `guess`, preconditioned by the inverse of the matrix's diagonal.

    Not SciPy's, which takes its dot products from BLAS: their threads wait for each other on a busy machine (seconds
    instead of a twentieth of one), and the order of summation, so the result, depends on how many there are.
    """
    x = guess.copy()
    residual = source - matrix @ x
    direction = inverse * residual
    weight = (residual * direction).sum()
    enough = TOLERANCE**2 * (source * source).sum()
    for _ in range(MOST_STEPS):
        if (residual * residual).sum() <= enough:
            break
        moved = matrix @ direction
        step = weight / (direction * moved).sum()
        x += step * direction
        residual -= step * moved
        better = inverse * residual
        weight, before = (residual * better).sum(), weight
        direction *= weight / before
        direction += better
    return x


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The four directions, as (nodes that have a neighbour there, those neighbours)."""
    lower, upper, whole = slice(None, -1), slice(1, None), slice(None)
    pairs = [((lower, whole), (upper, whole)), ((whole, lower), (whole, upper))]
    return pairs + [(there, here) for here, there in pairs]


def _from_half(level: NDArray[np.float32]) -> NDArray[np.float64]:
    if max(level.shape) <= COARSEST:
        return np.zeros(level.shape)
    rows, columns = level.shape
    # Even sides, so that a coarse node stands in the middle of four fine ones.
    even = np.pad(level, ((0, rows % 2), (0, columns % 2)), constant_values=-1.0)
    half = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).mean(axis=(1, 3))
    half = np.pad(half, 1, constant_values=-1.0)
    coarse = solve(half.astype(np.float32))[1:-1, 1:-1] * 4
    fine: NDArray[np.float64] = zoom(coarse, 2, order=1, mode="nearest", grid_mode=True)
    return fine[:rows, :columns]
