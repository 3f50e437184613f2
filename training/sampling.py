"""Surface and field samples of a shape, without meshing it, and the camera frame they are given in. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.grammars.clay import turn
from training.sdf import F32, Shape

FILL = 0.8
"""The larger x/y half-extent in the frame; the same number as meshkiln.engines.vecset.crop.FILL."""

_TETRA = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)


@dataclass(frozen=True)
class Placed:
    """A shape in the camera frame: frame point = scale · (turn · p − centre)."""

    shape: Shape
    turn: NDArray[np.float32]
    centre: NDArray[np.float32]
    scale: float

    def inward(self, p: F32) -> F32:
        """Frame points (3, N) to the shape's own coordinates."""
        return np.asarray(self.turn.T @ (p * np.float32(1 / self.scale) + self.centre[:, None]), np.float32)

    def outward(self, p: F32) -> F32:
        return np.asarray((self.turn @ p - self.centre[:, None]) * np.float32(self.scale), np.float32)

    def distance(self, p: F32) -> F32:
        """First-order signed distance at frame points (3, N), in frame units, before gradient correction."""
        return self.shape.distance(self.inward(p)) * np.float32(self.scale)


def gradient(placed: Placed | Shape, p: F32, step: float = 1.5e-3) -> F32:
    """Gradient of the field at p (3, N): its length says how far the field is from a true distance."""
    n = p.shape[1]
    q = (p[:, None, :] + _TETRA.T[:, :, None] * np.float32(step)).reshape(3, 4 * n)
    d = placed.distance(q).reshape(4, n)
    return np.asarray(_TETRA.T @ d / np.float32(4 * step), np.float32)


def surface(shape: Shape, count: int, rng: np.random.Generator, cells: int = 28) -> F32:
    """Points spread evenly over the surface, (3, count) float32, shape frame; fewer only for degenerate shapes.

    Rejection in a thin band about the surface (even by volume), then projection along the gradient.
    Raises ValueError when the shape has no surface inside its bound.
    """
    b = shape.bound
    axis = (np.arange(cells, dtype=np.float32) + 0.5) * (2 * b / cells) - b
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    h = b / cells
    near = grid[:, np.abs(shape.distance(grid)) < 2.7 * h]
    if near.shape[1] == 0:
        raise ValueError(f"{shape.kind}: no surface within ±{b}")
    found: list[F32] = []
    total = 0
    for _ in range(6):
        m = 5 * count
        p = near[:, rng.integers(0, near.shape[1], m)] + rng.uniform(-h, h, (3, m)).astype(np.float32)
        d = shape.distance(p)
        keep = np.abs(d) < 0.09
        p, d = p[:, keep], d[keep]
        g = gradient(shape, p)
        g2 = np.maximum(np.einsum("ij,ij->j", g, g), 0.04)
        keep = np.abs(d) < 0.03 * np.sqrt(g2)
        p = p[:, keep] - g[:, keep] * (d[keep] / g2[keep])
        for _ in range(2):
            d = shape.distance(p)
            g = gradient(shape, p)
            p = p - g * (d / np.maximum(np.einsum("ij,ij->j", g, g), 0.1))
        found.append(p[:, np.abs(shape.distance(p)) < 2e-3])
        total += found[-1].shape[1]
        if total >= count:
            break
    points = np.concatenate(found, axis=1)
    if points.shape[1] < count // 4:
        raise ValueError(f"{shape.kind}: only {points.shape[1]} surface points found")
    return points[:, rng.permutation(points.shape[1])[:count]]


def place(shape: Shape, points: F32, rng: np.random.Generator) -> Placed:
    """Draws a view (azimuth, elevation −10…60°, slight roll) and puts the shape into its camera frame.

    points : (3, N), on the surface, shape frame. Views in which the shape is deeper than 1.2 × its larger
    picture extent are drawn again: the frame has no room for them.
    """
    for attempt in range(12):
        azimuth = rng.normal(0, 0.7) if rng.random() < 0.45 else rng.uniform(-np.pi, np.pi)
        elevation = np.deg2rad(-10 + 70 * rng.beta(1.5, 2.6) * (1 - attempt / 14))
        view = turn(elevation, 0, rng.normal(0, 0.04)) @ turn(0, azimuth)
        q = view @ points
        low, high = q.min(1), q.max(1)
        half = (high - low) / 2
        if half[2] <= 1.2 * max(half[0], half[1]):
            break
    return Placed(
        shape, view.astype(np.float32), ((low + high) / 2).astype(np.float32), float(FILL / max(half[0], half[1]))
    )


def field_samples(placed: Placed, points: F32, rng: np.random.Generator, near: int, volume: int) -> tuple[F32, F32]:
    """Queries and their signed distances: near the surface (half at σ 0.015, half at 0.06) and in the volume.

    points : (3, N) on the surface, frame. Returns (near + volume, 3) and (near + volume,), first the near ones.
    """
    pick = rng.integers(0, points.shape[1], near)
    sigma = np.where(np.arange(near) % 2, 0.06, 0.015)
    close = points[:, pick] + rng.normal(0, 1, (3, near)) * sigma
    extent = np.minimum(np.abs(points).max(1, keepdims=True) * 1.1 + 0.03, 1.0)
    box = np.where(np.arange(volume) % 3, extent, 1.0)
    q = np.concatenate([close, rng.uniform(-1, 1, (3, volume)) * box], axis=1).astype(np.float32)
    q = np.clip(q, -1, 1)
    d = placed.distance(q)
    g = gradient(placed, q)
    length = np.clip(np.sqrt(np.einsum("ij,ij->j", g, g)), 0.5, 2.5)
    return q.T, d / length
