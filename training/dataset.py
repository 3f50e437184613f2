"""Shards of training records, made once and read many times. NumPy and Pillow only.

    python -m training.dataset OUT --shards 0 80 [--worker 0 --workers 2]

A record, by name (shard of 512; first axis is the record):
    surface (2048, 3) float16   points on the surface, frame
    normal  (2048, 3) int8      unit outward normals × 127
    query   (2048, 3) float16   first 1024 near the surface, then 1024 in the volume
    distance (2048,)  float16   signed distances at the queries, clipped to ±0.5
    image   (4, 128, 128) uint8 what `crop.recentre` gave, × 255
    aux     (4, 32, 32) int8    depth and normal of the undamaged picture in the crop × 120; −128 where empty
    kind    ()        uint8     index into training.grammars.GRAMMARS
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.crop import recentre, window
from meshkiln.errors import BadPicture
from training.grammars import GRAMMARS
from training.render import Picture, render, spoil
from training.sampling import field_samples, gradient, place, surface
from training.shapes import generator, make

SHARD = 512
POINTS, NEAR, VOLUME, AUX = 2048, 1024, 1024, 32
Record = dict[str, NDArray[np.generic]]


def auxiliary(picture: Picture, cx: float, cy: float, side: float) -> NDArray[np.int8]:
    """Depth and normals where the crop's 32 × 32 grid looks: nearest pixel of the clean picture."""
    size = picture.depth.shape[0]
    step = (np.arange(AUX) + 0.5) / AUX - 0.5
    rows = np.floor(cy + step * side).astype(int)
    cols = np.floor(cx + step * side).astype(int)
    inside = ((rows >= 0) & (rows < size))[:, None] & ((cols >= 0) & (cols < size))[None]
    grid = np.ix_(np.clip(rows, 0, size - 1), np.clip(cols, 0, size - 1))
    depth = np.where(inside, picture.depth[grid], np.nan)
    values = np.concatenate([depth[None], picture.normal[grid].transpose(2, 0, 1)])
    seen = np.isfinite(depth)[None]
    return np.where(seen, np.clip(np.nan_to_num(values) * 120, -127, 127), -128).astype(np.int8)


def record(index: int) -> Record:
    """The training record of that index. Raises ValueError when its shape or cut-out came out empty."""
    shape = make("train", index)
    rng = generator("train", index, 1)
    own = surface(shape, POINTS, rng)
    if own.shape[1] < POINTS:
        own = own[:, rng.integers(0, own.shape[1], POINTS)]
    placed = place(shape, own, rng)
    points = placed.outward(own)
    g = gradient(placed, points)
    normals = g / np.maximum(np.linalg.norm(g, axis=0), 1e-6)
    queries, distances = field_samples(placed, points, rng, NEAR, VOLUME)
    picture = render(placed, points, rng)
    rgba = spoil(picture.rgba, rng)
    try:
        image = recentre(rgba)
        aux = auxiliary(picture, *window(rgba[..., 3]))
    except BadPicture as e:
        raise ValueError(str(e)) from e
    return {
        "surface": points.T.astype(np.float16),
        "normal": np.round(normals.T * 127).astype(np.int8),
        "query": queries.astype(np.float16),
        "distance": np.clip(distances, -0.5, 0.5).astype(np.float16),
        "image": np.round(image * 255).astype(np.uint8),
        "aux": aux,
        "kind": np.uint8(list(GRAMMARS).index(shape.kind)),
    }


def write(out: Path, shard: int) -> None:
    """Makes shard number `shard` unless it is there; the file appears whole or not at all."""
    path = out / f"shard-{shard:05d}.npz"
    if path.exists():
        return
    records: list[Record] = []
    index = shard * SHARD * 2  # the second half replaces what came out empty
    while len(records) < SHARD:
        with contextlib.suppress(ValueError):
            records.append(record(index))
        index += 1
    part = out / f".{shard:05d}.{os.getpid()}.npz"
    np.savez(part, **{name: np.stack([r[name] for r in records]) for name in records[0]})
    part.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, nargs=2, default=(0, 80), metavar=("FIRST", "END"))
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for shard in range(args.shards[0] + args.worker, args.shards[1], args.workers):
        write(args.out, shard)
        print(shard, flush=True)


if __name__ == "__main__":
    main()
