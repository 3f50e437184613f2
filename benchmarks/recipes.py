"""A hundred times less work for the same mesh: the three recipes side by side, in seconds, work and quality.

    MESHKILN_DATA=… python benchmarks/recipes.py [speed|quality|curve …]      (each part goes on where it broke off)

speed : every recipe on each picture in turn, one process and its threads, graphs loaded before: seconds by stage,
    network evaluations, field queries; at 256³ and 512³. The reference is run to its end on the first `--whole`
    pictures; on the others, and at 512³, its dense grid is scaled from chunks of 8,000 queries spread over it, and
    counted as scaled
quality : the loss of `balanced` and `fast` against `reference` in five metrics, paired by shape, on the 200 frozen
    procedural shapes and on the real meshes, with 95 % bounds
curve : all combinations of model, steps, solver and guidance on some of the frozen shapes: docs/recipes.svg, which has
    seconds against quality

In `quality` (at 256³) and `curve` (at 128³) a dense grid is decoded sparsely: benchmarks/decode.py shows that the two
decoders give one surface. `fast` is decoded as it is served.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

import recipes_report
from meshkiln import engines
from meshkiln.engines.base import PICTURE, Scalar, Work
from meshkiln.engines.vecset import (
    ENGINE,
    decode,
    dense,
    encode,
    grid,
    manifest,
    runtime,
    sample,
    sparse,
)
from meshkiln.quality import metrics
from quality import frozen, picture_files
from results_file import Bar, Results, code_of, data_folder

RECIPES = ("reference", "balanced", "fast")
MODEL = ("encode", "sample", "decode", "finish")
METRICS = ("volume_iou", "f_score_0.02", "f_score_0.05", "silhouette_iou", "normal_consistency")
RESOLUTION = 256
"""Cells of the grid that `quality` judges: what is served."""
COARSE = 128
"""Cells of the grid that `curve` judges, and that a test shape's own surface is taken from."""
POINTS = 20_000
"""Points on each surface for measuring it: of a shape the same for every recipe."""
CHUNKS = 24
"""Chunks of the dense grid that are timed where it is not run to its end."""
Rows = list[dict[str, Any]]


# Work and seconds.


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Counts what is asked of the graphs meanwhile: network evaluations of one item, and field queries."""
    asked = {"evaluations": 0, "queries": 0}
    plain = runtime.run

    def counted(name: str, **inputs: Any) -> Any:
        if name in ("flow.onnx", "student.onnx"):
            asked["evaluations"] += len(inputs["x"])
        if name in ("query.onnx", "nodes.onnx"):
            asked["queries"] += inputs["points"].shape[0] * inputs["points"].shape[1]
        return plain(name, **inputs)

    runtime.run = counted
    try:
        yield asked
    finally:
        runtime.run = plain


def generate(file: str, recipe: str, resolution: int, whole: bool) -> dict[str, Any]:
    """One generation from the picture's file to the GLB's bytes, stage by stage.

    whole : run a dense decode to its end; else it is scaled from some of its chunks, and the mesh for the stages
        after it comes from the sparse decoder, outside of all times
    """
    parameters = ENGINE.canonical({**ENGINE.recipes[recipe], "octree_resolution": resolution})
    values: dict[str, Any] = {PICTURE: (data_folder() / "images" / file).read_bytes()}
    seconds: dict[str, float] = {}
    scaled = parameters["decoder"] == "dense" and not whole
    queries = 0
    with counting() as asked:
        for stage in ENGINE.stages:
            inputs = tuple(values[name] for name in stage.reads)
            if stage.name == "decode" and scaled:
                seconds["decode"] = scaled_dense(values["sample"], resolution)
                its = {**parameters, "decoder": "sparse"}
                queries = (resolution + 1) ** 3
            else:
                its = parameters
            work = Work(inputs, stage.mattering(its))
            compute = stage.load()
            started = time.perf_counter()
            values[stage.name] = compute([work])[0]
            seconds.setdefault(stage.name, time.perf_counter() - started)
    return {
        "stages_s": {name: round(value, 5) for name, value in seconds.items()},
        "model_s": sum(seconds[name] for name in MODEL),
        "total_s": sum(seconds.values()),
        "evaluations": asked["evaluations"],
        "queries": queries or asked["queries"],
        "scaled": scaled,
    }


def scaled_dense(value: Mapping[str, Any], resolution: int) -> float:
    """Seconds that the dense grid's queries take, from `CHUNKS` of its chunks; marching cubes and what follows are left
    out, in the reference's favour."""
    started = time.perf_counter()
    its = decode.field(runtime.run("latents.onnx", z=value["latents"][None])[0])
    before = time.perf_counter() - started
    coordinate, samples = grid.axis(resolution), (resolution + 1) ** 3
    started = time.perf_counter()
    for start in np.linspace(0, samples - dense.CHUNK, CHUNKS).astype(np.int64):
        index = np.stack(np.unravel_index(np.arange(start, start + dense.CHUNK), (resolution + 1,) * 3), axis=1)
        its(coordinate[index])
    return before + (time.perf_counter() - started) * samples / (CHUNKS * dense.CHUNK)


