"""How good the learned engine's meshes are: `python benchmarks/quality.py [PART …] [--set dev|test]`.

procedural : 200 shapes of the frozen test generator (`training/testset.py`), none of them ever trained on
real : the real meshes of the data folder from three cameras, pictured by a renderer that training does not use.
    `--set dev` is for choosing between models and writes no result; `--set test` are the published figures
pictures : the pictures of the data folder, through `read` and `matte`; there is no reference, so silhouette against
    cut-out, watertightness and the number of pieces

Columns: `inflate` (no model), `autoencoder` (what the latent set can hold: the reference's own surface points, encoded
and decoded), `vecset` (the reference recipe, decoded sparsely: benchmarks/decode.py shows the two decoders equal). All
are measured in one camera frame and moved by one transform, the reference's bounding box to [−1, 1], without alignment
(figures named `aligned_…` are the exception: a similarity found by iterated closest points comes first).
What that gives away: `inflate` is told the reference's picture extents (its result is scaled to them exactly); `vecset`
is told nothing but the picture and has to get its size right. Silhouettes are seen by the picture's own camera;
for shapes and pictures whose camera is not known, along z without perspective and from the best distance.

Intervals are 95 % percentile bootstraps of the mean over shapes (10,000 resamples; views of one mesh stay together).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from meshkiln import engines
from meshkiln.engines.base import Scalar, Stage, Work
from meshkiln.engines.inflate import ENGINE as INFLATE
from meshkiln.engines.vecset import (
    ENGINE,
    camera,
    crop,
    decode,
    encode,
    floaters,
    grid,
    runtime,
    sparse,
)
from meshkiln.quality import metrics
from results_file import Bar, Results, code_of, data_folder

RESOLUTION = 128
"""Cells of the grid that is decoded for measuring; what a finer one would change has not
been measured. Pictures are decoded at 256."""
SURFACE = 8192
"""Points of its own surface that a shape is encoded from for the autoencoder's column. Training draws 1,024."""
Rows = list[dict[str, Any]]


def run(stages: Sequence[Stage], value: Any, parameters: dict[str, Scalar]) -> Any:
    """`value` through `stages`, each reading the one before it."""
    for stage in stages:
        value = stage.load()([Work((value,), parameters)])[0]
    return value


def vecset(rgba: NDArray[np.uint8], **asked: Scalar) -> trimesh.Trimesh:
    """The learned engine's mesh of a cut-out, in the frame."""
    parameters = ENGINE.canonical(
        {**ENGINE.recipes["reference"], "decoder": "sparse", "octree_resolution": RESOLUTION, **asked}
    )
    return _mesh(run(ENGINE.stages[2:5], {"pixels": rgba}, parameters))


def inflate(rgba: NDArray[np.uint8]) -> trimesh.Trimesh:
    """The inflated silhouette, scaled to the frame: the larger of its x and y half-extents is 0.8."""
    mesh = _mesh(run(INFLATE.stages[2:3], {"pixels": rgba}, INFLATE.canonical({})))
    low, high = mesh.bounds
    scale = crop.FILL / float((high - low)[:2].max() / 2)
    return trimesh.Trimesh((mesh.vertices - (low + high) / 2) * scale, mesh.faces, process=False)


def autoencoder(points: NDArray[np.float32], normals: NDArray[np.float32]) -> trimesh.Trimesh:
    """The shape encoded from its own surface (`SURFACE` points and normals) and decoded."""
    surface = np.concatenate([points, normals], axis=1, dtype=np.float32)[None]
    features = runtime.run("latents.onnx", z=runtime.run("shape_encoder.onnx", surface=surface))
    mesh = floaters.without_floaters(sparse.decode([decode.field(features[0])], RESOLUTION)[0])
    return trimesh.Trimesh(*mesh, process=False)


def _mesh(value: dict[str, Any]) -> trimesh.Trimesh:
    return trimesh.Trimesh(value["vertices"], value["faces"], process=False)


