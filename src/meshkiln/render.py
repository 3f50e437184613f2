"""Pictures of a mesh from several sides, by ray casting (Embree), so that people and tests can look at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meshkiln.engines.mesh.load import load
from meshkiln.errors import BadInput, BadParameter

if TYPE_CHECKING:
    import trimesh

VIEWS: dict[str, tuple[float, float]] = {
    "front": (0.0, 0.0),
    "three-quarter": (35.0, 20.0),
    "side": (90.0, 0.0),
    "back": (180.0, 0.0),
    "other-side": (270.0, 0.0),
    "top": (0.0, 90.0),
}
"""Where the camera stands: degrees around the up axis, from the front to the viewer's right, and of elevation."""

DISTANCE = 4.0
"""From the camera to the object's centre, in bounding radii: a mild perspective."""

FILL = 0.92
"""Share of the picture that the view in which the object is largest takes."""

CLAY = (0.79, 0.77, 0.74)
"""Colour of a mesh that has none, sRGB."""

CREASE = 0.7
"""Cosine between a face and its vertex's mean normal below which the edge is shown sharp."""


class _Part(NamedTuple):
    """Triangles that share a colouring: corners (n, 3, 3), their normals, and their uv or colour (n, 3, 2 or 3).

    vertices : (m, 3), those the corners are taken from, each once
    """

    vertices: NDArray[np.float32]
    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    paint: NDArray[np.float32]
    texture: NDArray[np.float32] | None


def render(
    mesh: bytes | str | Path | trimesh.Trimesh | trimesh.Scene,
    views: Sequence[str] = ("front", "three-quarter", "side", "back"),
    size: int = 512,
    background: tuple[int, int, int] | None = (255, 255, 255),
    samples: int = 2,
) -> Image.Image:
    """The mesh from each of `views`, side by side: an RGB picture of height `size` and width `size` × views.

    mesh : contents or path of a GLB, OBJ (alone or zipped with its texture), PLY, STL or 3MF file, or a trimesh object
        (Y up)
    views : names from `VIEWS`
    background : None makes it transparent, and the picture RGBA
    samples : rays per pixel along each axis

    Textures and vertex colours are shown, under two lights that stand by the camera. All views have one scale.
    Raises BadParameter for an unknown view or a size outside 16…4096, BadInput when there is no mesh to be read.
    """
    for name in views:
        if name not in VIEWS:
            raise BadParameter(f"view {name!r} is not one of {', '.join(VIEWS)}")
    if not views:
        raise BadParameter(f"no view given; choose from {', '.join(VIEWS)}")
    if not 16 <= size <= 4096:
        raise BadParameter(f"size={size} is not a whole number from 16 to 4096 pixels")
    scene, z_up = load(mesh)
    parts = _parts(scene, z_up)
    corners = np.concatenate([part.corners for part in parts])
    centre = (corners.min(axis=(0, 1)) + corners.max(axis=(0, 1))) / 2
    radius = float(np.linalg.norm(corners - centre, axis=2).max()) or 1.0
    parts = [part._replace(corners=((part.corners - centre) / radius).astype(np.float32)) for part in parts]
    points = np.concatenate([(part.vertices - centre) / radius for part in parts]).astype(np.float32)
    cameras = [_camera(*VIEWS[name]) for name in views]
    reach = max(float(np.abs(_project(points, camera)).max()) for camera in cameras)
    tracer = _Tracer(parts)
    picture = _empty(size * len(views), size, background)
    for column, camera in enumerate(cameras):
        tile = _view(tracer, parts, points, camera, reach / FILL, size, samples, background)
        picture.paste(tile, (column * size, 0))
    return picture


def _parts(scene: trimesh.Scene, z_up: bool) -> list[_Part]:
    import trimesh

    parts = []
    for mesh in scene.dump():
        if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
            continue
        vertices = np.asarray(mesh.vertices, np.float32)
        if not np.isfinite(vertices).all():
            raise BadInput("the mesh has vertices that are not finite numbers")
        if z_up:
            vertices = vertices[:, [0, 2, 1]] * np.array([1, 1, -1], np.float32)
        corners = vertices[mesh.faces]
        paint, texture = _paint(mesh)
        parts.append(_Part(vertices[np.unique(mesh.faces)], corners, _normals(corners), paint, texture))
    return parts