def speed(results: Results, pictures: int, whole: int, resolutions: Sequence[int]) -> dict[str, Any]:
    """The paired table by resolution, and the ratios: each is of one picture, then the median over pictures."""
    for module in (encode, sample, decode):
        module.warm()
    runtime.session("flow.onnx")
    files = picture_files()[:pictures]
    generate(files[0], "fast", 64, True)
    table: dict[str, Any] = {}
    for resolution in resolutions:
        made: dict[str, Rows] = {recipe: [] for recipe in RECIPES}
        for number, file in enumerate(files):
            for recipe in RECIPES:
                to_the_end = resolution == min(resolutions) and number < whole
                one = results.item(
                    f"speed {resolution} {recipe} {file} {to_the_end}",
                    lambda f=file, r=recipe, n=resolution, e=to_the_end: generate(f, r, n, e),
                )
                made[recipe].append(one)
                print(resolution, file, recipe, f"{one['model_s']:.3f} s", "(scaled)" * one["scaled"], flush=True)
        table[str(resolution)] = recipes_report.paired(made, [stage.name for stage in ENGINE.stages])
    recipes_report.print_speed(table)
    return table


# Quality.


def latents(rgba: NDArray[np.uint8], asked: Sequence[Mapping[str, Scalar]]) -> list[dict[str, Any]]:
    """What `sample` makes of a cut-out under each of the parameters, the evaluations and the processor seconds."""
    (encoded,) = encode.encode([Work(({"pixels": rgba},), {})])
    made = []
    for parameters in asked:
        with counting() as counts:
            work = Work((encoded,), ENGINE.stages[3].mattering(ENGINE.canonical(parameters)))
            started = time.process_time()
            (value,) = sample.sample([work])
            seconds = time.process_time() - started
        assert isinstance(value, dict)
        made.append({"value": value, "seconds": seconds, "evaluations": counts["evaluations"]})
    return made


def judged(
    rgba: NDArray[np.uint8],
    reference: trimesh.Trimesh,
    asked: Mapping[str, Mapping[str, Scalar]],
    eye: metrics.Camera | None = None,
    resolution: int = RESOLUTION,
) -> dict[str, Any]:
    """The five metrics of each of the parameters' meshes, what sampling took, and how far its latents are from the
    first parameters' (root mean square; another seed's are about 0.85 away)."""
    out = {}
    every = latents(rgba, list(asked.values()))
    first = every[0]["value"]["latents"]
    for name, made in zip(asked, every, strict=True):
        decoder = "patches" if asked[name]["decoder"] == "patches" else "sparse"
        work = Work((made["value"],), {"octree_resolution": resolution, "decoder": decoder})
        (mesh,) = decode.decode([work])
        assert isinstance(mesh, dict)
        solid = trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False)
        figures = metrics.evaluate(solid, reference, POINTS, camera=eye).flat()
        out[name] = {
            **{metric: round(figures[metric], 5) for metric in METRICS},
            "latents_off": round(float(np.sqrt(np.mean((made["value"]["latents"] - first) ** 2))), 5),
            "evaluations": made["evaluations"],
            "sample_cpu_s": round(made["seconds"], 4),
        }
    return out


