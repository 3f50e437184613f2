"""Analytic signed distance fields: primitives, and shapes composed of them. NumPy only.

A shape is a list of parts combined in order. Coordinates are structure-of-arrays, (3, N) float32, because a
training run evaluates some 10⁵ points per shape and contiguous rows are what NumPy is fast at. Distances are exact
or first-order (ellipsoid, warped shapes); their sign is always exact. Formulas: I. Quilez, "Distance functions".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Primitive = Callable[[F32], F32]


def _norm2(a: F32, b: F32) -> F32:
    return np.sqrt(a * a + b * b)


def ellipsoid(rx: float, ry: float, rz: float) -> Primitive:
    """Radii along the axes; first-order distance."""
    inv = np.array([[1 / rx], [1 / ry], [1 / rz]], np.float32)
    inv2 = inv * inv
    small = min(rx, ry, rz)

    def f(p: F32) -> F32:
        a = p * inv
        b = p * inv2
        k0 = np.sqrt(np.einsum("ij,ij->j", a, a))
        k1 = np.sqrt(np.einsum("ij,ij->j", b, b))
        return np.where(k0 < 1e-4, np.float32(-small), k0 * (k0 - 1) / np.maximum(k1, 1e-6))

    return f


def box(hx: float, hy: float, hz: float, r: float = 0.0) -> Primitive:
    """Half-extents, edges rounded by r (the extents stay)."""
    r = min(r, 0.95 * min(hx, hy, hz))
    half = np.array([[hx - r], [hy - r], [hz - r]], np.float32)

    def f(p: F32) -> F32:
        q = np.abs(p) - half
        outside = np.maximum(q, 0)
        inside = np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0)
        return np.sqrt(np.einsum("ij,ij->j", outside, outside)) + inside - np.float32(r)

    return f


def capsule(ax: float, ay: float, az: float, r0: float, r1: float | None = None) -> Primitive:
    """From the origin to a, radius r0 there to r1 at a (a cone with round ends, first-order)."""
    a = np.array([ax, ay, az], np.float32)
    r1 = r0 if r1 is None else r1
    length2 = max(float(a @ a), 1e-9)
    dr = np.float32(r1 - r0)

    def f(p: F32) -> F32:
        h = np.clip((a @ p) / np.float32(length2), 0, 1)
        dx, dy, dz = p[0] - a[0] * h, p[1] - a[1] * h, p[2] - a[2] * h
        return np.sqrt(dx * dx + dy * dy + dz * dz) - (np.float32(r0) + dr * h)

    return f


def cylinder(r: float, h: float, rounding: float = 0.0) -> Primitive:
    """Axis y, radius r, half-height h."""
    rounding = min(rounding, 0.95 * min(r, h))

    def f(p: F32) -> F32:
        dx = _norm2(p[0], p[2]) - np.float32(r - rounding)
        dy = np.abs(p[1]) - np.float32(h - rounding)
        return np.minimum(np.maximum(dx, dy), 0) + _norm2(np.maximum(dx, 0), np.maximum(dy, 0)) - np.float32(rounding)

    return f


def torus(major: float, minor: float) -> Primitive:
    """Ring in the x–z plane."""

    def f(p: F32) -> F32:
        return _norm2(_norm2(p[0], p[2]) - np.float32(major), p[1]) - np.float32(minor)

    return f


def link(major: float, stretch: float, minor: float) -> Primitive:
    """An oblong ring in the x–y plane, its straight sides along y: handles, chain links."""

    def f(p: F32) -> F32:
        y = np.maximum(np.abs(p[1]) - np.float32(stretch), 0)
        return _norm2(_norm2(p[0], y) - np.float32(major), p[2]) - np.float32(minor)

    return f


def _segments(px: F32, py: F32, points: NDArray[np.float32], closed: bool) -> tuple[F32, F32]:
    """Distance to a 2-D polyline, and the sign (−1 inside) if it is closed."""
    best = np.full_like(px, np.inf)
    sign = np.ones_like(px)
    n = len(points)
    for i in range(n if closed else n - 1):
        ax, ay = points[i]
        bx, by = points[(i + 1) % n]
        ex, ey = bx - ax, by - ay
        wx, wy = px - ax, py - ay
        h = np.clip((wx * ex + wy * ey) / max(float(ex * ex + ey * ey), 1e-12), 0, 1)
        dx, dy = wx - ex * h, wy - ey * h
        np.minimum(best, dx * dx + dy * dy, out=best)
        if closed:
            above, below = py >= ay, py < by
            cross = ex * wy > ey * wx
            flip = (above & below & cross) | (~above & ~below & ~cross)
            sign[flip] *= -1
    return np.sqrt(best), sign


def shell(profile: NDArray[np.float32], thickness: float) -> Primitive:
    """The open profile (K, 2) of (radius, height), revolved about y and thickened: vessels, bowls, glasses."""

    def f(p: F32) -> F32:
        d, _ = _segments(_norm2(p[0], p[2]), p[1], profile, closed=False)
        return d - np.float32(thickness)

    return f


def lathe(profile: NDArray[np.float32], rounding: float = 0.0) -> Primitive:
    """The closed polygon (K, 2) of (radius, height), revolved about y: bottles, knobs, wheels."""

    def f(p: F32) -> F32:
        d, sign = _segments(_norm2(p[0], p[2]), p[1], profile, closed=True)
        return d * sign - np.float32(rounding)

    return f


def prism(polygon: NDArray[np.float32], h: float, rounding: float = 0.0) -> Primitive:
    """The closed polygon (K, 2) in x–y, extruded to ±h along z."""

    def f(p: F32) -> F32:
        d, sign = _segments(p[0], p[1], polygon, closed=True)
        d = d * sign
        dz = np.abs(p[2]) - np.float32(h - rounding)
        return np.minimum(np.maximum(d, dz), 0) + _norm2(np.maximum(d, 0), np.maximum(dz, 0)) - np.float32(rounding)

    return f


def tube(path: NDArray[np.float32], radii: NDArray[np.float32]) -> Primitive:
    """A chain of round cones through the points (K, 3) with radii (K,): tails, horns, spouts, handles."""

    def f(p: F32) -> F32:
        best = np.full_like(p[0], np.inf)
        for a, b, ra, rb in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
            e = b - a
            w = p - a[:, None]
            h = np.clip((e @ w) / max(float(e @ e), 1e-9), 0, 1)
            w -= e[:, None] * h
            np.minimum(best, np.sqrt(np.einsum("ij,ij->j", w, w)) - (ra + (rb - ra) * h), out=best)
        return best

    return f


@dataclass(frozen=True)
class Part:
    """One primitive, placed: rotated by `turn` (columns are its axes), moved to `at`, then combined.

    fold : which mirror symmetries it has in the shape's frame ("", "x" or "xz"); it is modelled on the positive side
    ring : > 1 repeats it that often about the shape's y axis
    op : "add" (smooth by k), "cut" or "keep" (intersection); k in shape units
    """

    primitive: Primitive
    at: NDArray[np.float32]
    turn: NDArray[np.float32] | None
    op: str
    k: float
    fold: str
    ring: int
    paint: int


@dataclass(frozen=True)
class Warp:
    """A smooth deformation of the whole shape, applied to the points before the parts see them."""

    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    taper: float = 0.0
    bend: float = 0.0
    twist: float = 0.0
    bump: float = 0.0
    frequency: float = 4.0
    phase: NDArray[np.float32] = field(default_factory=lambda: np.zeros(3, np.float32))

    def __call__(self, p: F32) -> F32:
        x, y, z = p * (1 / np.asarray(self.stretch, np.float32))[:, None]
        if self.taper:
            s = np.clip(1 + np.float32(self.taper) * y, 0.4, 2.5)
            x, z = x * s, z * s
        if self.bend:
            y = y - np.float32(self.bend) * x * x
        if self.twist:
            a = np.float32(self.twist) * y
            c, s = np.cos(a), np.sin(a)
            x, z = c * x - s * z, s * x + c * z
        if self.bump:
            f, (a, b, c) = np.float32(self.frequency), self.phase
            m = np.float32(self.bump)
            x, y, z = x + m * np.sin(f * y + a), y + m * np.sin(f * z + b), z + m * np.sin(f * x + c)
        return np.stack([x, y, z])


@dataclass(frozen=True)
class Shape:
    """Parts under one warp. `bound` is a half-extent of a cube about the origin that holds it."""

    parts: tuple[Part, ...]
    warp: Warp
    bound: float
    kind: str

    def distance(self, p: F32) -> F32:
        """Signed distance (negative inside) at p (3, N), shape frame."""
        return self._evaluate(p, paint=False)[0]

    def paint(self, p: F32) -> NDArray[np.int8]:
        """Which paint the nearest part carries, at points p (3, N) on the surface."""
        return self._evaluate(p, paint=True)[1]

    def _evaluate(self, p: F32, paint: bool) -> tuple[F32, NDArray[np.int8]]:
        p = self.warp(p)
        total = np.full(p.shape[1], 4.0, np.float32)
        owner = np.zeros(p.shape[1] if paint else 0, np.int8)
        folded: dict[str, F32] = {"": p}
        for part in self.parts:
            if part.fold not in folded:
                q = p.copy()
                q[0] = np.abs(q[0])
                if part.fold == "xz":
                    q[2] = np.abs(q[2])
                folded[part.fold] = q
            local = folded[part.fold]
            if part.ring > 1:
                local = _ring(local, part.ring)
            local = local - part.at[:, None]
            if part.turn is not None:
                local = part.turn.T @ local
            d = part.primitive(local)
            if part.op == "add":
                if paint:
                    owner[d < total] = part.paint
                total = _smooth_min(total, d, part.k)
            elif part.op == "cut":
                if paint:
                    owner[-d > total] = part.paint
                total = -_smooth_min(-total, d, part.k)
            else:
                total = -_smooth_min(-total, -d, part.k)
        return total, owner


def _ring(p: F32, count: int) -> F32:
    sector = np.float32(2 * np.pi / count)
    a = np.arctan2(p[2], p[0])
    a -= sector * np.round(a / sector)
    r = _norm2(p[0], p[2])
    return np.stack([r * np.cos(a), p[1], r * np.sin(a)])


def _smooth_min(a: F32, b: F32, k: float) -> F32:
    if k <= 0:
        return np.minimum(a, b)
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / k)
