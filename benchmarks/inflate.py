"""Seconds from a picture to a textured mesh without a model, stage by stage, and whether each mesh is a solid.

    MESHKILN_DATA=… python benchmarks/inflate.py [--runs 5] [--keep FOLDER]

Every picture of the data folder is enlarged or reduced to 1024 pixels along its longer side first.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from statistics import median
from typing import Any

import manifold3d
import numpy as np
import trimesh
from PIL import Image

from meshkiln.engines.base import PICTURE, Engine, Work
from meshkiln.engines.inflate import ENGINE, inflate, poisson, sheets, silhouette
from meshkiln.engines.mesh import export, finish, solid, texture
from meshkiln.engines.picture import matte, read
from meshkiln.render import render
from results_file import Bar, Results, data_folder

LONGEST = 1024
SOURCES = [
    module.__file__ for module in (read, matte, inflate, poisson, sheets, silhouette, export, finish, solid, texture)
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=5, help="the median of so many is reported")
    options.add_argument("--keep", type=Path, help="put the GLB files there, to be looked at")
    given = options.parse_args()
    results = Results("inflate", ["trimesh", "manifold3d", "fast-simplification", "scipy"], SOURCES)
    pictures = sorted(path for path in (data_folder() / "images").iterdir() if path.suffix in (".png", ".jpg"))
    made = {path.name: results.item(path.name, lambda path=path: measure(path, given)) for path in pictures}
    drawn = sorted(figures["render_s"] for figures in made.values())
    stages = [stage.name for stage in ENGINE.stages]
    totals = sorted(figures["total_s"] for figures in made.values())
    unsound = [name for name, figures in made.items() if figures["fault"]]
    results.finish(
        {
            "pictures": len(made),
            "median_s": {stage: round(median(figures[stage] for figures in made.values()), 4) for stage in stages},
            "median_total_s": round(median(totals), 4),
            "slowest_total_s": round(totals[-1], 4),
            "median_processor_s": round(median(figures["processor_s"] for figures in made.values()), 4),
            "slowest_processor_s": round(max(figures["processor_s"] for figures in made.values()), 4),
            "median_render_s": round(median(drawn), 4),
            "unsound": unsound,
            "per_picture": made,
        },
        bars=[
            Bar("1024-pixel picture to textured GLB, median of all", median(totals), 1.0, unit=" s"),
            Bar("1024-pixel picture to textured GLB, slowest of all", totals[-1], 1.0, unit=" s"),
            Bar("four views of the mesh at 512 pixels, median of all", median(drawn), 2.0, unit=" s"),
            Bar("meshes that are no solid", len(unsound), 0),
        ],
        notes=[
            f"each picture scaled to {LONGEST} pixels along its longer side; compute only, libraries loaded before",
            "processor_s is what the chain took of all cores, whatever else the machine was doing meanwhile",
            f"per picture the run with the median total of {given.runs}",
        ],
    )


def measure(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds by stage, and what an independent look at the mesh says."""
    picture = scaled(path)
    parameters = ENGINE.canonical({})
    # Once before the clock starts: libraries load on first use.
    chain(ENGINE, picture, parameters)
    before = time.process_time()
    runs = [chain(ENGINE, picture, parameters) for _ in range(given.runs)]
    processor = (time.process_time() - before) / given.runs
    seconds, values = sorted(runs, key=lambda run: sum(run[0].values()))[len(runs) // 2]
    mesh = values["finish"]
    fault = solid.fault(mesh["vertices"], mesh["faces"])
    body = manifold3d.Manifold(manifold3d.Mesh(mesh["vertices"], mesh["faces"].astype(np.uint32)))
    if body.status() != manifold3d.Error.NoError:
        fault = fault or str(body.status())
    if not trimesh.load_mesh(io.BytesIO(values["export"]), file_type="glb").is_watertight:
        fault = fault or "the GLB read back is not watertight"
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        (given.keep / f"{path.name}.glb").write_bytes(values["export"])
    start = time.perf_counter()
    render(values["export"])
    drawn = time.perf_counter() - start
    print(f"{path.name:36} {sum(seconds.values()):.3f} s  {fault or 'solid'}", flush=True)
    return {
        **{stage: round(value, 4) for stage, value in seconds.items()},
        "total_s": round(sum(seconds.values()), 4),
        "processor_s": round(processor, 4),
        "render_s": round(drawn, 4),
        "faces": len(mesh["faces"]),
        "glb_bytes": len(values["export"]),
        "fault": fault,
    }


def chain(engine: Engine, picture: bytes, parameters: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds and value of each stage, one after another."""
    values: dict[str, Any] = {PICTURE: picture}
    seconds = {}
    for stage in engine.stages:
        compute = stage.load()
        work = Work(tuple(values[name] for name in stage.reads), {name: parameters[name] for name in stage.parameters})
        start = time.perf_counter()
        [values[stage.name]] = compute([work])
        seconds[stage.name] = time.perf_counter() - start
    return seconds, values


def scaled(path: Path) -> bytes:
    picture = Image.open(path)
    share = LONGEST / max(picture.size)
    size = tuple(max(round(side * share), 1) for side in picture.size)
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(file, "PNG", compress_level=1)
    return file.getvalue()


if __name__ == "__main__":
    main()