@cache
def procedural(index: int) -> tuple[NDArray[np.uint8], trimesh.Trimesh]:
    """Cut-out and surface of a frozen test shape."""
    from training import testset

    item = testset.item(index)
    solid, _ = sparse.decode_one(lambda p: -item.distance(p), COARSE)
    return item.rgba, trimesh.Trimesh(*solid, process=False)


def quality(results: Results, shapes: int, views: int) -> dict[str, Any]:
    """Losses against the reference, by set of shapes, with their 95 % bounds."""
    import real_meshes

    frozen()
    asked = {name: ENGINE.recipes[name] for name in RECIPES}
    every = [
        (name, view) for name in real_meshes.names("all")[: 3 if views == 0 else None] for view in range(max(views, 1))
    ]
    sets: dict[str, Rows] = {
        "procedural": results.items({f"procedural {i}": partial(_procedural, i, asked) for i in range(shapes)}),
        "real": results.items({f"real {name} {view}": partial(_real, name, view, asked) for name, view in every}),
    }
    table = {name: recipes_report.losses(rows, METRICS, RECIPES[0], RECIPES[1:]) for name, rows in sets.items()}
    recipes_report.print_losses(table)
    return table


def _procedural(index: int, asked: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Any]:
    return {"shape": index, **judged(*procedural(index), asked)}


def _real(name: str, view: int, asked: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Any]:
    import real_meshes

    seen = real_meshes.look(name, view)
    return {"shape": name, **judged(seen.rgba, seen.reference, asked, seen.camera)}


# The curve.


def combinations() -> dict[str, dict[str, Scalar]]:
    """What was tried: name → parameters."""
    reference = ENGINE.recipes["reference"]
    tried: dict[str, dict[str, Scalar]] = {"reference": dict(reference)}
    guidances: dict[str, dict[str, Scalar]] = {
        "guided": {},
        "unguided": {"guidance_scale": 1.0},
        "guided to 0.7": {"guidance_end": 0.7},
    }
    for steps in (1, 2, 4, 8, 16, 50):
        for solver in ("euler", "heun", "adams"):
            for name, guidance in guidances.items():
                # One step of any of them is Euler's, and a guided interval of one step is all of it.
                if steps == 1 and (solver != "euler" or "0.7" in name):
                    continue
                if steps == 50 and (solver == "adams" or "0.7" in name):
                    continue
                tried[f"{solver} {steps} {name}"] = {**reference, "steps": steps, "solver": solver, **guidance}
    tried.pop("euler 50 guided")  # the reference
    for start in (0.1, 0.3):
        for steps in (8, 16):
            tried[f"adams {steps} guided from {start}"] = {
                **reference,
                "steps": steps,
                "solver": "adams",
                "guidance_start": start,
            }
    for steps in (4, 8, 16):
        for solver in ("euler", "adams"):
            tried[f"{solver} {steps} shift 2"] = {**reference, "steps": steps, "solver": solver, "shift": 2.0}
    for threshold in (0.05, 0.1, 0.2):
        for steps in (12, 16):
            cached: dict[str, Scalar] = {"steps": steps, "solver": "adams", "cache_threshold": threshold}
            tried[f"adams {steps} cached {threshold:g}"] = {**reference, **cached}
    tried["adams 16 shift 2 cached 0.1"] = {**tried["adams 16 cached 0.1"], "shift": 2.0}
    for name in RECIPES[1:]:
        tried[name] = dict(ENGINE.recipes[name])
    if "student.onnx" in manifest.manifest().files:
        for steps in (1, 2, 4, 8):
            tried[f"student {steps}"] = {**reference, "model": "student", "steps": steps}
    return tried


def curve(results: Results, shapes: int) -> dict[str, Any]:
    """Every combination on shapes spread over the frozen set; means with the intervals of their difference."""
    frozen()
    tried = combinations()
    chosen = [int(i) for i in np.linspace(0, 199, shapes).round()]
    rows = []
    for number, i in enumerate(chosen):
        rows.append(results.item(f"curve {i}", lambda i=i: judged(*procedural(i), tried, resolution=COARSE)))
        print(f"shape {number + 1} of {shapes}", flush=True)
    return recipes_report.curve(rows, METRICS, tried)


