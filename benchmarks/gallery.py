"""What the learned engine makes, to be looked at.

    MESHKILN_DATA=… python benchmarks/gallery.py [--steps 50] [--out docs]

Two contact sheets and `gallery.md` with the credits. Real meshes: picture | front | side | back | the reference from
front and side. Pictures of the data folder whose licence allows it: picture | front | side | back, textured.
`--all` and `--set dev` are for looking, not for publishing: every picture, or the ten meshes that models are chosen on.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import real_meshes
from contact_sheet import publishable
from meshkiln.engines.base import Scalar, Work
from meshkiln.engines.vecset import ENGINE
from meshkiln.engines.vecset.manifest import manifest
from meshkiln.render import render
from quality import picture_files, run, vecset
from results_file import data_folder

TILE = 150
GROUND = (244, 244, 242)
SIDES = ("front", "side", "back")
Row = tuple[str, list[Image.Image]]


def on_ground(rgba: Image.Image) -> Image.Image:
    """A picture as a square tile."""
    rgba = rgba.convert("RGBA")
    rgba.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE, TILE), GROUND)
    tile.paste(rgba, ((TILE - rgba.width) // 2, (TILE - rgba.height) // 2), rgba)
    return tile


def tiles(mesh: object, views: Sequence[str] = SIDES) -> list[Image.Image]:
    """The mesh from each side."""
    row = render(mesh, views, TILE, background=GROUND, samples=3)  # type: ignore[arg-type]
    return [row.crop((i * TILE, 0, (i + 1) * TILE, TILE)) for i in range(len(views))]


def real(name: str, steps: int) -> Row:
    """One real mesh from its first camera."""
    seen = real_meshes.look(name, 0)
    made = tiles(vecset(seen.rgba, steps=steps, octree_resolution=256))
    print(name, flush=True)
    return name, [on_ground(Image.fromarray(seen.rgba)), *made, *tiles(seen.reference, ("front", "side"))]


def picture(file: str, steps: int) -> Row:
    """One picture of the data folder, to a textured mesh."""
    data = (data_folder() / "images" / file).read_bytes()
    parameters = ENGINE.canonical({**ENGINE.recipes["reference"], "decoder": "sparse", "steps": steps})
    made = run_chain(data, parameters)
    print(file, flush=True)
    return Path(file).stem, [on_ground(Image.open(data_folder() / "images" / file)), *tiles(made)]


def run_chain(data: bytes, parameters: dict[str, Scalar]) -> bytes:
    """The whole line of stages, `export` with the cut-out beside the mesh."""
    cutout = run(ENGINE.stages[:2], data, parameters)
    mesh = run(ENGINE.stages[2:6], cutout, parameters)
    exported = ENGINE.stages[6].load()([Work((mesh, cutout), parameters)])[0]
    assert isinstance(exported, bytes)
    return exported


def sheet(rows: Sequence[Row], across: int) -> Image.Image:
    """Rows of tiles, `across` of them side by side, each with its name."""
    wide, gap = len(rows[0][1]), 10
    down = -(-len(rows) // across)
    out = Image.new("RGB", (across * (wide * TILE + gap) - gap, down * TILE), GROUND)
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(12)
    for number, (name, row) in enumerate(rows):
        x, y = number // down * (wide * TILE + gap), number % down * TILE
        for column, tile in enumerate(row):
            out.paste(tile, (x + column * TILE, y))
        draw.text((x + 4, y + 3), name, fill=(90, 90, 90), font=font)
    return out


def credits(folder: str, names: Sequence[str]) -> list[str]:
    """A line for each file: source and licence."""
    with (data_folder() / folder / "index.csv").open() as file:
        rows = {row["name"].rpartition(".")[0]: row for row in csv.DictReader(file)}
    return [f"- {name}: {rows[name]['source_repo']}, {rows[name]['licence']}" for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--set", choices=("dev", "test", "all"), default="all", help="which real meshes")
    parser.add_argument("--all", action="store_true", help="every picture, also those not to be published")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    with (data_folder() / "images" / "index.csv").open() as file:
        allowed = {row["name"] for row in csv.DictReader(file) if given.all or publishable(row["licence"])}
    meshes = [real(name, given.steps) for name in real_meshes.names(given.set)]
    pictures = [picture(name, given.steps) for name in picture_files() if name in allowed]
    given.out.mkdir(parents=True, exist_ok=True)
    sheet(meshes, 2).save(given.out / "gallery-meshes.webp", quality=78, method=6)
    sheet(pictures, 2).save(given.out / "gallery-pictures.webp", quality=78, method=6)
    weights = manifest().digest("flow.onnx")[:12]
    lines = [
        "# Gallery of the engine `vecset`",
        "",
        f"Made by `python benchmarks/gallery.py` with {given.steps} steps, guidance "
        f"{ENGINE.recipes['reference']['guidance_scale']:g}, 256³; flow weights `{weights}`. Nothing was picked: these",
        "are all the meshes and all the pictures whose licence allows showing them.",
        "",
        "## Real meshes",
        "",
        "The picture the model was given, its mesh from front, side and back, then the reference from front and side.",
        "",
        "![real meshes](gallery-meshes.webp)",
        "",
        "## Pictures",
        "",
        "The picture, and the textured mesh from front, side and back. There is no reference.",
        "",
        "![pictures](gallery-pictures.webp)",
        "",
        "## Credits",
        "",
        *credits("meshes", [name for name, _ in meshes]),
        *credits("images", [name for name, _ in pictures]),
        "",
    ]
    (given.out / "gallery.md").write_text("\n".join(lines))
    print(f"{given.out}: {len(meshes)} meshes, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
