"""The procedural test set, frozen before training: 200 shapes no training run draws. NumPy and Pillow only.

    from training.testset import items
    for item in items():            # 200, always the same
        item.rgba, item.surface, item.normals, item.distance(points)

Disjoint from training in three ways: its own seeds; warp strengths from a band that training leaves out; and a fifth
of it from grammars (lamps, rockets) that training never draws from. `python -m training.testset` prints the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.render import render, spoil
from training.sampling import Placed, gradient, place, surface
from training.shapes import generator, make

COUNT = 200
POINTS = 8192
FROZEN = "bfb6f4276db25f7a"
"""Digest of the shapes' parameters; a grammar that is edited afterwards changes it, and the test says so."""


@dataclass(frozen=True)
class Item:
    """One test shape in its camera frame (training/INTERFACE.md).

    rgba : (128, 128, 4) uint8 straight alpha, spoiled as training pictures are; `clean` the same without damage
    surface, normals : (8192, 3) float32, spread evenly over the surface
    """

    index: int
    kind: str
    held_out: bool
    rgba: NDArray[np.uint8]
    clean: NDArray[np.uint8]
    surface: NDArray[np.float32]
    normals: NDArray[np.float32]
    placed: Placed

    def distance(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Signed distance (first-order, sign exact, negative inside) at points (N, 3) of the frame."""
        return self.placed.distance(np.ascontiguousarray(points.T, dtype=np.float32))


def item(index: int) -> Item:
    from training.grammars import HELD_OUT

    shape = make("test", index)
    rng = generator("test", index, 1)
    own = surface(shape, POINTS, rng)
    placed = place(shape, own, rng)
    points = placed.outward(own)
    g = gradient(placed, points)
    picture = render(placed, points, rng)
    return Item(
        index,
        shape.kind,
        shape.kind in HELD_OUT,
        spoil(picture.rgba, rng),
        picture.rgba,
        points.T.copy(),
        (g / np.maximum(np.linalg.norm(g, axis=0), 1e-6)).T.copy(),
        placed,
    )


def items(count: int = COUNT) -> Iterator[Item]:
    """The first `count` test shapes; about 0.1 s each on one core."""
    return (item(i) for i in range(count))


def digest() -> str:
    """Names the test set by what its shapes were drawn as; independent of floating-point details beyond 10⁻⁴."""
    h = hashlib.sha256()
    for i in range(COUNT):
        s = make("test", i)
        w = s.warp
        numbers = [
            *w.stretch,
            w.taper,
            w.bend,
            w.twist,
            w.bump,
            w.frequency,
            *(x for p in s.parts for x in (*p.at, p.k)),
        ]
        h.update(f"{s.kind} {len(s.parts)} {' '.join(f'{float(x) + 0.0:.4f}' for x in numbers)}\n".encode())
    return h.hexdigest()[:16]


if __name__ == "__main__":
    print(digest())