def _normals(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth normals at the corners of triangles, sharp over creases. Corners at one point are one vertex."""
    points = np.ascontiguousarray(corners.reshape(-1, 3))
    _, vertex = np.unique(points.view("V12").ravel(), return_inverse=True)
    # Not normalised: large triangles weigh more.
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    mean = np.stack([np.bincount(vertex, np.repeat(face[:, axis], 3)) for axis in range(3)], axis=1)
    smooth = _unit(mean)[vertex].reshape(-1, 3, 3)
    flat = np.repeat(_unit(face)[:, None], 3, axis=1)
    sharp = (smooth * flat).sum(axis=2, keepdims=True) < CREASE
    return np.where(sharp, flat, smooth).astype(np.float32)


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))[..., None]
    result: NDArray[Any] = vectors / np.where(length > 0, length, 1)
    return result


def _paint(mesh: trimesh.Trimesh) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """What colours the corners: (uv, texture), or (linear colour, None)."""
    visual: Any = mesh.visual
    count = len(mesh.faces)
    if visual.kind == "texture" and visual.uv is not None:
        material = visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        factor = getattr(material, "baseColorFactor", None)
        tint = np.ones(3, np.float32) if factor is None else _linear(np.asarray(factor[:3], np.float32) / 255)
        if image is not None:
            texture = _linear(np.asarray(image.convert("RGB"), np.float32) / 255) * tint
            return np.asarray(visual.uv, np.float32)[mesh.faces], texture.astype(np.float32)
    if visual.kind == "vertex":
        return _linear(np.asarray(visual.vertex_colors)[mesh.faces][..., :3] / np.float32(255)), None
    if visual.kind == "face":
        colours = _linear(np.asarray(visual.face_colors)[:, :3] / np.float32(255))
        return np.repeat(colours[:, None], 3, axis=1), None
    return np.broadcast_to(_linear(np.array(CLAY, np.float32)), (count, 3, 3)), None


def _linear(srgb: NDArray[Any]) -> NDArray[np.float32]:
    # The 2.2 power is within a screen's tolerance of sRGB's curve.
    linear: NDArray[np.float32] = np.power(srgb.astype(np.float32), np.float32(2.2))
    return linear


class _Camera(NamedTuple):
    right: NDArray[np.float32]
    up: NDArray[np.float32]
    back: NDArray[np.float32]


def _camera(azimuth: float, elevation: float) -> _Camera:
    a, e = np.radians(azimuth), np.radians(elevation)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    return _Camera(*(axis.astype(np.float32) for axis in (right, np.cross(back, right), back)))


def _project(points: NDArray[Any], camera: _Camera) -> NDArray[np.float32]:
    """Where points of the unit ball fall on the plane one unit before the camera."""
    away = DISTANCE - points @ camera.back
    flat: NDArray[np.float32] = np.stack([points @ camera.right, points @ camera.up], axis=1) / away[:, None]
    return flat


class _Tracer:
    """Embree's scene for the triangles of all parts, in their order."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self.scene, np.ascontiguousarray(np.concatenate([part.corners for part in parts]), np.float32))

    def hits(
        self, origin: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """For each ray the triangle it meets first (−1: none) and the place on it, as Embree's u and v."""
        origins = np.broadcast_to(origin, directions.shape).astype(np.float32)
        found = self.scene.run(origins, directions, output=1)
        return found["primID"], found["u"], found["v"]


def _view(
    tracer: _Tracer,
    parts: Sequence[_Part],
    points: NDArray[Any],
    camera: _Camera,
    reach: float,
    size: int,
    samples: int,
    background: tuple[int, int, int] | None,
) -> Image.Image:
    fine = size * samples
    flat = _project(points, camera)
    # Rays only where the object can be: whole pixels around its bounding box.
    x0, x1 = _span(flat[:, 0], reach, size)
    y0, y1 = _span(-flat[:, 1], reach, size)
    columns = (((np.arange(x0 * samples, x1 * samples) + 0.5) / fine * 2 - 1) * reach).astype(np.float32)
    rows = ((1 - (np.arange(y0 * samples, y1 * samples) + 0.5) / fine * 2) * reach).astype(np.float32)
    directions = columns[None, :, None] * camera.right + (rows[:, None, None] * camera.up - camera.back)
    directions = _unit(directions).reshape(-1, 3)
    triangle, u, v = tracer.hits(camera.back * np.float32(DISTANCE), directions)
    light = np.empty(directions.shape, np.float32)
    light[:] = _linear(np.array(background or (0, 0, 0), np.float32) / 255)
    hit = np.flatnonzero(triangle >= 0)
    first = 0
    for part in parts:
        index = triangle[hit] - first
        mine = (index >= 0) & (index < len(part.corners))
        rays, index = (hit, index) if mine.all() else (hit[mine], index[mine])
        normal = _unit(_blend(part.normals, index, u[rays], v[rays]))
        # Seen from inside, a surface is lit as its other side would be.
        normal[np.einsum("nc,nc->n", normal, directions[rays]) > 0] *= -1
        paint = _blend(part.paint, index, u[rays], v[rays])
        albedo = paint if part.texture is None else _texels(part.texture, paint)
        light[rays] = albedo * _lit(normal, camera)[:, None]
        first += len(part.corners)
    grid = light.reshape(y1 - y0, samples, x1 - x0, samples, 3)
    pixels = sum(grid[:, i, :, j] for i in range(samples) for j in range(samples)) / np.float32(samples**2)
    tile = _empty(size, size, background)
    if background is None:
        covered = (triangle >= 0).reshape(y1 - y0, samples, x1 - x0, samples).mean(axis=(1, 3), dtype=np.float32)
        pixels = pixels / np.maximum(covered, 1e-6)[..., None]
    shown = np.clip(np.power(np.clip(pixels, 0, 1), 1 / 2.2) * 255 + 0.5, 0, 255).astype(np.uint8)
    if background is None:
        shown = np.dstack([shown, (covered * 255 + 0.5).astype(np.uint8)])
    tile.paste(Image.fromarray(shown), (x0, y0))
    return tile


def _empty(width: int, height: int, background: tuple[int, int, int] | None) -> Image.Image:
    return Image.new("RGB", (width, height), background) if background else Image.new("RGBA", (width, height))


def _blend(
    corners: NDArray[np.float32], index: NDArray[np.int32], u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values at the corners of triangles `index`, at Embree's u and v on them."""
    a, b, c = (corners[index, i] for i in range(3))
    blend: NDArray[np.float32] = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    return blend


def _span(values: NDArray[Any], reach: float, size: int) -> tuple[int, int]:
    low = int(np.floor((values.min() / reach + 1) / 2 * size))
    high = int(np.ceil((values.max() / reach + 1) / 2 * size))
    return max(low, 0), min(max(high, low + 1), size)


def _texels(texture: NDArray[np.float32], uv: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear samples; uv starts at the lower left and repeats."""
    height, width = texture.shape[:2]
    x = uv[:, 0] % 1 * width - 0.5
    y = (1 - uv[:, 1] % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    columns = np.clip(left, 0, width - 1), np.clip(left + 1, 0, width - 1)
    rows = np.clip(top, 0, height - 1), np.clip(top + 1, 0, height - 1)
    upper = texture[rows[0], columns[0]] * (1 - fx) + texture[rows[0], columns[1]] * fx
    lower = texture[rows[1], columns[0]] * (1 - fx) + texture[rows[1], columns[1]] * fx
    texels: NDArray[np.float32] = (upper * (1 - fy) + lower * fy).astype(np.float32)
    return texels


def _lit(normal: NDArray[np.float32], camera: _Camera) -> NDArray[np.float32]:
    """Light that falls on a surface: a key light over the left shoulder, a weak one from the right, and the sky."""
    key = _unit(-0.5 * camera.right + 0.75 * camera.up + 0.9 * camera.back)
    fill = _unit(0.9 * camera.right + 0.1 * camera.up + 0.7 * camera.back)
    # Not `@`: for so thin a product BLAS only wakes its threads.
    lights = np.einsum("nc,lc->nl", normal, np.stack([key, fill, camera.up]))
    keyed, filled = np.clip(lights[:, :2], 0, 1).T
    lit: NDArray[np.float32] = 0.68 * keyed + 0.2 * filled + 0.08 * lights[:, 2] + 0.26
    return lit
