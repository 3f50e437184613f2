"""Pictures of shapes by sphere tracing, and what befalls pictures before a model sees them. NumPy and Pillow only."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.sampling import FILL, Placed, gradient
from training.sdf import F32

SIZE = 128
BLOCK = 4
"""Rays are first marched as cones over 4×4 pixels; their pixels start where the cone first came near the surface."""


@dataclass(frozen=True)
class View:
    """A pinhole on the z axis at `distance`; the window (centre, half) is measured in the plane z = 0."""

    distance: float
    centre: tuple[float, float]
    half: float


@dataclass(frozen=True)
class Picture:
    """rgba (H, W, 4) uint8 straight alpha; depth (H, W) float32 frame z, NaN where empty; normal (H, W, 3)."""

    rgba: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]


def look(points: F32, rng: np.random.Generator) -> View:
    """A camera with a random field of view (6–50°) whose window fits the points (3, N) as `crop` would."""
    fov = np.deg2rad(rng.uniform(6, 50))
    distance = float(max(1.02 / np.tan(fov / 2), points[2].max() + 0.6))
    s = distance / (distance - points[2])
    u, v = points[0] * s, points[1] * s
    half = max(u.max() - u.min(), v.max() - v.min()) / 2 / FILL
    return View(distance, (float(u.max() + u.min()) / 2, float(v.max() + v.min()) / 2), float(half))


def _rays(view: View, n: int) -> F32:
    """Unit directions (3, n·n) through pixel centres, row 0 at the top."""
    a = ((np.arange(n, dtype=np.float32) + 0.5) * 2 / n - 1) * np.float32(view.half)
    u, v = np.meshgrid(a + np.float32(view.centre[0]), -a + np.float32(view.centre[1]))
    d = np.stack([u.ravel(), v.ravel(), np.full(n * n, -view.distance, np.float32)]).astype(np.float32)
    return d / np.linalg.norm(d, axis=0)


def _march(placed: Placed, view: View, n: int, size: int) -> tuple[NDArray[np.int64], F32, NDArray[np.float32], F32]:
    """Pixels that the surface touches, their points (3, K), coverage (K,) and ray directions (3, K)."""
    origin = np.array([[0], [0], [view.distance]], np.float32)
    far = np.float32(view.distance + 1.8)
    pixel = np.float32(2 * view.half / size / view.distance)  # width of a pixel at unit distance

    coarse = _rays(view, size // BLOCK)
    t = np.full(coarse.shape[1], max(view.distance - 1.35, 0.05), np.float32)
    reach = np.zeros(coarse.shape[1], bool)
    active = np.arange(coarse.shape[1])
    for _ in range(24):
        d = placed.distance(origin + coarse[:, active] * t[active])
        cone = pixel * np.float32(BLOCK * 0.75) * t[active]
        hit = d < cone * 1.3
        reach[active[hit]] = True
        go = ~hit & (t[active] < far)
        active, d, cone = active[go], d[go], cone[go]
        t[active] += np.maximum(d * 0.9 - cone * 0.5, cone * 0.5)
        if active.size == 0:
            break
    side = size // BLOCK
    rows, cols = np.divmod(np.flatnonzero(reach), side)
    oy, ox = np.divmod(np.arange(BLOCK * BLOCK), BLOCK)
    pixels = ((rows[:, None] * BLOCK + oy) * size + cols[:, None] * BLOCK + ox).ravel()
    start = np.repeat(t[reach], BLOCK * BLOCK) * np.float32(0.985) - np.float32(0.02)

    rays = _rays(view, size)[:, pixels]
    t = start.copy()
    best = np.full(t.shape, np.inf, np.float32)
    best_t = t.copy()
    active = np.arange(t.size)
    for _ in range(n):
        d = placed.distance(origin + rays[:, active] * t[active])
        ratio = d / (pixel * t[active])
        closer = ratio < best[active]
        nearer = active[closer]
        best[nearer], best_t[nearer] = ratio[closer], t[nearer]
        go = (ratio > 0.08) & (t[active] < far)
        # Once past the closest approach a ray that left by two pixels cannot bound a better coverage.
        active, d = active[go], d[go]
        t[active] += np.maximum(d * 0.9, pixel * 0.35 * t[active])
        if active.size == 0:
            break
    coverage = np.clip(np.where(best < 0.12, 1.0, 0.5 - best * 1.0), 0, 1).astype(np.float32)
    keep = coverage > 0.02
    return pixels[keep], origin + rays[:, keep] * best_t[keep], coverage[keep], rays[:, keep]


def _colours(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Albedos (count, 3): earthy, grey, saturated; often close to one another."""
    base = rng.uniform(0.08, 0.95, 3)
    out = []
    for _ in range(count):
        r = rng.random()
        c = rng.uniform(0.04, 0.95, 3) if r < 0.45 else np.full(3, rng.uniform(0.04, 0.95)) if r < 0.6 else base
        out.append(np.clip(c + rng.normal(0, 0.05, 3), 0.02, 0.98))
    return np.asarray(out, np.float32)


