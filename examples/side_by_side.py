"""The picture in the README: what went in, and what came out of either engine, from `make demo`'s files in out/."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from meshkiln.render import render

OUT, DOCS = Path("out"), Path("docs")


def main() -> None:
    size = 420
    picture = Image.open(OUT / "sample.png").convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    rows = [
        render(OUT / f"{name}.glb", views=("three-quarter", "side", "back"), size=size).convert("RGB")
        for name in ("sample", "sample-learned")
    ]
    sheet = Image.new("RGB", (picture.width + rows[0].width, len(rows) * size), "white")
    sheet.paste(picture, (0, size // 2))
    for number, views in enumerate(rows):
        sheet.paste(views, (picture.width, number * size))
    sheet.save(DOCS / "demo.webp", quality=86)


if __name__ == "__main__":
    main()
