"""Stage `decode`: a latent set's occupancy field becomes a closed mesh, by one of three decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.base import Work
from meshkiln.engines.vecset import RECIPES, camera, dense, patches, runtime, sparse
from meshkiln.engines.vecset.floaters import without_floaters
from meshkiln.engines.vecset.grid import F32, Field, Mesh
from meshkiln.errors import BadPicture

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

CALL = 4096
"""Queries given to the graph at once: its intermediates then stay in the cache, where 65,536 leave it."""

EMPTY = "no shape came of the picture: nothing solid is seen in it; give one that shows a solid object, whole and large"


def warm() -> None:
    """Load the graphs that the default decoder runs; another's wait to be asked for."""
    runtime.load(runtime.DECODERS[str(RECIPES["fast"]["decoder"])])


def decode(batch: Sequence[Work]) -> list[Value]:
    """The stage: for each `{"latents", "outline", "window"}`, a mesh `{"vertices", "faces", "uv_project"}`.

    Parameters `octree_resolution`, `decoder`. Raises BadPicture when a field is empty: the network saw no object.
    """
    features = runtime.run("latents.onnx", z=np.stack([work.inputs[0]["latents"] for work in batch]))
    values: list[Value] = []
    for work, its in zip(batch, features, strict=True):
        decoder, resolution = str(work.parameters["decoder"]), int(work.parameters["octree_resolution"])
        mesh = without_floaters(surface(its, decoder, resolution))
        if len(mesh.faces) == 0 and np.isfinite(its).all():  # numbers that are none are not the picture's doing
            raise BadPicture(EMPTY)
        seen_from = camera.fit(mesh, np.unpackbits(work.inputs[0]["outline"], axis=1).astype(bool))
        project = uv_project(seen_from, work.inputs[0]["window"])
        values.append({"vertices": mesh.vertices, "faces": mesh.faces, "uv_project": project})
    return values


def surface(features: F32, decoder: str, resolution: int) -> Mesh:
    """The surface of the field of `features` (L, W), given by latents.onnx."""
    if decoder == "patches":
        return patches.decode_one(features, resolution)[0]
    if decoder == "dense":
        return dense.decode(field(features), resolution)
    return sparse.decode_one(field(features), resolution)[0]


def uv_project(seen_from: camera.Camera, window: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 4): a vertex (x, y, z, 1) → (u·s, v·s, s), its place in the cut-out from the upper left.

    window : (4,) as `encode` gives it
    """
    u, v, half_width, half_height = window
    return np.array([[half_width, 0, u], [0, -half_height, v], [0, 0, 1]]) @ seen_from.matrix()


def field(features: F32) -> Field:
    """The field of one latent set, given what depends on the latents only: features (L, W)."""
    one = features[None]

    def logits(points: F32) -> F32:
        parts = [
            runtime.run("query.onnx", features=one, points=points[None, start : start + CALL])[0]
            for start in range(0, len(points), CALL)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.float32)

    return logits
