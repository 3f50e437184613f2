"""The sparse decoder: a coarse grid, then only the cells that can hold the surface, down to the dense grid's samples.

Each level halves (or thirds) the cells that a surface crosses or could cross. Where a finer level finds the surface
leaving the cells that were refined, it is followed until it closes. So a component of which any cell was refined is
found whole, with the very vertices of the dense grid, and the mesh is watertight; what can be missed is a component
that fits between coarse samples. A ball two coarse cells wide always holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset import cubes
from meshkiln.engines.vecset.bricks import Bools, Bricks, Questions
from meshkiln.engines.vecset.grid import F32, OUTSIDE, Field, Mesh

COARSE = 32
"""Cells along an axis that the first level has at least (when the resolution allows)."""

MARGIN = 0.87
"""Default of `margin`; benchmarks/decode.py measures what it finds and costs."""


BRICK = 8
"""Samples along a brick's edge at most: larger ones hold more that is far from the surface."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a decode asked of the field, and how many cells the coarse grid had along an axis."""

    queries: int
    calls: int
    coarse: float


def strides(resolution: int, coarse: int = COARSE) -> list[int]:
    """Cell sizes in fine cells, coarsest to 1: the first leaves at least `coarse` cells, the ratios are 2 or 3."""
    first = max(resolution // max(coarse, 1), 1)
    while True:
        sizes, rest = [first], first
        for prime in (3, 2):
            while rest % prime == 0:
                rest //= prime
                sizes.append(rest)
        if rest == 1:
            return sizes
        first -= 1


def _cells(values: F32, band: float) -> NDArray[np.bool_]:
    """Of samples (n, k+1, k+1, k+1), the cells (n, k, k, k) to refine.

    Those whose corners differ in sign, and those whose corners' mean |logit| is below `band`. The mean tells a cell
    beside a flat surface (half a cell's step and more) from one with a plate hidden inside (less).
    """
    some: NDArray[np.bool_] = values > 0
    every, total = some, values
    for along in (1, 2, 3):
        low: list[slice] = [slice(None)] * 4
        high: list[slice] = [slice(None)] * 4
        low[along], high[along] = slice(None, -1), slice(1, None)
        lower, upper = tuple(low), tuple(high)
        some, every = some[lower] | some[upper], every[lower] & every[upper]
        if band > 0:
            total = total[lower] + total[upper]
    crossed = some & ~every
    return crossed | (np.abs(total) < 8 * band) if band > 0 else crossed


def _slope(values: F32) -> float:
    """How much the logit changes over one coarse cell where it crosses the surface head-on; 0 when it never does."""
    steps = []
    for along in range(3):
        low, high = np.moveaxis(values, along, 0)[:-1], np.moveaxis(values, along, 0)[1:]
        steps.append(np.abs(high - low)[(low > 0) != (high > 0)])
    crossing = np.concatenate(steps)
    return float(np.quantile(crossing, 0.95)) if crossing.size else 0.0


def _spread(cells: NDArray[np.bool_], ratio: int) -> NDArray[np.bool_]:
    """The samples (n, k·ratio+1, …) of the cells (n, k, k, k), `ratio` finer, corners included."""
    wanted = cells
    for along in (1, 2, 3):
        repeated = np.repeat(wanted, ratio, axis=along)
        shape = list(repeated.shape)
        shape[along] += 1
        grown = np.zeros(shape, bool)
        low: list[slice] = [slice(None)] * 4
        high: list[slice] = [slice(None)] * 4
        low[along], high[along] = slice(None, -1), slice(1, None)
        grown[tuple(low)] = repeated
        grown[tuple(high)] |= repeated
        wanted = grown
    return wanted


def _follow(bricks: Bricks, step: int) -> None:
    """Ask for the corners of every cell the surface crosses, until it crosses none with an unknown corner."""
    while True:
        bricks.reach_down(step)
        if not bricks.ask(_spread(_cells(bricks.haloed(step), 0.0), 1), step):
            return


def _lattice(questions: Questions, sizes: Sequence[int], margin: float) -> tuple[F32, Bools, float]:
    """Every sizes[-1]-th sample, refined from every sizes[0]-th: values and whether they were asked for, padded.

    Also returns the band (see `_cells`) of a cell of sizes[0].
    """
    across = questions.resolution // sizes[0] + 1
    values = np.full((across + 1,) * 3, OUTSIDE, np.float32)
    values[:-1, :-1, :-1] = questions(_samples(np.ones((across,) * 3, bool), sizes[0])).reshape((across,) * 3)
    known = np.ones(values.shape, bool)
    band = margin * _slope(values[1:-1, 1:-1, 1:-1]) if margin > 0 else 0.0
    for step, finer in pairwise(sizes):
        wanted = _spread(_cells(values[None], band * step / sizes[0]), step // finer)[0]
        across = questions.resolution // finer + 1
        refined, asked = np.full((across + 1,) * 3, OUTSIDE, np.float32), np.ones((across + 1,) * 3, bool)
        asked[:-1, :-1, :-1] = False
        own = (slice(0, across),) * 3
        for along in range(3):
            values = np.repeat(values, step // finer, axis=along)
        refined[own] = values[own]
        every = (slice(0, across, step // finer),) * 3
        asked[every] = known[tuple(slice(0, n) for n in asked[every].shape)]
        while (new := wanted[own] & ~asked[own]).any():
            refined[own][new] = questions(_samples(new, finer))
            asked[own] |= new
            wanted = _spread(_cells(refined[None], 0.0), 1)[0]
        values, known = refined, asked
    return values, known, band


def _samples(chosen: Bools, step: int) -> NDArray[np.int64]:
    """Indices (N, 3) on the grid of the chosen ones of every step-th sample."""
    return np.argwhere(chosen) * step


def decode_one(
    field: Field, resolution: int, half: float = 1.0, coarse: int = COARSE, margin: float = MARGIN
) -> tuple[Mesh, Cost]:
    """The surface of one field and what it cost; see `decode`."""
    questions = Questions(field, resolution, half)
    sizes = strides(resolution, coarse)
    whole = next(i for i, size in enumerate(sizes) if size <= BRICK)
    lattice, known, band = _lattice(questions, sizes[: whole + 1], margin)
    bricks = Bricks(questions, sizes[whole], lattice, known)
    bricks.allocate(np.argwhere(_cells(lattice[None], band * sizes[whole] / sizes[0])[0]).astype(np.int32))
    for step, finer in pairwise(sizes[whole:]):
        cells = _cells(bricks.haloed(step), band * step / sizes[0])
        bricks.stand_in(step, finer)
        bricks.ask(_spread(cells, step // finer), finer)
        _follow(bricks, finer)
    cost = Cost(questions.queries, questions.calls, resolution / sizes[0])
    if len(bricks) == 0:
        return Mesh.empty(), cost
    vertices, faces = cubes.extract(bricks.haloed(), bricks.neighbours(), bricks.place * bricks.side)
    placed = (vertices / resolution * (2 * half) - half).astype(np.float32)
    return Mesh(placed, faces), cost


def decode(
    fields: Sequence[Field], resolution: int, half: float = 1.0, coarse: int = COARSE, margin: float = MARGIN
) -> list[Mesh]:
    """The surfaces of several fields, each decoded from its own samples alone.

    resolution : cells along an axis; any number from 2
    coarse : cells along an axis of the first level; a component that holds a ball two of them wide is always found
    margin : also refine cells without a sign change whose corners' mean |logit| is below `margin` × the step that the
        logit takes across a cell at the surface; finds thinner components for more queries. For a field as steep
        everywhere, 0.5 finds every hidden plate and 0.87 everything
    """
    return [decode_one(field, resolution, half, coarse, margin)[0] for field in fields]
