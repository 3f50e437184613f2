"""The picture in the README: what went in, and what came out, from `make demo`'s files in out/."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from meshkiln.render import render

OUT, DOCS = Path("out"), Path("docs")


def main() -> None:
    size = 420
    picture = Image.open(OUT / "sample.png").convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    views = render(OUT / "sample.glb", views=("three-quarter", "side", "back"), size=size).convert("RGB")
    sheet = Image.new("RGB", (picture.width + views.width, size), "white")
    sheet.paste(picture, (0, 0))
    sheet.paste(views, (picture.width, 0))
    sheet.save(DOCS / "demo.webp", quality=86)


if __name__ == "__main__":
    main()
