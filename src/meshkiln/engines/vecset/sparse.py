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
from meshkiln.engines.vecset.bricks import Bools, Bricks, Ints, Questions, interpolated
from meshkiln.engines.vecset.grid import F32, OUTSIDE, Field, Mesh

COARSE = 32
"""Cells along an axis that the first level has at least (when the resolution allows)."""

MARGIN = 0.7
"""Default of `margin`; benchmarks/decode.py measures what it finds and costs."""


LAST = 0.2
"""Share of the margin that is kept in cells of two below the coarse ones. With all of it a learned field is asked half
as often again, for crumbs thinner than two cells of the grid."""

UNSURE = 0.2
"""A sample that interpolation puts this close to the surface, in cells of its level, is asked for: its sign may be
another. benchmarks/decode.py shows what that finds."""

DOUBT = 4.0
"""Times as far off as its neighbours were may a stand-in be."""

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


def _cells(values: F32) -> tuple[Bools, Bools, F32]:
    """Of samples (n, k+1, k+1, k+1): which cells (n, k, k, k) have corners inside, which have all; the corners' sum."""
    some: Bools = values > 0
    every, total = some, values
    for along in (1, 2, 3):
        low, high = _halves(along)
        some, every = some[low] | some[high], every[low] & every[high]
        total = total[low] + total[high]
    return some, every, total


def _crossed(values: F32) -> Bools:
    """Cells whose corners differ in sign."""
    some, every, _ = _cells(values)
    return some & ~every


def _ends(values: F32, unsure: float = 0.0) -> Bools:
    """Samples of (n, k+1, k+1, k+1) that a vertex lies beside: the ends of sides that cross the surface.

    A cell's other corners are needed for their sign alone. Those of less than `unsure` are included: they may have
    the wrong one.
    """
    inside = values > 0
    ends: Bools = np.abs(values) < unsure if unsure > 0 else np.zeros(values.shape, bool)
    for along in (1, 2, 3):
        low, high = _halves(along)
        crossing = inside[low] != inside[high]
        ends[low] |= crossing
        ends[high] |= crossing
    return ends


