"""The main job on a sample picture: a mesh is made, asked for again, asked for as STL, and made by the learned engine.

Everything is left in `out/`. The store is a folder of its own in there, emptied first, so that the first answer is
really computed; the second and third show what is not made again, and the fourth finds the cut-out.
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

    store = Tiers(Memory(), Disk(OUT / "store"))
    kilns = {engine: Kiln(engine, store=store) for engine in ("inflate", "vecset")}
    asked = [
        (f"{picture} as GLB, the first time", "glb", "inflate"),
        (f"{picture} as GLB, again", "glb", "inflate"),
        (f"{picture} as STL for printing", "stl", "inflate"),
        (f"{picture} as GLB by the learned engine", "glb", "vecset"),
    ]
    results: list[Result] = []
    for title, format_, engine in asked:
        result = kilns[engine].generate(picture, format_)
        results.append(result)
        out.print(f"\n{title}: {show.seconds(result.seconds)}", style="bold")
        out.print(show.stage_table(result))
    for kiln in kilns.values():
        kiln.close()
    again = results[1]
    out.print(f"\nThe second answer took {show.seconds(again.seconds)} and saved {show.seconds(again.saved)}.")

    stl = results[2].save(OUT / "sample.stl")
    out.print(f"\nFor printing: {stl}. The meshes, and what they look like from four sides:")
    for result, name in ((results[0], "sample"), (results[3], "sample-learned")):
        glb, rendered = result.save(OUT / f"{name}.glb"), OUT / f"{name}-views.png"
        render(glb, views=("front", "three-quarter", "side", "back"), size=384).save(rendered)
        out.print(f"  {glb}  {rendered}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
