"""The main job on a sample picture: a mesh is made, asked for again, and asked for as STL.

Everything is left in `out/`. The store is a folder of its own in there, emptied first, so that the first answer is
really computed; the second and third show what is not made again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console

from meshkiln.cli import show
from meshkiln.kiln import Kiln
from meshkiln.render import render
from meshkiln.result import Result
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers

OUT = Path("out")


def main() -> None:
    from sample import sample

    out = Console(highlight=False)
    OUT.mkdir(exist_ok=True)
    shutil.rmtree(OUT / "store", ignore_errors=True)
    picture = OUT / "sample.png"
    if not picture.exists():
        out.print("drawing the sample picture …")
        Image.fromarray(sample(1024)).save(picture)

    kiln = Kiln(store=Tiers(Memory(), Disk(OUT / "store")))
    asked = [
        (f"{picture} as GLB, the first time", "glb"),
        (f"{picture} as GLB, again", "glb"),
        (f"{picture} as STL for printing", "stl"),
    ]
    results: list[Result] = []
    for title, format_ in asked:
        result = kiln.generate(picture, format_)
        results.append(result)
        out.print(f"\n{title}: {show.seconds(result.seconds)}", style="bold")
        out.print(show.stage_table(result))
    kiln.close()
    again = results[1]
    out.print(f"\nThe second answer took {show.seconds(again.seconds)} and saved {show.seconds(again.saved)}.")

    glb, stl = results[0].save(OUT / "sample.glb"), results[2].save(OUT / "sample.stl")
    rendered = OUT / "sample-views.png"
    render(glb, views=("front", "three-quarter", "side", "back"), size=384).save(rendered)
    out.print(f"\nThe mesh is {glb}, for printing {stl}, and {rendered} shows it from four sides.")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