def _columns(
    reference: trimesh.Trimesh, rgba: NDArray[np.uint8], steps: int, eye: metrics.Camera | None = None
) -> dict[str, dict[str, float]]:
    points, normals = metrics.surface_samples(reference, SURFACE, 0)
    made: dict[str, Callable[[], trimesh.Trimesh]] = {
        "inflate": lambda: inflate(rgba),
        "autoencoder": lambda: autoencoder(points.astype(np.float32), normals.astype(np.float32)),
        "vecset": lambda: vecset(rgba, steps=steps),
    }
    figures = {}
    for name, make in made.items():
        mesh = make()
        figures[name] = metrics.evaluate(mesh, reference, camera=eye).flat() | metrics.evaluate_aligned(mesh, reference)
    return figures


def frozen() -> None:
    """Exit when the procedural test set is not the one that was frozen before training."""
    from training import testset

    if testset.digest() != testset.FROZEN:
        raise SystemExit(f"the procedural test set has changed: digest {testset.digest()}, frozen {testset.FROZEN}")


def procedural(results: Results, count: int, steps: int) -> Rows:
    """The frozen test shapes, or the first `count` of them."""
    frozen()
    return results.items({f"{i}": partial(_procedural, i, steps) for i in range(count)})


def _procedural(index: int, steps: int) -> dict[str, Any]:
    from training import testset

    item = testset.item(index)
    solid, _ = sparse.decode_one(lambda p: -item.distance(p), RESOLUTION)
    reference = trimesh.Trimesh(*solid, process=False)
    return {"shape": index, "kind": item.kind, **_columns(reference, item.rgba, steps)}


def real(results: Results, which: str, steps: int) -> Rows:
    """The real meshes, each from three cameras."""
    import real_meshes

    every = [(name, view) for name in real_meshes.names(which) for view in range(len(real_meshes.VIEWS))]
    return results.items({f"{name} {view}": partial(_real, name, view, steps) for name, view in every})


def _real(name: str, view: int, steps: int) -> dict[str, Any]:
    import real_meshes

    seen = real_meshes.look(name, view)
    return {"shape": name, "view": view, **_columns(seen.reference, seen.rgba, steps, seen.camera)}


def pictures(results: Results, steps: int) -> Rows:
    """Every picture of the data folder that is no other tool's cut-out of one of them."""
    return results.items({file: partial(_picture, file, steps) for file in picture_files()})


def _picture(file: str, steps: int) -> dict[str, Any]:
    cutout = cut(file)
    mesh = vecset(cutout, steps=steps, octree_resolution=256)
    wanted = crop.recentre(cutout)[3] >= 0.5
    # The camera is unknown: the distance that suits the mesh best, as the engine finds it for the texture.
    its = camera.fit(grid.Mesh(mesh.vertices.view(np.ndarray), mesh.faces), encode.outline(cutout))
    pinhole = metrics.Camera(1 / its.nearness if its.nearness else math.inf, its.centre, its.half)
    seen = metrics.silhouette(mesh, pinhole, crop.SIZE)
    return {
        "shape": file,
        "vecset": {
            "silhouette_iou": metrics.iou(seen, wanted),
            "watertight": float(mesh.is_watertight),
            "components": float(metrics.components(mesh)),
        },
    }


def picture_files() -> list[str]:
    """Names of the pictures, without published cut-outs."""
    folder = data_folder() / "images"
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".png", ".jpg") and ".out." not in p.name)


@cache
def cut(file: str) -> NDArray[np.uint8]:
    """The cut-out (H, W, 4) that the engine makes of a picture of the data folder."""
    data = (data_folder() / "images" / file).read_bytes()
    pixels: NDArray[np.uint8] = run(ENGINE.stages[:2], data, ENGINE.canonical({}))["pixels"]
    return pixels


