"""What every engine's mesh goes through at the end: `finish` and `export`, their parameters and formats.

A mesh between stages is a dict of arrays: vertices (V, 3) float, faces (F, 3) int32, in a right-handed frame, +Y up,
the viewer at +Z; and uv_project (3, 4) float64, which takes a vertex (x, y, z, 1) to (u·s, v·s, s), where
(u, v) ∈ [0, 1]² is its place in the cut-out, from the upper left. An orthographic view has a last row (0, 0, 0, 1),
a perspective one has not.
"""

from __future__ import annotations

from meshkiln.engines.base import Parameter, Stage

FORMATS = {
    "glb": "model/gltf-binary",
    "obj": "application/zip",
    "ply": "model/vnd.ply",
    "stl": "model/stl",
    "3mf": "model/3mf",
}
"""Export formats and their media types. `obj` is a zip of mesh.obj, mesh.mtl and mesh.jpg."""

FACES = Parameter(
    "faces",
    40_000,
    "target number of triangles; 0 keeps every triangle the engine made",
    low=0,
    high=2_000_000,
    unit="triangles",
)
FORMAT = Parameter("format", "glb", "file format of the mesh", choices=tuple(FORMATS))
SIZE = Parameter(
    "size", 100.0, "longest side of a printed object (stl, 3mf)", low=1.0, high=10_000.0, unit="millimetres"
)

FINISH = Stage(
    name="finish",
    id="meshkiln.finish",
    version=2,
    compute="meshkiln.engines.mesh.finish:finish",
    reads=("inflate",),
    parameters=("faces",),
    numeric="fp32",
)
"""Reads the mesh of the stage that makes one: other engines use `dataclasses.replace(FINISH, reads=("decode",))`."""

PREVIEW = Stage(
    name="preview",
    id="meshkiln.mesh.preview",
    version=1,
    compute="meshkiln.engines.mesh.preview:preview",
    reads=("export",),
    numeric="fp32",
    media_type="image/png",
)
"""bytes of a mesh file → PNG, 384 × 384, transparent around the mesh."""

EXPORT = Stage(
    name="export",
    id="meshkiln.export",
    version=1,
    compute="meshkiln.engines.mesh.export:export",
    reads=("finish", "matte"),
    parameters=("format", "size"),
    only=(("size", "format", ("stl", "3mf")),),
    numeric="fp32",
    media_type="application/octet-stream",
    preview=PREVIEW,
)
"""Bytes of the format asked for; the engine's `formats` names their media type."""
