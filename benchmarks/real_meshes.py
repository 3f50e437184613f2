"""The real meshes of the data folder, upright, in a camera's frame, and pictures of them.

The pictures are ray-cast (Embree): another renderer than the one that makes the training pictures, with other lights,
materials and cameras. Ten meshes serve for choosing between models; the others are looked at only for figures that are
published.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from meshkiln.engines.vecset.crop import FILL, window
from meshkiln.quality.metrics import Camera
from results_file import data_folder

F64 = NDArray[np.float64]

UP = {
    "boot": "+y", "bul_teddy": "+y", "cat": "+y", "fish": "+y", "goathead": "+y", "hand": "+y", "human": "+y",
    "koala": "+y", "nefertiti": "+y", "penguin": "+y", "spot": "+y", "tri_angleblock": "+y", "tri_idler_riser": "+y",
    "cdb_banana": "+y", "cdb_hammer": "+y", "cdb_toruslarge": "+y", "cdb_watch": "+y", "cdb_lightbulb": "+x",
    "cdb_airplane": "+z", "cdb_alarmclock": "+z", "cdb_apple": "+z", "cdb_binoculars": "+z", "cdb_coffeemug": "+z",
    "cdb_cylinderlarge": "+z", "cdb_piggybank": "+z", "cdb_rubberduck": "+z", "cdb_wineglass": "+z",
    "tri_fuze_bottle": "+z",
}  # fmt: skip
"""Which axis of the file points up: sources differ."""

TURN = {"spot": 180.0, "boot": 30.0, "cat": 30.0, "goathead": 40.0, "fish": -60.0}
"""Degrees about the up axis that bring the front to the viewer, where the file has it elsewhere."""

DEV = (
    "bul_teddy", "cdb_airplane", "cdb_coffeemug", "cdb_hammer", "cdb_rubberduck", "fish", "koala", "penguin", "spot",
    "tri_idler_riser",
)  # fmt: skip
"""For choosing between models (the same ten as `training/real.py`). The other 18 are for published figures only."""

VIEWS = ((25.0, 12.0), (-55.0, 25.0), (150.0, 8.0))
"""Azimuth and elevation of the three cameras, degrees."""

FIELD_OF_VIEW = 35.0
SIZE = 384


@dataclass(frozen=True)
class Seen:
    """A mesh in a camera's frame (training/INTERFACE.md) and its picture.

    reference : closed, its bounding box centred, the larger of its x and y half-extents 0.8
    rgba : (384, 384, 4) uint8, straight alpha
    camera : of the picture's crop
    """

    name: str
    view: int
    reference: trimesh.Trimesh
    rgba: NDArray[np.uint8]
    camera: Camera


def names(which: str = "test") -> tuple[str, ...]:
    """The 10 of "dev", the 18 of "test" or "all"."""
    if which == "dev":
        return DEV
    return tuple(sorted(name for name in UP if which == "all" or name not in DEV))


def seen(which: str = "test", views: int = len(VIEWS)) -> Iterator[Seen]:
    """Each of the meshes from each of the first `views` cameras."""
    for name in names(which):
        for view in range(views):
            yield look(name, view)


def look(name: str, view: int) -> Seen:
    """One mesh from one camera."""
    mesh = in_frame(upright(name), *VIEWS[view])
    rgba = picture(mesh, seed=len(VIEWS) * sorted(UP).index(name) + view)
    half = float(np.tan(np.deg2rad(FIELD_OF_VIEW / 2))) * distance(mesh)
    cx, cy, side = window(rgba[..., 3])
    centre = ((cx / SIZE * 2 - 1) * half, (1 - cy / SIZE * 2) * half)
    return Seen(name, view, mesh, rgba, Camera(distance(mesh), centre, side / SIZE * half))


def distance(mesh: trimesh.Trimesh) -> float:
    """Of the camera from the middle of a mesh in its frame."""
    return float(np.abs(mesh.vertices).max()) * 1.35 / float(np.tan(np.deg2rad(FIELD_OF_VIEW / 2)))


@cache
def upright(name: str) -> trimesh.Trimesh:
    """The mesh of that name, +Y up, its front to the viewer at +Z."""
    (file,) = Path(data_folder(), "meshes").glob(f"{name}.*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = trimesh.load(file, force="mesh", skip_materials=True)
    mesh = trimesh.Trimesh(loaded.vertices, loaded.faces)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    axes = {
        "+y": np.eye(3),
        "+z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        "+x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    }
    vertices = mesh.vertices @ np.asarray(axes[UP[name]], float).T @ _about_y(TURN.get(name, 0.0)).T
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def _about_y(degrees: float) -> F64:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def in_frame(mesh: trimesh.Trimesh, azimuth: float, elevation: float) -> trimesh.Trimesh:
    """The mesh in the frame of a camera that stands `azimuth` to the right of the front and `elevation` above it."""
    c, s = np.cos(np.deg2rad(elevation)), np.sin(np.deg2rad(elevation))
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    vertices = mesh.vertices @ (tilt @ _about_y(-azimuth)).T
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = FILL / float((high - low)[:2].max() / 2)
    return trimesh.Trimesh((vertices - (low + high) / 2) * scale, mesh.faces, process=False)


def picture(mesh: trimesh.Trimesh, seed: int = 0, size: int = SIZE, samples: int = 2) -> NDArray[np.uint8]:
    """A perspective picture of a mesh in its frame: one colour, a shadow-casting lamp, a sky, a highlight."""
    rng = np.random.default_rng([7, seed])
    fine = size * samples
    half = np.tan(np.deg2rad(FIELD_OF_VIEW / 2))
    at = ((np.arange(fine) + 0.5) / fine * 2 - 1) * half
    x, y = np.meshgrid(at, -at)
    ray = np.stack([x.ravel(), y.ravel(), -np.ones(fine * fine)], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    eye = np.broadcast_to([0.0, 0.0, distance(mesh)], ray.shape)
    face, hit, point = mesh.ray.intersects_id(eye, ray, multiple_hits=False, return_locations=True)
    flat = mesh.face_normals[face]
    smooth = trimesh.triangles.points_to_barycentric(mesh.triangles[face], point)
    smooth = np.einsum("ij,ijk->ik", smooth, mesh.vertex_normals[mesh.faces[face]])
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    normal = np.where(np.einsum("ij,ij->i", smooth, flat)[:, None] > 0.75, smooth, flat)

    lamp = np.array([rng.uniform(-0.9, 0.9), rng.uniform(0.5, 1.2), 1.0])
    lamp /= np.linalg.norm(lamp)
    shaded = mesh.ray.intersects_any(point + flat * 2e-3, np.broadcast_to(lamp, point.shape))
    direct = np.maximum(normal @ lamp, 0) * np.where(shaded, 0.15, 1.0)
    sky = 0.5 + 0.5 * normal[:, 1]
    middle = lamp - ray[hit]
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    gloss = rng.uniform(0, 0.35) * np.maximum(np.einsum("ij,ij->i", normal, middle), 0) ** 30 * ~shaded
    colour = np.clip(rng.uniform(0.25, 0.9) + rng.normal(0, 0.18, 3), 0.08, 0.95)
    light = colour * (0.62 * direct + 0.3 * sky + 0.1)[:, None] + gloss[:, None]

    rgba = np.zeros((fine * fine, 4))
    rgba[hit, :3] = light
    rgba[hit, 3] = 1
    rgba = rgba.reshape(size, samples, size, samples, 4).mean(axis=(1, 3))
    straight = rgba[..., :3] / np.maximum(rgba[..., 3:], 1e-9)
    out = np.concatenate([np.clip(straight, 0, 1) ** (1 / 2.2), rgba[..., 3:]], axis=2)
    return (out * 255 + 0.5).astype(np.uint8) * (rgba[..., 3:] > 0)
