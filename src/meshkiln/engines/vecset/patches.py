"""The patch decoder: the field as learned expansions about the nodes of a coarse lattice, sampled near the surface.

`training/patches.py` says what the expansions are. A node costs one query of the network. All samples of a cell then
are one row of a matrix product of its corners' numbers and a table that depends on the grid alone. The cells that hold
the surface are found by nodes and a few probes, and followed where the surface leaves them until it closes, so that the
mesh is watertight.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset import cubes, runtime, sparse
from meshkiln.engines.vecset.grid import F32, OUTSIDE, Field, Mesh

Ints = NDArray[np.int64]

CELLS = 32
"""Cells of the lattice along an axis of the box."""

CORNERS = np.array(cubes.CORNERS)
"""A cell's corners in the order of the tables."""

NODES = CELLS + 1
PLACE = np.array([NODES * NODES, NODES, 1])

SLOPE = 60.0 * 2 / CELLS
"""How much the logit changes over a cell of the lattice, head-on: training's sharpness times the cell."""

MARGIN = 0.7
"""A cell without a change of sign is looked into when its corners' mean |logit| is below this share of its slope: what
`sparse.MARGIN` is to the sparse decoder."""

PROBED = 0.27
"""A brick without a change of sign at its probes is sampled when one of them is below this share of its slope: a plate
between two layers of probes is a quarter of a brick away from one of them."""

UNSAFE = 1e-3
"""Two bricks may round a sample they share differently, by less than this: closer to 0 its sign is not relied on."""

SIDE = 8
"""Samples along a brick's edge at most."""

CALL = 4096
"""Nodes asked for at once; see `decode.CALL`."""

TABLES = 16
"""Tables kept, of 2 MB each at most: what 256³ and 512³ take. A grid of 1024³ makes its 64 anew each time."""

ROWS = 1024
"""Bricks sampled by one product: what it leaves then stays in the cache."""


def serves(resolution: int) -> bool:
    """Whether the grid's cells divide the lattice's, so that bricks are rows of one table."""
    return resolution % CELLS == 0


class Lattice:
    """The nodes of one field that were asked for.

    value : (NODES³,) float32   the field at each known node
    known : (NODES³,) bool
    calls : of the network, so far
    held : (NODES³, K) float32  what each known node holds
    """

    def __init__(self, features: F32) -> None:
        self.features = features[None]
        terms = _table((0.0,)).shape[0] // len(CORNERS)
        self.value = np.zeros(NODES**3, np.float32)
        self.known = np.zeros(NODES**3, bool)
        self.calls = 0
        self.held = np.empty((NODES**3, terms), np.float32)
        self._own = _table((0.0,))[:terms, 0]

    def know(self, nodes: Ints) -> None:
        """Ask for those of the nodes (N,), by number, that are not known."""
        wanted = np.zeros(NODES**3, bool)
        wanted[nodes] = True
        new = np.flatnonzero(wanted & ~self.known)
        if len(new) == 0:
            return
        points = _points(new)
        for start in range(0, len(new), CALL):
            part = slice(start, start + CALL)
            self.held[new[part]] = runtime.run("nodes.onnx", features=self.features, points=points[None, part])[0]
            self.calls += 1
        self.value[new] = self.held[new] @ self._own
        self.known[new] = True

    def corners(self, cells: Ints) -> Ints:
        """Numbers (n, 8) of the corners of the cells (n, 3)."""
        numbers: Ints = (cells @ PLACE)[:, None] + CORNERS @ PLACE
        return numbers

    def promising(self, cells: Ints, size: int) -> NDArray[np.bool_]:
        """Which cells of `size`, by their lower corner (n, 3), the surface crosses or may cross."""
        corner = self.value[(cells @ PLACE)[:, None] + size * (CORNERS @ PLACE)]
        inside = (corner > 0).sum(axis=1)
        crossed = (inside > 0) & (inside < len(CORNERS))
        may: NDArray[np.bool_] = crossed | (np.abs(corner.mean(axis=1)) < MARGIN * SLOPE * size)
        return may

    def cells(self) -> Ints:
        """The cells (n, 3) that may hold the surface, found by every second node first."""
        coarse = _every(0, CELLS, 2)
        self.know(_every(0, NODES, 2) @ PLACE)
        coarse = coarse[self.promising(coarse, 2)]
        self.know(np.unique((coarse @ PLACE)[:, None] + _every(0, 3, 1) @ PLACE))
        fine: Ints = (coarse[:, None] + CORNERS).reshape(-1, 3)
        return fine[self.promising(fine, 1)]

    def sampled(self, cells: Ints, table: F32) -> F32:
        """Logits (n, S) at the table's S places in each of the cells (n, 3)."""
        corner = self.corners(cells)
        self.know(corner.ravel())
        out = np.empty((len(cells), table.shape[1]), np.float32)
        for start in range(0, len(cells), ROWS):
            part = slice(start, start + ROWS)
            out[part] = runtime.run("blend.onnx", held=self.held, corners=corner[part], table=table)
        return out


