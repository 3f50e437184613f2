"""Draws the project's sample picture: a rubber duck in soft light before plain paper, 1024² by default.

    python examples/sample.py duck.png [--size 1024]

Sphere tracing of a signed distance field (Hart, "Sphere tracing", The Visual Computer 1996; smooth unions after Quilez)
in numpy: an area light and sky with soft shadows and ambient occlusion, a glossy coat, supersampled. Seconds, and the
same bytes each time on one machine.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float32]  # (N, 3)
Values = NDArray[np.float32]  # (N,)

YELLOW, ORANGE, BLACK, WHITE, PAPER = range(5)
ALBEDO = np.array(
    [[0.96, 0.62, 0.035], [0.93, 0.23, 0.02], [0.012, 0.012, 0.014], [0.95, 0.95, 0.93], [0.62, 0.66, 0.70]], np.float32
)
"""Linear colours of the materials."""

ELEVATION, AZIMUTH, DISTANCE, FIELD = 17.0, 38.0, 6.2, 26.0
"""Camera: degrees above the table and towards the duck's left, units away, degrees of view."""

BALL, RADIUS = np.array([0.0, 1.0, -0.05], np.float32), 1.65
"""A ball around the duck: rays that miss it miss the duck."""

KEY = np.array([-0.42, 0.78, 0.46], np.float32)
RIM = np.array([0.85, 0.38, -0.35], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample picture.")
    parser.add_argument("path")
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    Image.fromarray(sample(options.size)).save(options.path)


def sample(size: int = 1024) -> NDArray[np.uint8]:
    """The picture: (size, size, 3) uint8 sRGB."""
    return draw(size)[0]


def draw(size: int, rough: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture and its true mask, (size, size) bool.

    Rays that hit the duck are traced for every pixel, twice across each axis at its edges; the paper's shading is so
    smooth that it is traced at 1/`rough` of the resolution.
    """
    mask, colour = _trace(size)
    ground = _resized(_ground(max(8, size // rough)), size)
    edge = _edge(mask)
    rows, columns = np.nonzero(edge)
    colour[~mask] = ground[~mask]
    offsets = [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)]
    total = np.zeros((len(rows), 3), np.float32)
    covered = np.zeros(len(rows), np.float32)
    for dx, dy in offsets:
        origin, direction = _rays(columns + 0.5 + dx, rows + 0.5 + dy, size)
        depth, hit = _march(origin, direction)
        part = ground[rows, columns].copy()
        part[hit] = _shade(origin[hit] + direction[hit] * depth[hit, None], direction[hit])
        total += part
        covered += hit
    colour[rows, columns] = total / len(offsets)
    mask[rows, columns] = covered >= len(offsets) / 2
    grain = np.random.default_rng(7).normal(0.0, 0.004, (size, size, 1)).astype(np.float32)
    seen = _encode(colour) + grain
    return np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8), mask


# --- the duck -------------------------------------------------------------------------------------------------------


def _union(a: Values, b: Values, blend: float) -> Values:
    share = np.clip(0.5 + 0.5 * (b - a) / blend, 0, 1)
    return b + (a - b) * share - blend * share * (1 - share)


def _ellipsoid(p: Points, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Values:
    q = p - np.array(centre, np.float32)
    r = np.array(radii, np.float32)
    near = _length(q / r)
    return near * (near - 1) / np.maximum(_length(q / (r * r)), 1e-6)


def _length(v: Points) -> Values:
    return np.sqrt(np.einsum("ij,ij->i", v, v))


def _turned(p: Points, axis: int, degrees: float, about: tuple[float, float, float]) -> Points:
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    q = p - np.array(about, np.float32)
    out = q.copy()
    out[:, i], out[:, j] = c * q[:, i] + s * q[:, j], -s * q[:, i] + c * q[:, j]
    return out + np.array(about, np.float32)


def _parts(p: Points) -> tuple[Values, ...]:
    """Distances to the duck's body, bill, pupils and eyes; it looks along +z, is about 2.2 long and stands on y = 0."""
    m = p.copy()
    m[:, 0] = np.abs(m[:, 0])  # left and right alike
    body = _ellipsoid(p, (0, 0.56, -0.05), (0.78, 0.57, 1.00))
    breast = _ellipsoid(p, (0, 0.66, 0.42), (0.60, 0.54, 0.52))
    body = _union(body, breast, 0.25)
    tail = _ellipsoid(_turned(p, 0, 40, (0, 0.75, -0.90)), (0, 0.80, -1.02), (0.26, 0.13, 0.44))
    body = _union(body, tail, 0.28)
    head = _length(p - np.array([0, 1.52, 0.42], np.float32)) - 0.52
    cheeks = _ellipsoid(m, (0.22, 1.42, 0.56), (0.30, 0.28, 0.30))
    body = _union(body, _union(head, cheeks, 0.12), 0.20)
    tuft = _ellipsoid(_turned(p, 0, -35, (0, 2.02, 0.36)), (0, 2.04, 0.34), (0.07, 0.16, 0.08))
    body = _union(body, tuft, 0.12)
    folded = _turned(_turned(m, 2, 12, (0.66, 0.72, -0.15)), 0, -16, (0.66, 0.72, -0.15))
    wing = _ellipsoid(folded, (0.62, 0.72, -0.12), (0.16, 0.31, 0.54))
    tip = _ellipsoid(_turned(folded, 0, 24, (0.62, 0.80, -0.56)), (0.63, 0.82, -0.58), (0.10, 0.15, 0.26))
    body = _union(body, _union(wing, tip, 0.16), 0.06)
    upper = _ellipsoid(_turned(p, 0, 12, (0, 1.44, 0.95)), (0, 1.46, 1.00), (0.27, 0.085, 0.30))
    lower = _ellipsoid(_turned(p, 0, -10, (0, 1.36, 0.92)), (0, 1.36, 0.93), (0.21, 0.065, 0.23))
    bill = _union(upper, lower, 0.03)
    eye = _ellipsoid(m, (0.225, 1.66, 0.845), (0.105, 0.135, 0.075))
    pupil = _ellipsoid(m, (0.222, 1.665, 0.893), (0.064, 0.088, 0.045))
    return body, bill, pupil, eye


def _distance(p: Points) -> Values:
    body, bill, pupil, eye = _parts(p)
    return np.minimum(np.minimum(_union(body, bill, 0.03), eye), pupil).astype(np.float32)


def _material(p: Points) -> NDArray[np.intp]:
    body, bill, pupil, eye = _parts(p)
    found = np.argmin(np.stack([body, bill, pupil, eye]), axis=0)
    return np.array([YELLOW, ORANGE, BLACK, WHITE])[found]


# --- the camera and the light ---------------------------------------------------------------------------------------


def _camera() -> tuple[Points, Points]:
    target = np.array([0.0, 0.98, 0.05], np.float32)
    e, a = np.radians(ELEVATION), np.radians(AZIMUTH)
    back = np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)], np.float32)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    return target + DISTANCE * back, np.stack([right, np.cross(back, right), back]).astype(np.float32)


