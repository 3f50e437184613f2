"""Pictures beside the meshes made of them: the contact sheet in the documentation, and one to look at everything.

    MESHKILN_DATA=… python benchmarks/contact_sheet.py [--engine inflate] [-o docs/gallery-inflate.webp] [--all]

Only pictures whose licence allows it go into the sheet; with `--all`, which is for looking and not for publishing,
every picture of the data folder does.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from inflate import chain
from meshkiln.engines.base import engine
from meshkiln.render import render
from results_file import data_folder

TILE = 168
PER_ROW = 4
GROUND = (244, 244, 242)
VIEWS = ("front", "side")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--engine", default="inflate")
    options.add_argument("-o", "--output", type=Path, default=Path("docs/gallery-inflate.webp"))
    options.add_argument("--all", action="store_true", help="every picture, also those not to be published")
    given = options.parse_args()
    pictures = data_folder() / "images"
    with (pictures / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if given.all or publishable(row["licence"])]
    made = [(row["name"].rpartition(".")[0], *one(pictures / row["name"], given.engine)) for row in rows]
    picture = sheet(made)
    picture.save(given.output, quality=80, method=6)
    print(f"{given.output}: {len(made)} pictures, {given.output.stat().st_size:,} bytes")


def publishable(licence: str) -> bool:
    """Whether the index names a licence that allows publication with credit, for the picture itself."""
    # "MIT (repo)" is the licence of a repository whose photographs are of unstated origin.
    return "(repo)" not in licence and licence.startswith(("MIT", "Apache-2.0", "CC BY", "BSD-3; data CC0"))


def one(path: Path, name: str) -> tuple[Image.Image, Image.Image]:
    """The picture, and its mesh from the sides."""
    made = engine(name)
    _, values = chain(made, path.read_bytes(), made.canonical({}))
    print(path.name, flush=True)
    shown = Image.open(path).convert("RGBA")
    shown.thumbnail((TILE, TILE))
    return shown, render(values["export"], VIEWS, TILE, background=GROUND, samples=3)


def sheet(made: Sequence[tuple[str, Image.Image, Image.Image]]) -> Image.Image:
    """Rows of (picture, front, side), named."""
    gap, label = 14, 16
    width, height = TILE * (1 + len(VIEWS)) + gap, TILE + label
    rows = -(-len(made) // PER_ROW)
    whole = Image.new("RGB", (PER_ROW * width + gap, rows * (height + gap) + gap), GROUND)
    draw = ImageDraw.Draw(whole)
    font = ImageFont.load_default(12)
    for place, (name, shown, views) in enumerate(made):
        x, y = gap + place % PER_ROW * width, gap + place // PER_ROW * (height + gap)
        whole.paste(shown, (x + (TILE - shown.width) // 2, y + (TILE - shown.height) // 2), shown)
        whole.paste(views, (x + TILE, y))
        draw.text((x, y + TILE), name, (90, 90, 90), font)
    return whole


if __name__ == "__main__":
    main()
