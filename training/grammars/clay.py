"""What a grammar builds with: a growing list of parts and a source of randomness. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.sdf import Part, Primitive

Vector = Sequence[float]


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float32]:
    """Rotation matrix: about x, then y, then z (radians)."""
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float32)


def curve(*points: Vector, count: int = 7) -> NDArray[np.float32]:
    """A Bézier curve through its first and last control point, sampled at `count` points: (count, K) float32."""
    control = np.asarray(points, np.float64)
    t = np.linspace(0, 1, count)[:, None, None]
    level = np.broadcast_to(control[None], (count, *control.shape))
    while level.shape[1] > 1:
        level = level[:, :-1] * (1 - t) + level[:, 1:] * t
    return np.asarray(level[:, 0], np.float32)


def ramp(a: float, b: float, count: int = 7) -> NDArray[np.float32]:
    return np.linspace(a, b, count, dtype=np.float32)


class Clay:
    """Collects the parts of one shape. `u` and `chance` are its dice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.parts: list[Part] = []

    def u(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def count(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def add(
        self,
        primitive: Primitive,
        at: Vector = (0.0, 0.0, 0.0),
        turn: NDArray[np.float32] | None = None,
        op: str = "add",
        k: float = 0.0,
        fold: str = "",
        ring: int = 1,
        paint: int = 0,
    ) -> None:
        self.parts.append(Part(primitive, np.asarray(at, np.float32), turn, op, k, fold, ring, paint))