def _rays(x: NDArray[np.float64], y: NDArray[np.float64], size: int) -> tuple[Points, Points]:
    eye, frame = _camera()
    reach = np.tan(np.radians(FIELD / 2))
    u, v = (2 * x / size - 1) * reach, (1 - 2 * y / size) * reach
    direction = np.stack([u, v, -np.ones_like(u)], axis=1).astype(np.float32) @ frame
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.broadcast_to(eye, direction.shape), direction


def _march(origin: Points, direction: Points) -> tuple[Values, NDArray[np.bool_]]:
    """Depth along each ray, and whether it meets the duck."""
    towards = BALL - origin
    middle = np.einsum("ij,ij->i", towards, direction)
    inside = RADIUS**2 - (np.einsum("ij,ij->i", towards, towards) - middle**2)
    depth = middle - np.sqrt(np.maximum(inside, 0))
    hit = np.zeros(len(direction), bool)
    going = np.flatnonzero(inside > 0)
    for _ in range(90):
        gap = _distance(origin[going] + direction[going] * depth[going, None])
        arrived = gap < 0.0008
        hit[going[arrived]] = True
        depth[going] += np.where(arrived, 0, 0.9 * gap)
        going = going[~arrived & (depth[going] < middle[going] + RADIUS)]
        if going.size == 0:
            break
    return depth, hit


def _normal(p: Points) -> Points:
    step = np.float32(0.002)
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    total = sum((_distance(p + step * k)[:, None] * k for k in corners), np.zeros_like(p))
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9), np.float32)


