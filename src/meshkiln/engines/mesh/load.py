"""Mesh files read back, of whatever format their bytes show them to be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from meshkiln.errors import BadInput

if TYPE_CHECKING:
    import trimesh

Z_UP = ("stl", "3mf")
"""Formats for printing, whose up axis is Z and whose front looks along −Y."""


def load(mesh: bytes | str | Path | trimesh.Trimesh | trimesh.Scene) -> tuple[trimesh.Scene, bool]:
    """The mesh as a scene, and whether its up axis is Z. Raises BadInput when it is no mesh."""
    import trimesh

    if isinstance(mesh, trimesh.Scene):
        return mesh, False
    if isinstance(mesh, trimesh.Trimesh):
        return trimesh.Scene(mesh), False
    where: Path | None = None
    if not isinstance(mesh, bytes):
        where = Path(mesh)
        try:
            mesh = where.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {where}: {error.strerror}") from error
    kind = _kind(mesh)
    try:
        # A bare OBJ finds its material and texture beside it.
        if kind == "obj" and where is not None:
            scene = trimesh.load_scene(where, file_type="obj")
        else:
            scene = trimesh.load_scene(io.BytesIO(mesh), file_type=kind)
        found = any(isinstance(part, trimesh.Trimesh) and len(part.faces) for part in scene.geometry.values())
    except Exception as error:  # a reader of untrusted bytes may raise anything
        raise BadInput(f"not a readable {kind.upper()} mesh: {error}") from error
    if not found:
        raise BadInput("no triangles found; give a GLB, OBJ, PLY, STL or 3MF file with a mesh in it")
    return scene, kind in Z_UP


def _kind(data: bytes) -> str:
    if data[:4] == b"glTF":
        return "glb"
    if data[:3] == b"ply":
        return "ply"
    if data[:2] == b"PK":
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except zipfile.BadZipFile as error:
            raise BadInput("a damaged zip file: neither 3MF nor a zipped OBJ") from error
        return "3mf" if any(name.lower().endswith(".model") for name in names) else "zip"
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "stl"
    if data.lstrip()[:5] == b"solid":
        return "stl"
    if any(line.startswith((b"v ", b"mtllib", b"o ", b"#")) for line in data[:4096].splitlines()):
        return "obj"
    raise BadInput("not a mesh file; give GLB, OBJ, PLY, STL or 3MF")