def interval(values: NDArray[np.float64], groups: Sequence[Any], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval; values of one group are resampled together."""
    kinds, group = np.unique([str(g) for g in groups], return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(kinds), (10_000, len(kinds)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def summary(rows: Rows) -> dict[str, dict[str, Any]]:
    """Column → metric → mean and 95 % interval, rounded to four places; prints the table."""
    columns = [name for name in ("inflate", "autoencoder", "vecset") if name in rows[0]]
    groups = [row["shape"] for row in rows]
    out: dict[str, dict[str, Any]] = {}
    for metric in rows[0]["vecset"]:
        cells = []
        for column in columns:
            found = interval(np.array([row[column][metric] for row in rows]), groups)
            out.setdefault(column, {})[metric] = [round(x, 4) for x in found]
            cells.append("{:7.3f} [{:.3f}, {:.3f}]".format(*found))
        print(f"{metric:>20}  " + "  ".join(f"{column} {cell}" for column, cell in zip(columns, cells, strict=True)))
    return out


def bars(part: str, table: dict[str, dict[str, Any]], rows: Rows) -> list[Bar]:
    """What was promised for this part."""

    def mean(column: str, metric: str) -> float:
        return float(table[column][metric][0])

    if part == "procedural":
        return [Bar("autoencoder, unseen procedural shapes: volume IoU", mean("autoencoder", "volume_iou"), 0.93, ">=")]
    if part == "real":
        ratio = mean("vecset", "chamfer_l1") / mean("inflate", "chamfer_l1")
        return [
            Bar("autoencoder, real meshes: volume IoU", mean("autoencoder", "volume_iou"), 0.88, ">="),
            Bar("reference recipe, real meshes: F-score@0.1", mean("vecset", "f_score_0.1"), 0.80, ">="),
            Bar("reference recipe, real meshes: F-score@0.05", mean("vecset", "f_score_0.05"), 0.55, ">="),
            Bar("reference recipe, real meshes: Chamfer-L1 against inflate's", ratio, 0.6, "<="),
            Bar("reference recipe, real meshes: volume IoU", mean("vecset", "volume_iou"), 0.60, ">="),
            Bar("reference recipe, real meshes: silhouette IoU", mean("vecset", "silhouette_iou"), 0.92, ">="),
        ]
    single = float(np.mean([row["vecset"]["components"] == 1 for row in rows]))
    median = float(np.median([row["vecset"]["silhouette_iou"] for row in rows]))
    return [
        Bar("pictures: watertight", mean("vecset", "watertight"), 1.0, ">="),
        Bar("pictures: one component", single, 0.9, ">="),
        Bar("pictures: median silhouette IoU", median, 0.88, ">="),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["procedural", "real", "pictures"], metavar="PART")
    parser.add_argument("--set", choices=("dev", "test"), default="test", help="which real meshes")
    parser.add_argument("--count", type=int, default=200, help="procedural shapes; fewer than 200 writes no result")
    parser.add_argument("--steps", type=int, default=50, help="Euler steps; other than 50 writes no result")
    given = parser.parse_args()
    for part in given.parts:
        measure(part, given.set, given.count, given.steps)


def measure(part: str, which: str, count: int, steps: int) -> None:
    """One part, to its result file or, when it is a trial, to the screen."""
    trial = steps != 50 or (part == "real" and which == "dev") or (part == "procedural" and count < 200)
    claim = f"quality_{part}" + (f"_{which}_{count}_{steps}" if trial else "")
    results = Results(claim, ["onnxruntime", "trimesh", "scipy"], [*code_of(engines), metrics.__file__])
    if part == "procedural":
        rows = procedural(results, count, steps)
    elif part == "real":
        rows = real(results, which, steps)
    else:
        rows = pictures(results, steps)
    table = summary(rows)
    promised = bars(part, table, rows)
    if trial:
        for bar in promised:
            print(f"{'met  ' if bar.met else 'SHORT'}  {bar.name}: {bar.value:.4g} (bar: {bar.op} {bar.target:g})")
        return
    notes = [
        "Mean and 95 % bootstrap interval over shapes; views of one mesh are resampled together.",
        "Frame shared, normalised by the reference's bounding box, no alignment; see the module's first lines.",
    ]
    results.finish({"table": table, "shapes": per_shape(rows)}, promised, notes)


def per_shape(rows: Rows) -> dict[str, Any]:
    """Volume IoU and silhouette IoU by kind or name, so that a class of objects that fails can be seen."""
    named: dict[str, Rows] = {}
    for row in rows:
        named.setdefault(str(row.get("kind", row["shape"])), []).append(row)
    shown = [m for m in ("volume_iou", "silhouette_iou") if m in rows[0]["vecset"]]
    return {
        name: {
            f"{column} {metric}": round(float(np.mean([row[column][metric] for row in its])), 3)
            for column in ("autoencoder", "vecset")
            if column in its[0]
            for metric in shown
        }
        for name, its in sorted(named.items())
    }


if __name__ == "__main__":
    main()