def _lit(p: Points, light: Points, width: float, steps: int = 20, stride: float = 0.25) -> Values:
    """Share of an area light that reaches each point: the narrowest clearance on the way, softened by its width."""
    share = np.ones(len(p), np.float32)
    depth = np.full(len(p), 0.03, np.float32)
    for _ in range(steps):
        gap = _distance(p + light * depth[:, None])
        share = np.minimum(share, 0.5 + 0.5 * gap / (width * depth))
        depth += np.clip(gap, 0.03, stride)
    share = np.clip(share, 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _open(p: Points, normal: Points) -> Values:
    """Ambient occlusion: how far the surroundings stay clear along the normal."""
    closed = np.zeros(len(p), np.float32)
    for k, height in enumerate((0.04, 0.10, 0.20, 0.36, 0.6)):
        q = p + normal * height
        gap = np.minimum(_distance(q), np.maximum(q[:, 1], 0))
        closed += np.maximum(height - gap, 0) * 0.9 * 0.72**k / (0.35 + height)
    return np.clip(1 - closed, 0, 1)


def _shade(p: Points, direction: Points) -> NDArray[np.float32]:
    """Linear colour of points on the duck, seen along `direction`."""
    normal, kind = _normal(p), _material(p)
    albedo = ALBEDO[kind]
    key, rim = _unit(KEY), _unit(RIM)
    clear = _open(p, normal)[:, None]
    facing = np.clip((normal @ key + 0.12) / 1.12, 0, 1)[:, None] * _lit(p + normal * 0.01, key, 0.16)[:, None]
    sky = (0.5 + 0.5 * normal[:, 1:2]) * np.array([0.62, 0.68, 0.78], np.float32)
    bounce = (0.5 - 0.5 * normal[:, 1:2]) * np.array([0.44, 0.40, 0.36], np.float32)
    fill = np.clip(normal @ rim, 0, 1)[:, None] * np.array([0.30, 0.32, 0.36], np.float32)
    light = facing * np.array([2.05, 1.95, 1.78], np.float32) + (sky + bounce) * clear * 0.85 + fill * clear
    # Vinyl lets a little light through: its shadows are warm and not black.
    glow = albedo**1.6 * 0.10 * (1 - facing)
    mirror = direction - 2 * (direction * normal).sum(1, keepdims=True) * normal
    grazing = 0.04 + 0.55 * np.clip(1 + (direction * normal).sum(1, keepdims=True), 0, 1) ** 5
    gloss = grazing * (_sky(mirror) * (0.3 + 0.7 * clear)) + 0.9 * _spot(mirror, key, 90) * facing
    gloss += 0.10 * _spot(mirror, rim, 30) * clear
    return np.asarray(albedo * light * 0.82 + glow + gloss, np.float32)


def _sky(direction: Points) -> NDArray[np.float32]:
    """What the coat mirrors: a bright room above, a soft window to the left, the table below."""
    up = np.clip(direction[:, 1:2] * 0.5 + 0.5, 0, 1)
    room = 0.25 + 0.75 * up**2
    u, v = direction[:, 0:1] - 0.05 * direction[:, 1:2], direction[:, 1:2] - 0.55
    window = 1 / (1 + np.exp(np.clip((np.maximum(np.abs(u + 0.45) - 0.22, np.abs(v) - 0.25)) * 60, -30, 30)))
    return np.asarray((room + 5.0 * window) * np.array([0.95, 0.98, 1.0], np.float32), np.float32)


def _spot(mirror: Points, light: Points, sharpness: float) -> Values:
    return np.clip(mirror @ light, 0, 1)[:, None] ** sharpness


def _unit(v: Points) -> Points:
    return np.asarray(v / np.linalg.norm(v), np.float32)


# --- the paper ------------------------------------------------------------------------------------------------------


def _ground(size: int) -> NDArray[np.float32]:
    """(size, size, 3) linear: paper that runs from the table up behind the duck, with the duck's soft shadow."""
    y, x = np.mgrid[:size, :size]
    origin, direction = _rays(x.ravel() + 0.5, y.ravel() + 0.5, size)
    towards = np.where(direction[:, 1] < -1e-4, -origin[:, 1] / np.minimum(direction[:, 1], -1e-4), 1e3)
    p = origin + direction * np.minimum(towards, 40)[:, None]
    near = np.flatnonzero(np.linalg.norm(p - [0, 0, 0], axis=1) < 4.0)
    up = np.broadcast_to(np.array([0, 1, 0], np.float32), p.shape)
    light = np.ones(len(p), np.float32)
    light[near] = 0.62 + 0.38 * _lit(p[near] + up[near] * 0.01, _unit(KEY), 0.34, 60, 0.09)
    light[near] *= 0.66 + 0.34 * _open(p[near] + up[near] * 0.001, up[near])
    height = (y.ravel() + 0.5) / size
    falloff = 1.02 - 0.16 * np.hypot(x.ravel() / size - 0.42, height - 0.45)
    colour = ALBEDO[PAPER] * (light * falloff)[:, None]
    return colour.reshape(size, size, 3).astype(np.float32)


def _trace(size: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    mask = np.zeros((size, size), bool)
    colour = np.zeros((size, size, 3), np.float32)
    rows = max(1, 131072 // size)  # in bands that stay in the cache
    for top in range(0, size, rows):
        y, x = np.mgrid[top : min(size, top + rows), :size]
        origin, direction = _rays(x.ravel() + 0.5, y.ravel() + 0.5, size)
        depth, hit = _march(origin, direction)
        shaded = np.zeros((len(hit), 3), np.float32)
        if hit.any():
            shaded[hit] = _shade(origin[hit] + direction[hit] * depth[hit, None], direction[hit])
        mask[top : top + rows] = hit.reshape(x.shape)
        colour[top : top + rows] = shaded.reshape(*x.shape, 3)
    return mask, colour


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    edge = np.zeros_like(mask)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    for view, change in ((edge[:, 1:], across), (edge[:, :-1], across), (edge[1:], down), (edge[:-1], down)):
        view |= change
    return edge


def _resized(picture: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    planes = [Image.fromarray(picture[..., c]).resize((size, size), Image.Resampling.BICUBIC) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _encode(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear light to sRGB, highlights rolled off as film does (the fit of Narkowicz, "ACES filmic curve", 2015)."""
    x = np.maximum(linear, 0) * 0.72
    mapped = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    return np.asarray(np.where(mapped <= 0.0031308, 12.92 * mapped, 1.055 * mapped ** (1 / 2.4) - 0.055), np.float32)


if __name__ == "__main__":
    main()