def decode_one(features: F32, resolution: int) -> tuple[Mesh, sparse.Cost]:
    """The surface of the field of `features` (L, W) in the box [−1, 1]³, and what it cost in nodes asked for.

    resolution : cells of the grid along an axis; those that `serves` refuses are sampled point by point.
    """
    if not serves(resolution):
        return sparse.decode_one(field(features), resolution)
    lattice = Lattice(features)
    bricks = Bricks(lattice, resolution)
    bricks.find()
    cost = sparse.Cost(int(lattice.known.sum()), lattice.calls, float(CELLS))
    if len(bricks.place) == 0:
        return Mesh.empty(), cost
    vertices, faces = cubes.extract(*bricks.surface())
    return Mesh((vertices * (2 / resolution) - 1).astype(np.float32), faces), cost


class Bricks:
    """The samples near one field's surface on a grid of `resolution` cells, in bricks of side³ cells.

    place : (n, 3) int64   bricks, in brick units
    values : (n, side+1, side+1, side+1) float32   their samples and the next bricks' first ones
    """

    def __init__(self, lattice: Lattice, resolution: int) -> None:
        self.lattice, self.resolution = lattice, resolution
        across = resolution // CELLS
        self.side = next((d for d in range(SIDE, 1, -1) if across % d == 0), across)
        self.parts = across // self.side
        count = resolution // self.side
        self.slot = np.full((count + 1,) * 3, -1, np.int32)
        self.place = np.zeros((0, 3), np.int64)
        self.values = np.zeros((0, *(self.side + 1,) * 3), np.float32)

    def find(self) -> None:
        """Sample the bricks that may hold the surface, and their neighbours until it leaves none of them."""
        new = self._probed(self.lattice.cells())
        while len(new):
            values = self._sampled(new)
            self.slot[tuple(new.T)] = np.arange(len(self.place), len(self.place) + len(new))
            self.place = np.concatenate([self.place, new])
            self.values = np.concatenate([self.values, values])
            new = self._left(new, values)

    def surface(self) -> tuple[F32, NDArray[np.int32], NDArray[np.int32]]:
        """What `cubes.extract` asks for, of the bricks that the surface crosses."""
        flat = self.values.reshape(len(self.values), -1)
        inside = flat > 0
        crossed = inside.any(axis=1) & ~inside.all(axis=1)
        kept, place = self.values[crossed], self.place[crossed].astype(np.int32)
        slot = np.full(self.slot.shape, -1, np.int32)
        slot[tuple(place.T)] = np.arange(len(place))
        neighbours = np.stack([slot[tuple((place + corner).T)] for corner in CORNERS], axis=1)
        last = self.side
        for number, corner in list(enumerate(CORNERS))[1:]:
            # A sample that bricks share is its owner's, so that all of them see one sign.
            some = np.flatnonzero(neighbours[:, number] >= 0)
            to = tuple(slice(last, None) if o else slice(0, last) for o in corner)
            of = tuple(slice(0, 1) if o else slice(0, last) for o in corner)
            kept[(some, *to)] = kept[(neighbours[some, number], *of)]
        return kept, neighbours, place * self.side

    def _probed(self, cells: Ints) -> Ints:
        """Bricks (n, 3) of the cells that may hold the surface, told by samples half a brick apart."""
        steps = 2 * self.parts + 1
        probes = self.lattice.sampled(cells, _table(tuple(i / (steps - 1) for i in range(steps))))
        probes = probes.reshape(-1, steps, steps, steps)
        found = []
        for part in product(range(self.parts), repeat=3):
            own = probes[(slice(None), *(slice(2 * p, 2 * p + 3) for p in part))].reshape(-1, 27)
            low, high = own.min(axis=1), own.max(axis=1)
            nearest = np.abs(own).min(axis=1)
            may = ((low <= 0) & (high > 0)) | (nearest < PROBED * SLOPE / self.parts)
            found.append(cells[may] * self.parts + part)
        return np.concatenate(found)

    def _sampled(self, place: Ints) -> F32:
        """The samples of the bricks (n, 3), outside on the box's faces."""
        values = np.empty((len(place), *self.values.shape[1:]), np.float32)
        cells, parts = np.divmod(place, self.parts)
        across = self.parts * self.side
        which = parts @ np.array([self.parts**2, self.parts, 1])
        for number, part in enumerate(product(range(self.parts), repeat=3)):
            own = np.flatnonzero(which == number)
            if len(own):
                axes = tuple(tuple((p * self.side + i) / across for i in range(self.side + 1)) for p in part)
                values[own] = self.lattice.sampled(cells[own], _table(*axes)).reshape(-1, *values.shape[1:])
        for along in range(3):
            faces = np.moveaxis(values, along + 1, 1)
            for index, at in ((0, 0), (-1, self.resolution // self.side - 1)):
                first = place[:, along] == at
                faces[first, index] = np.minimum(faces[first, index], np.float32(OUTSIDE))
        return values

    def _left(self, place: Ints, values: F32) -> Ints:
        """Bricks not sampled yet into which the surface of these leaves, through the face between them."""
        found = []
        for along, (index, step) in product(range(3), ((0, -1), (-1, 1))):
            face = np.take(values, index, axis=along + 1).reshape(len(values), -1)
            crossed = (face.min(axis=1) < UNSAFE) & (face.max(axis=1) > -UNSAFE)
            next_one = place[crossed].copy()
            next_one[:, along] += step
            found.append(next_one)
        there = np.concatenate(found)
        last = self.resolution // self.side
        there = there[((there >= 0) & (there < last)).all(axis=1)]
        return np.unique(there[self.slot[tuple(there.T)] < 0], axis=0)


def field(features: F32) -> Field:
    """The same field, at any points (N, 3): for grids that bricks do not fit, at a query's price each."""
    lattice = Lattice(features)

    def parts(points: F32) -> Iterator[F32]:
        for start in range(0, len(points), CALL):
            scaled = (points[start : start + CALL].astype(np.float64) + 1) * (CELLS / 2)
            cells = np.clip(np.floor(scaled), 0, CELLS - 1).astype(np.int64)
            corner = lattice.corners(cells)
            lattice.know(corner.ravel())
            table = runtime.run("basis.onnx", offsets=(scaled - cells).astype(np.float32))
            yield np.einsum("nk,kn->n", lattice.held[corner].reshape(len(cells), -1), table)

    def logits(points: F32) -> F32:
        return np.concatenate(list(parts(points))) if len(points) else np.zeros(0, np.float32)

    return logits


@lru_cache(maxsize=TABLES)
def _table(x: tuple[float, ...], y: tuple[float, ...] | None = None, z: tuple[float, ...] | None = None) -> F32:
    """(8·K, S): what every number of a cell's corners counts for at the S places x × y × z in the cell."""
    axes = (x, x if y is None else y, x if z is None else z)
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return runtime.run("basis.onnx", offsets=offsets.astype(np.float32))


def _every(first: int, end: int, step: int) -> Ints:
    """(n³, 3): all triples of first, first + step, … below `end`."""
    along = np.arange(first, end, step)
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)


def _points(nodes: Ints) -> F32:
    """Places (N, 3) of nodes, by number."""
    index = np.stack(np.unravel_index(nodes, (NODES,) * 3), axis=1)
    return (index * (2.0 / CELLS) - 1).astype(np.float32)