def _may_ask(values: F32, unsure: float) -> Bools:
    """Which bricks (n,) of samples (n, k+1, k+1, k+1) have `_ends` in a finer grid, interpolated between them."""
    flat = values.reshape(len(values), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    may: Bools = (low < unsure) & (high > -unsure) if unsure > 0 else (low <= 0) & (high > 0)
    return may


def _near(values: F32, band: float) -> Bools:
    """Cells whose corners agree in sign and whose mean |logit| is below `band`.

    The mean tells a cell beside a flat surface (half a cell's step and more) from one with a plate hidden inside.
    """
    some, every, total = _cells(values)
    near: Bools = (some == every) & (np.abs(total) < 8 * band)
    return near


def _slope(values: F32) -> float:
    """How much the logit changes over one coarse cell where it crosses the surface head-on.

    Where no side of a cell crosses it, a shape could still hide between samples: then the steepest step there is.
    """
    steps, crossing = [], []
    for along in range(3):
        low, high = np.moveaxis(values, along, 0)[:-1], np.moveaxis(values, along, 0)[1:]
        steps.append(np.abs(high - low).ravel())
        crossing.append(((low > 0) != (high > 0)).ravel())
    step, crosses = np.concatenate(steps), np.concatenate(crossing)
    if crosses.any():
        return float(np.quantile(step[crosses], 0.95))
    return float(step.max(initial=0.0))


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
    """Ask for the ends of every side that crosses the surface, until both ends of all of them are known."""
    while True:
        bricks.reach_down(step)
        which = bricks.disturbed()
        if len(which) == 0:
            return
        bricks.ask(_ends(bricks.haloed(step, which)), step, which)


def _doubted(bricks: Bricks, step: int, which: Ints) -> Bools:
    """Samples of some bricks and their halo whose stand-in is closer to 0 than answers in a cell they share were off,
    times DOUBT."""
    off = bricks.haloed(step, which, surprise=True)
    for along in (1, 2, 3):
        low, high = _halves(along)
        off = np.maximum(off[low], off[high])
    for along in (1, 2, 3):
        shape = list(off.shape)
        shape[along] += 1
        grown = np.zeros(shape, np.float32)
        low, high = _halves(along)
        grown[low] = off
        np.maximum(grown[high], off, out=grown[high])
        off = grown
    doubted: Bools = np.abs(bricks.haloed(step, which)) < DOUBT * off
    return doubted


def _halves(along: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of all but the last, and of all but the first, along one axis of four."""
    lower: list[slice] = [slice(None)] * 4
    upper: list[slice] = [slice(None)] * 4
    lower[along], upper[along] = slice(None, -1), slice(1, None)
    return tuple(lower), tuple(upper)


def _lattice(questions: Questions, sizes: Sequence[int], margin: float) -> tuple[F32, Bools, float]:
    """Every sizes[-1]-th sample, refined from every sizes[0]-th: values and whether they were asked for, padded.

    Also returns the logit's step across a cell of sizes[0] at the surface.
    """
    across = questions.resolution // sizes[0] + 1
    values = np.full((across + 1,) * 3, OUTSIDE, np.float32)
    values[:-1, :-1, :-1] = questions(_samples(np.ones((across,) * 3, bool), sizes[0])).reshape((across,) * 3)
    known = np.ones(values.shape, bool)
    slope = _slope(values[1:-1, 1:-1, 1:-1])
    for step, finer in pairwise(sizes):
        ratio, across = step // finer, questions.resolution // finer + 1
        own = (slice(0, across),) * 3
        wanted = _spread(_near(values[None], margin * slope * step / sizes[0]), ratio)[0]
        refined, asked = np.full((across + 1,) * 3, OUTSIDE, np.float32), np.ones((across + 1,) * 3, bool)
        refined[own] = interpolated(values[None], ratio)[0][own]
        asked[own] = False
        every = (slice(0, across, ratio),) * 3
        asked[every] = known[tuple(slice(0, n) for n in asked[every].shape)]
        unsure = UNSURE * slope * finer / sizes[0]
        while (new := (_ends(refined[None], unsure)[0][own] | wanted[own]) & ~asked[own]).any():
            refined[own][new] = questions(_samples(new, finer))
            asked[own] |= new
            unsure = 0.0
        values, known = refined, asked
    return values, known, slope


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
    lattice, known, slope = _lattice(questions, sizes[: whole + 1], margin)
    bricks = Bricks(questions, sizes[whole], lattice, known)
    held = _crossed(lattice[None]) | _near(lattice[None], margin * slope * sizes[whole] / sizes[0])
    bricks.allocate(np.argwhere(held[0]).astype(np.int32))
    if len(bricks) == 0:
        return Mesh.empty(), Cost(questions.queries, questions.calls, resolution / sizes[0])
    seen = bricks.every()
    for step, finer in pairwise(sizes[whole:]):
        coarser = bricks.haloed(step)
        bricks.stand_in(coarser, step // finer)
        share = LAST if step == 2 < sizes[0] else 1.0
        near = _near(coarser, margin * share * slope * step / sizes[0])
        unsure = UNSURE * slope * finer / sizes[0]
        # Half the bricks of the last level hold nothing that is asked for there, and need not be looked at again.
        which = np.flatnonzero(_may_ask(coarser, unsure) | near.reshape(len(near), -1).any(axis=1)).astype(np.int32)
        wanted = _ends(bricks.haloed(finer, which), unsure)
        wanted |= _spread(near[which], step // finer)
        bricks.asked[:] = False
        bricks.ask(wanted, finer, which)
        which = bricks.around(bricks.asked)
        bricks.ask(_doubted(bricks, finer, which), finer, which)
        _follow(bricks, finer)
        # A side that crosses has an end that was not in a coarser grid.
        seen = bricks.around(bricks.asked)
    among = np.full(len(bricks) + 1, -1, np.int32)  # the last for slot −1
    among[seen] = np.arange(len(seen), dtype=np.int32)
    neighbours = among[bricks.neighbours(seen)]
    vertices, faces = cubes.extract(bricks.haloed(which=seen), neighbours, bricks.place[seen] * bricks.side)
    placed = (vertices / resolution * (2 * half) - half).astype(np.float32)
    return Mesh(placed, faces), Cost(questions.queries, questions.calls, resolution / sizes[0])


def decode(
    fields: Sequence[Field], resolution: int, half: float = 1.0, coarse: int = COARSE, margin: float = MARGIN
) -> list[Mesh]:
    """The surfaces of several fields, each decoded from its own samples alone.

    resolution : cells along an axis; any number from 2
    coarse : cells along an axis of the first level; a component that holds a ball two of them wide is always found
    margin : also refine cells without a sign change whose corners' mean |logit| is below `margin` × the step that the
        logit takes across a cell at the surface; finds thinner components for more queries. For a field as steep
        everywhere, 0.5 finds every hidden plate and 0.87 everything that is two cells of the grid thick
    """
    return [decode_one(field, resolution, half, coarse, margin)[0] for field in fields]
