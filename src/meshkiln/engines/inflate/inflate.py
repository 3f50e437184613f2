"""Stage `inflate`: a cut-out's silhouette blown up into a smooth closed volume.

The depth at a pixel is the square root of h, where Δh = −4 inside the silhouette and h = 0 on its border: a disc
becomes a ball, a band a rounded bar, a ring something like a torus (I. Baran, J. Lehtinen, "Notes on Inflating
Curves", 2009; P. Joshi, N. Carr, "Repoussé: Automatic Inflation of 2D Artwork", SBIM 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.base import Work
from meshkiln.engines.inflate.poisson import solve
from meshkiln.engines.inflate.sheets import sheets
from meshkiln.engines.inflate.silhouette import sample

if TYPE_CHECKING:
    from meshkiln.engines.base import Value


def inflate(batch: Sequence[Work]) -> list[Value]:
    """The stage: a mesh, as `volume` returns it, for each cut-out `{"pixels"}`. Parameter `depth`."""
    return [volume(work.inputs[0]["pixels"], float(work.parameters["depth"])) for work in batch]


def volume(pixels: NDArray[np.uint8], depth: float = 1.0) -> dict[str, NDArray[Any]]:
    """The cut-out as a closed volume, symmetric front to back. Its holes are holes, its parts are parts.

    pixels : (H, W, 4) uint8, straight alpha
    depth : thickness relative to a round shape

    Returns vertices (V, 3) float32 in a right-handed frame, +Y up, the viewer at +Z, the bounding box centred with
    longest side 2; faces (F, 3) int32, counter-clockwise from outside; uv_project (3, 4) float64, which takes a
    vertex (x, y, z, 1) to (u·s, v·s, s), where (u, v) ∈ [0, 1]² is its place in the cut-out from the upper left.
    Every edge has exactly two faces, and no two vertices coincide. Raises BadPicture when nothing is opaque.
    """
    outline = sample(pixels[..., 3])
    at, height, front = sheets(outline.level, solve(outline.level))
    x0, y0, step = outline.to_picture
    z = np.sqrt(height) * (step * depth)
    points = np.stack([x0 + at[:, 0] * step, -(y0 + at[:, 1] * step), z], axis=1)
    off_border = np.flatnonzero(height > 0)
    behind = points[off_border] * (1, 1, -1)
    mirrored = np.arange(len(points))
    mirrored[off_border] = len(points) + np.arange(len(off_border))
    points = np.concatenate([points, behind])
    low, high = points.min(axis=0), points.max(axis=0)
    centre, scale = (low + high) / 2, 2.0 / float((high - low).max())
    rows, columns = pixels.shape[:2]
    uv_project = np.array(
        [
            [1 / (scale * columns), 0, 0, centre[0] / columns],
            [0, -1 / (scale * rows), 0, -centre[1] / rows],
            [0, 0, 0, 1],
        ]
    )
    return {
        "vertices": ((points - centre) * scale).astype(np.float32),
        "faces": np.concatenate([front, mirrored[front][:, ::-1]]).astype(np.int32),
        "uv_project": uv_project,
    }