def _texture(
    p: F32, albedo: NDArray[np.float32], paint: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Albedo (K, 3) at points p: flat per paint, or with stripes, checks, gradients, mottling."""
    out = albedo[paint % len(albedo)]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.4, 0.15]))):
        direction = rng.normal(0, 1, (3, 3)).astype(np.float32)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        q = direction @ p
        kind = rng.choice(["stripes", "checks", "gradient", "mottle"])
        f = np.float32(rng.uniform(4, 30))
        if kind == "stripes":
            m = (np.sin(f * q[0] + rng.uniform(0, 6)) > rng.uniform(-0.6, 0.8)).astype(np.float32)
        elif kind == "checks":
            m = ((np.floor(f * 0.4 * q[0]) + np.floor(f * 0.4 * q[1]) + np.floor(f * 0.4 * q[2])) % 2).astype(
                np.float32
            )
        elif kind == "gradient":
            m = np.clip(q[0] * np.float32(rng.uniform(0.5, 1.5)) + 0.5, 0, 1)
        else:
            m = np.sin(f * q[0] + 2 * np.sin(f * 0.7 * q[1])) * np.sin(f * 1.3 * q[2] + q[0] * f)
            m = np.clip(m * 1.5 + np.float32(rng.uniform(-0.5, 0.7)), 0, 1)
        if rng.random() < 0.5:
            m = m * (paint == rng.choice(paint))
        second = _colours(rng, 1)[0]
        out = out + (second - out) * (m * np.float32(rng.uniform(0.3, 1.0)))[:, None]
    return np.asarray(out, np.float32)


def _light(
    placed: Placed, p: F32, normal: F32, rays: F32, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Diffuse (K, 3) and specular (K, 3) light: a sky, one to three lamps, the first with shadows, cheap occlusion."""
    up = rng.normal((0, 1, 0.2), 0.3).astype(np.float32)
    sky = rng.uniform(0.15, 0.65) * (1 + rng.normal(0, 0.06, 3))
    occlusion = np.clip(placed.distance(p + normal * np.float32(0.12)) / np.float32(0.12), 0.25, 1.0)
    occlusion = 1 + (occlusion - 1) * np.float32(rng.uniform(0.2, 1.0))
    half = 0.5 + 0.5 * (up / np.linalg.norm(up)) @ normal
    diffuse = ((0.35 + 0.65 * half) * occlusion)[:, None] * sky[None]
    gloss = np.zeros_like(diffuse)
    shine, power = (rng.uniform(0.1, 0.8), rng.uniform(6, 90)) if rng.random() < 0.5 else (0.0, 1.0)
    for i in range(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))):
        to = rng.normal((0, 0.5, 0.6), 0.8)
        to = (to / np.linalg.norm(to)).astype(np.float32)
        lit = np.maximum(to @ normal, 0)
        if i == 0 and rng.random() < 0.8:
            lit = lit * _shadow(placed, p + normal * np.float32(0.02), to, lit > 0.01)
        tone = (rng.uniform(0.35, 1.0) if i == 0 else rng.uniform(0.1, 0.5)) * (1 + rng.normal(0, 0.08, 3))
        diffuse += lit[:, None] * tone[None]
        if shine:
            h = to[:, None] - rays
            h = h / np.linalg.norm(h, axis=0)
            gloss += (shine * np.maximum(np.einsum("ij,ij->j", h, normal), 0) ** power * (lit > 0))[:, None] * tone[
                None
            ]
    return diffuse.astype(np.float32), gloss.astype(np.float32)