def bars(tables: Mapping[str, Any]) -> list[Bar]:
    """What was promised, of the parts that were measured."""
    out = []
    at = tables.get("speed", {})
    for resolution, recipe, kind, target in (
        ("256", "fast", "model", 100),
        ("256", "fast", "total", 50),
        ("512", "fast", "model", 200),
        ("256", "balanced", "model", 30),
    ):
        if resolution in at:
            what = "the model's stages" if kind == "model" else "end to end"
            ratio = at[resolution]["faster"][recipe][kind]
            out.append(Bar(f"{recipe} against reference at {resolution}³, {what}: faster", ratio, target, ">=", "×"))
    for shapes, by_recipe in tables.get("quality", {}).items():
        for recipe, by_metric in by_recipe.items():
            worst = max(METRICS, key=lambda m, t=by_metric: t[m]["upper"])
            name = f"{recipe}, {shapes} shapes: 95 % bound of the loss, the worst of five metrics ({worst})"
            out.append(Bar(name, 100 * by_metric[worst]["upper"], 2, "<=", " %"))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="speed, quality, curve; all without")
    parser.add_argument("--pictures", type=int, default=20, help="timed; fewer than 20 writes no result")
    parser.add_argument("--whole", type=int, default=8, help="of those, how many the reference is run to its end on")
    parser.add_argument(
        "--shapes", type=int, default=200, help="procedural shapes of `quality`; fewer writes no result"
    )
    parser.add_argument(
        "--views", type=int, default=3, help="cameras of each real mesh, as quality.py has; 0 is a look at three meshes"
    )
    parser.add_argument("--tried", type=int, default=12, help="procedural shapes of `curve`")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 512])
    given = parser.parse_args()
    if unknown := set(given.parts) - {"speed", "quality", "curve"}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    sources = [*code_of(engines), metrics.__file__, recipes_report.__file__]
    recipes = manifest.FOLDER.parent / "__init__.py"
    ran: list[bool] = []
    for part in given.parts or ["speed", "quality", "curve"]:
        trial = {
            "speed": given.pictures < 20 or given.whole < 8 or given.resolutions != [256, 512],
            "quality": given.shapes < 200 or given.views < 3,
            "curve": given.tried < 12,
        }[part]
        claim = f"recipes_{part}" + ("_trial" if trial else "")
        results = Results(claim, ["onnxruntime", "numpy"], [p for p in [*sources, recipes] if p is not None])
        if part == "speed":
            table = speed(results, given.pictures, given.whole, given.resolutions)
        elif part == "quality":
            table = quality(results, given.shapes, given.views)
        else:
            table = curve(results, given.tried)
        figures = {"table": table, "recipes": ENGINE.recipes, "threads": runtime.threads()}
        promised = bars({part: table})
        if trial:
            for bar in promised:
                print(f"{'met  ' if bar.met else 'SHORT'}  {bar.name}: {bar.value:.4g} (bar: {bar.op} {bar.target:g})")
            continue
        ran.append(results.finish(figures, promised, NOTES[part]))
        recipes_report.write(Path(__file__).parents[1] / "docs")
    return 0 if all(ran) else 1


NOTES = {
    "speed": [
        "medians over pictures, ratios taken within a picture; model: encode to finish; compute only, graphs loaded",
        "scaled: the dense decode, from 24 chunks of 8,000 queries, without marching cubes, floaters and camera",
    ],
    "quality": [
        "loss: (reference − recipe) / reference of the means; `upper` is the 97.5 % quantile of a paired bootstrap "
        "over shapes (10,000 resamples; views of one mesh stay together), `lower` the 2.5 %",
        "256³, 20,000 points a surface, the reference's dense grid decoded sparsely (one surface); one seed",
    ],
    "curve": ["means over shapes; loss and its 95 % interval against the reference, paired by shape"],
}

if __name__ == "__main__":
    sys.exit(main())
