"""Twelve shapes by each recipe, side by side, to be looked at: reference | balanced | fast.

    MESHKILN_DATA=… python benchmarks/recipe_gallery.py [--out docs] [--shapes 12]

Writes recipes.webp: the picture, then front and side by each recipe. Real meshes, evenly taken from all of them in the
alphabet's order, from their first camera. The reference's dense grid is decoded sparsely, which gives the same surface
(benchmarks/decode.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import trimesh
from PIL import Image

import real_meshes
from gallery import Row, on_ground, sheet, tiles
from meshkiln.engines.base import Scalar
from meshkiln.engines.vecset import ENGINE
from quality import run

RECIPES = ("reference", "balanced", "fast")


def made(name: str, resolution: int) -> Row:
    """One shape: the picture and the views of each recipe's mesh."""
    seen = real_meshes.look(name, 0)
    row = [on_ground(Image.fromarray(seen.rgba))]
    for recipe in RECIPES:
        asked: Mapping[str, Scalar] = {**ENGINE.recipes[recipe], "octree_resolution": resolution}
        if asked["decoder"] == "dense":
            asked = {**asked, "decoder": "sparse"}
        value = run(ENGINE.stages[2:5], {"pixels": seen.rgba}, ENGINE.canonical(asked))
        row += tiles(trimesh.Trimesh(value["vertices"], value["faces"], process=False), ("front", "side"))
    print(name, flush=True)
    return name, row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--shapes", type=int, default=12)
    parser.add_argument("--resolution", type=int, default=256)
    given = parser.parse_args()
    names = real_meshes.names("all")
    rows = [made(names[i * len(names) // given.shapes], given.resolution) for i in range(given.shapes)]
    sheet(rows, 2 if given.shapes > 1 else 1).save(given.out / "recipes.webp", quality=80, method=6)
    print(given.out / "recipes.webp")


if __name__ == "__main__":
    main()
