"""The field's own decoder, kept as the reference: every sample of the grid, in chunks, then marching cubes."""

from __future__ import annotations

import numpy as np

from meshkiln.engines.vecset.grid import F32, OUTSIDE, Field, Mesh, axis

CHUNK = 8000
"""Queries per call: the default `num_chunks` of Hunyuan3D-2's volume decoder."""


def volume(field: Field, resolution: int, half: float = 1.0, chunk: int = CHUNK) -> F32:
    """Logits (R + 1, R + 1, R + 1) float32 at every sample, indexed [x, y, z], as the field gives them."""
    coordinate = axis(resolution, half)
    samples = resolution + 1
    logits = np.empty(samples**3, np.float32)
    for start in range(0, len(logits), chunk):
        flat = np.arange(start, min(start + chunk, len(logits)))
        index = np.stack(np.unravel_index(flat, (samples,) * 3), axis=1)
        logits[flat] = field(coordinate[index])
    return logits.reshape((samples,) * 3)


def surface(logits: F32, half: float = 1.0) -> Mesh:
    """Marching cubes (Lewiner et al. 2003, by scikit-image) of a whole grid of logits, cut at the box's faces."""
    from skimage.measure import marching_cubes

    closed = logits.copy()
    for along in range(3):
        face = np.moveaxis(closed, along, 0)
        face[[0, -1]] = np.minimum(face[[0, -1]], np.float32(OUTSIDE))
    if not closed.max() > 0:
        return Mesh.empty()
    vertices, faces, _, _ = marching_cubes(closed, 0.0)  # type: ignore[no-untyped-call]
    resolution = logits.shape[0] - 1
    placed = (vertices.astype(np.float64) / resolution * (2 * half) - half).astype(np.float32)
    # scikit-image winds towards the larger values; a logit is larger inside.
    return Mesh(placed, np.ascontiguousarray(faces[:, ::-1], dtype=np.int32))


def decode(field: Field, resolution: int, half: float = 1.0, chunk: int = CHUNK) -> Mesh:
    """The surface of `field`, from (R + 1)³ queries."""
    return surface(volume(field, resolution, half, chunk), half)
