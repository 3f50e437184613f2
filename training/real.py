"""The ten real meshes that training may look at to choose between models, and a plain ray-cast picture of any mesh.

The pictures come from trimesh's rays, not from the renderer that made the training pictures. Needs MESHKILN_DATA.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from training.grammars.clay import turn
from training.sampling import FILL

DEV = {
    "spot.obj": "y", "penguin.obj": "y", "koala.obj": "y", "fish.obj": "y", "bul_teddy.obj": "y",
    "cdb_rubberduck.stl": "z", "cdb_coffeemug.stl": "z", "cdb_airplane.stl": "z", "cdb_hammer.stl": "z",
    "tri_idler_riser.stl": "z",
}  # fmt: skip
"""File → the axis that points up in it. The other meshes are looked at only for published figures."""

VIEWS = ((25.0, 15.0), (-50.0, 25.0), (140.0, 10.0))
"""(azimuth, elevation) in degrees."""


@dataclass(frozen=True)
class View:
    """A mesh in the frame of training/INTERFACE.md and its picture. rgba (H, W, 4) uint8, straight alpha."""

    name: str
    mesh: trimesh.Trimesh
    rgba: NDArray[np.uint8]


def folder() -> Path | None:
    root = os.environ.get("MESHKILN_DATA")
    return Path(root) / "meshes" if root else None


def load(path: Path, up: str) -> trimesh.Trimesh:
    mesh = trimesh.load(path, force="mesh", process=True)
    if up == "z":
        mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    return mesh


def look(
    mesh: trimesh.Trimesh, name: str, azimuth: float, elevation: float, fov: float = 30.0, size: int = 256
) -> View:
    """The mesh in the frame of a camera at that azimuth and elevation (degrees), and its picture."""
    view = turn(np.deg2rad(elevation)) @ turn(0, np.deg2rad(azimuth))
    v = np.asarray(mesh.vertices) @ view.T
    low, high = v.min(0), v.max(0)
    v = (v - (low + high) / 2) * FILL / ((high - low)[:2].max() / 2)
    placed = trimesh.Trimesh(v, mesh.faces, process=False)
    distance = 1.02 / np.tan(np.deg2rad(fov) / 2)
    distance = max(distance, v[:, 2].max() + 0.6)
    half = 1.25 * np.abs(v[:, :2] * (distance / (distance - v[:, 2:]))).max()
    n = size * 2
    a = ((np.arange(n) + 0.5) * 2 / n - 1) * half
    x, y = np.meshgrid(a, -a)
    d = np.stack([x.ravel(), y.ravel(), np.full(n * n, -distance)], 1)
    origin = np.broadcast_to([0.0, 0.0, distance], d.shape)
    face = placed.ray.intersects_first(origin, d)
    hit = face >= 0
    where = placed.triangles[face[hit]]
    normal = placed.face_normals[face[hit]]
    t = np.einsum("ij,ij->i", where[:, 0] - origin[hit], normal) / np.einsum("ij,ij->i", d[hit], normal)
    p = origin[hit] + d[hit] * t[:, None]
    bary = trimesh.triangles.points_to_barycentric(where, p, method="cross")
    smooth = np.einsum("ij,ijk->ik", bary, placed.vertex_normals[placed.faces[face[hit]]])
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    key, fill = np.array([0.4, 0.7, 0.6]), np.array([-0.8, 0.1, 0.6])
    light = 0.28 + 0.62 * np.clip(smooth @ key, 0, 1) + 0.2 * np.clip(smooth @ fill, 0, 1)
    rgba = np.zeros((n * n, 4), np.float32)
    rgba[hit, :3] = np.clip(light[:, None] * np.array([0.78, 0.62, 0.5]), 0, 1) ** (1 / 1.8)
    rgba[hit, 3] = 1
    rgba[:, :3] *= rgba[:, 3:]
    rgba = rgba.reshape(size, 2, size, 2, 4).mean((1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
    return View(name, placed, (rgba * 255 + 0.5).astype(np.uint8))


def views() -> list[View]:
    """Three views of each development mesh; empty when MESHKILN_DATA is not set."""
    root = folder()
    if root is None:
        return []
    out = []
    for name, up in DEV.items():
        mesh = load(root / name, up)
        out += [look(mesh, Path(name).stem, azimuth, elevation) for azimuth, elevation in VIEWS]
    return out