def _shadow(placed: Placed, p: F32, to: NDArray[np.float32], facing: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Soft visibility of a distant lamp."""
    out = np.ones(p.shape[1], np.float32)
    active = np.flatnonzero(facing)
    t = np.full(active.size, 0.03, np.float32)
    for _ in range(11):
        d = placed.distance(p[:, active] + to[:, None] * t)
        out[active] = np.minimum(out[active], np.clip(9 * d / t + 0.1, 0, 1))
        t = t + np.clip(d, 0.03, 0.3)
        go = (out[active] > 0.02) & (t < 1.6)
        active, t = active[go], t[go]
        if active.size == 0:
            break
    return out


def render(placed: Placed, points: F32, rng: np.random.Generator, size: int = SIZE, plain: bool = False) -> Picture:
    """A cut-out of the placed shape. points : (3, N) on its surface, frame; `plain` draws it grey, evenly lit."""
    view = look(points, rng)
    pixels, p, coverage, rays = _march(placed, view, 40, size)
    g = gradient(placed, p)
    normal = g / np.maximum(np.linalg.norm(g, axis=0), 1e-6)
    if plain:
        colour = np.clip(0.25 + 0.7 * np.maximum(np.array([0.3, 0.6, 0.74], np.float32) @ normal, 0), 0, 1)[
            :, None
        ].repeat(3, 1)
    else:
        paint = placed.shape.paint(placed.inward(p))
        albedo = _texture(p, _colours(rng, 4), paint, rng)
        diffuse, gloss = _light(placed, p, normal, rays, rng)
        colour = albedo * diffuse + gloss
        colour = colour * np.float32(np.exp(rng.normal(0.1, 0.2)))
        colour = np.clip(colour, 0, 1) ** np.float32(1 / rng.uniform(1.4, 2.2))
    rgba = np.zeros((size * size, 4), np.float32)
    rgba[pixels, :3] = colour
    rgba[pixels, 3] = coverage
    depth = np.full(size * size, np.nan, np.float32)
    depth[pixels] = p[2]
    n = np.zeros((size * size, 3), np.float32)
    n[pixels] = normal.T
    return Picture(
        (rgba * 255 + 0.5).astype(np.uint8).reshape(size, size, 4), depth.reshape(size, size), n.reshape(size, size, 3)
    )


def spoil(rgba: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What cameras, encoders and cut-out models do: background bleeding in, blur, noise, JPEG, ragged edges."""
    size = rgba.shape[0]
    alpha = rgba[..., 3].astype(np.float32) / 255
    colour = rgba[..., :3].astype(np.float32)
    ground = rng.uniform(0, 255, 3)[None, None] + rng.normal(0, 12, (size, size, 1))
    photo = colour * alpha[..., None] + ground * (1 - alpha[..., None])
    image = Image.fromarray(np.clip(photo, 0, 255).astype(np.uint8))
    mask = Image.fromarray((alpha * 255).astype(np.uint8))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2))))
    if rng.random() < 0.4:
        noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 14), (size, size, 3))
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 90)))
        image = Image.open(buffer)
    draw = rng.random()
    if draw < 0.12:
        mask = mask.filter(ImageFilter.MinFilter(3))
    elif draw < 0.24:
        mask = mask.filter(ImageFilter.MaxFilter(3))
    elif draw < 0.45:
        mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.5))))
    cut = np.asarray(mask, np.float32) / 255
    if rng.random() < 0.08:  # something small stands before the object, or the cut-out lost a piece
        y, x = rng.integers(8, size - 8, 2)
        r = rng.uniform(3, 11)
        yy, xx = np.mgrid[:size, :size]
        cut = cut * (((yy - y) ** 2 + (xx - x) ** 2 > r * r) | (rng.random() < 0.3))
    out = np.empty((size, size, 4), np.uint8)
    out[..., :3] = np.asarray(image.convert("RGB"))
    out[..., 3] = (np.clip(cut, 0, 1) * 255).astype(np.uint8)
    return out
