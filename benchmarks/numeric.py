"""Cheaper numeric classes of the networks, stage by stage: what each costs, and how far it moves the surface.

    MESHKILN_DATA=… python benchmarks/numeric.py [--short]

Each of the graphs that a stage runs is made anew with its matrix products in another class, and the stage run with them
on what the others made in float32, by the default recipe at 256³:

int8 : weights per channel, activations with one scale for each call found as it runs (`quantize_dynamic`)
bf16, fp16 : both sides of every product rounded to that, where the runtime has such a kernel

Seconds are processor time of one thread, the two classes in turn. How far the surface moves is the distance of 4,000
vertices to the other surface, either way round, in cells of the grid; both surfaces are of one decoder, and the patch
decoder's table, which depends on the grid alone, is float32 throughout. `mates` is how far (root mean square, of what
is usual for the output) an item moves when it shares its call with others: an output may depend on its item alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import trimesh
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.spatial import cKDTree

from meshkiln import engines
from meshkiln.engines.base import Work
from meshkiln.engines.vecset import ENGINE, manifest, runtime
from quality import cut, picture_files
from results_file import Results, code_of

CLASSES = ("int8", "bf16", "fp16")
STAGES = ("encode", "sample", "decode")
"""Those that run networks."""
CASES = {
    "encode": ("encode", "tokens", "patches"),
    "sample": ("sample", "latents", "patches"),
    "decode, patches": ("decode", "", "patches"),
    "decode, sparse": ("decode", "", "sparse"),
}
"""What is run in another class → the stage, its output that is compared, and the decoder."""
POINTS = 4000
RESOLUTION = 256


# Graphs of another class.


def narrowed(name: str, kind: str, folder: Path) -> Path:
    """The graph of that name with its products in another class, as a file. What is kept as float16 is widened."""
    graph = widened(onnx.load(manifest.path(name)))
    file = folder / f"{kind}-{name}"
    if kind == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain = folder / f"plain-{name}"
        onnx.save(graph, plain)
        only = {"MatMulConstBOnly": True}
        quantize_dynamic(
            plain, file, ["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8, extra_options=only
        )
    else:
        onnx.save(rounded(graph, TensorProto.BFLOAT16 if kind == "bf16" else TensorProto.FLOAT16), file)
    return file


def widened(graph: Any) -> Any:
    """Weights as float32, where they were kept in half the bytes and widened on loading."""
    half = {its.name: its for its in graph.graph.initializer if its.data_type == TensorProto.FLOAT16}
    for node in list(graph.graph.node):
        if node.op_type == "Cast" and node.input[0] in half:
            weights = numpy_helper.to_array(half[node.input[0]]).astype(np.float32)
            graph.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            graph.graph.node.remove(node)
    for its in half.values():
        graph.graph.initializer.remove(its)
    return graph


def rounded(graph: Any, kind: int) -> Any:
    """Both sides of every matrix product rounded to `kind`, and the product widened again."""
    nodes = []
    for number, node in enumerate(graph.graph.node):
        if node.op_type not in ("MatMul", "Gemm"):
            nodes.append(node)
            continue
        product, out = onnx.NodeProto(), node.output[0]
        product.CopyFrom(node)
        for place, given in enumerate(node.input):
            product.input[place] = f"{given}_{number}_{place}_narrow"
            nodes.append(helper.make_node("Cast", [given], [product.input[place]], to=kind))
        product.output[0] = f"{out}_narrow"
        nodes += [product, helper.make_node("Cast", [product.output[0]], [out], to=TensorProto.FLOAT)]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


class Graphs:
    """Sessions of every class, opened when they are first wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = runtime.session
        self._opened: dict[tuple[str, str], Any] = {}

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Have every graph run in that class meanwhile."""
        runtime.session = lambda name: self._session(name, kind)
        try:
            yield
        finally:
            runtime.session = self.plain

    def _session(self, name: str, kind: str) -> Any:
        if (name, kind) not in self._opened:
            path, before = narrowed(name, kind, self.folder), runtime.path
            runtime.path = lambda name: path
            try:
                self._opened[name, kind] = runtime.opened(name, 1)
            finally:
                runtime.path = before
        return self._opened[name, kind]


# One picture.


def through(values: dict[str, Any], first: str, decoder: str) -> dict[str, Any]:
    """`values` with the stages from `first` up to `decode` made anew."""
    made = dict(values)
    for name in STAGES[STAGES.index(first) :]:
        made[name] = run(name, [made], decoder)[0]
    return made


def run(name: str, given: list[dict[str, Any]], decoder: str) -> list[Any]:
    """A stage's values of these items in one batch."""
    parameters = ENGINE.canonical({"octree_resolution": RESOLUTION, "decoder": decoder})
    stage = next(stage for stage in ENGINE.stages if stage.name == name)
    works = [Work(tuple(values[its] for its in stage.reads), stage.mattering(parameters)) for values in given]
    return list(stage.load()(works))


def spent(compute: Callable[[], Any]) -> float:
    started = time.process_time()
    compute()
    return time.process_time() - started


def moved(one: Mapping[str, Any], other: Mapping[str, Any]) -> NDArray[np.float64]:
    """Distances of vertices of each surface to the other, in cells."""
    return np.concatenate([_distances(one, other), _distances(other, one)]) * RESOLUTION / 2


def _distances(one: Mapping[str, Any], other: Mapping[str, Any]) -> NDArray[np.float64]:
    """From some vertices of `one` to the triangles of `other`, which are smaller than a cell: so one of the sixteen
    whose middles are nearest is the nearest."""
    vertices = one["vertices"].astype(np.float64)
    chosen = np.random.default_rng(0).choice(len(vertices), min(POINTS, len(vertices)), replace=False)
    triangles = other["vertices"].astype(np.float64)[other["faces"]]
    _, near = cKDTree(triangles.mean(axis=1)).query(vertices[chosen], k=16)
    points = np.repeat(vertices[chosen], 16, axis=0)
    foot = trimesh.triangles.closest_point(triangles[near.ravel()], points)
    return np.asarray(np.linalg.norm(points - foot, axis=1).reshape(-1, 16).min(axis=1))


def measure(file: str, mate: str, graphs: Graphs) -> dict[str, Any]:
    """Every stage in every class on one picture; `mate` is who shares its calls in another try."""
    given, other = ({"matte": {"pixels": cut(its)}} for its in (file, mate))
    beside = through(other, "encode", "patches")
    plains = {decoder: through(given, "encode", decoder) for decoder in ("patches", "sparse")}
    return {
        f"{case} {kind}": one(graphs, kind, stage, output, decoder, plains[decoder], beside)
        for case, (stage, output, decoder) in CASES.items()
        for kind in CLASSES
    }


def one(
    graphs: Graphs, kind: str, stage: str, output: str, decoder: str, plain: dict[str, Any], beside: dict[str, Any]
) -> dict[str, Any]:
    """One stage in one class, on what the others made in float32."""
    try:
        with graphs.of(kind):
            (value,) = run(stage, [plain], decoder)
    except Exception as error:
        # ONNX Runtime's own errors have no common class of their own.
        return {"refused": str(error).split(" : ")[-1][:120]}
    slow = fast = np.inf
    for _ in range(2):
        slow = min(slow, spent(lambda: run(stage, [plain], decoder)))
        with graphs.of(kind):
            fast = min(fast, spent(lambda: run(stage, [plain], decoder)))
    told: dict[str, Any] = {"fp32_cpu_s": slow, "cpu_s": fast, "faster": slow / fast}
    if output:
        with graphs.of(kind):
            together = run(stage, [plain, beside], decoder)[0][output]
        usual = float(np.sqrt(np.mean(plain[stage][output] ** 2)))
        told["off"] = float(np.sqrt(np.mean((value[output] - plain[stage][output]) ** 2))) / usual
        told["mates"] = float(np.sqrt(np.mean((together - value[output]) ** 2))) / usual
    altered = {**plain, stage: value}
    if stage != "decode":
        altered = through(altered, STAGES[STAGES.index(stage) + 1], decoder)
    cells = moved(altered["decode"], plain["decode"])
    return told | {
        "cells_median": float(np.median(cells)),
        "cells_99": float(np.quantile(cells, 0.99)),
        "within_a_tenth": float(np.mean(cells <= 0.1)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8, help="fewer writes no result")
    parser.add_argument("--short", action="store_true", help="a look, not a result: two pictures")
    given = parser.parse_args()
    os.environ["MESHKILN_THREADS"] = "1"
    trial = given.short or given.pictures < parser.get_default("pictures")
    packages = ["numpy", "onnx", "onnxruntime"]
    results = Results("numeric", packages, code_of(engines), trial=trial)
    files = picture_files()[: 2 if given.short else given.pictures]
    with tempfile.TemporaryDirectory() as folder:
        graphs = Graphs(Path(folder))
        rows = [
            results.item(file, lambda f=file, m=mate: measure(f, m, graphs))
            for file, mate in zip(files, files[1:] + files[:1], strict=True)
        ]
    table = {}
    for name in rows[0]:
        refused = [row[name]["refused"] for row in rows if "refused" in row[name]]
        table[name] = (
            {"refused": refused[0]}
            if refused
            else {figure: median(row[name][figure] for row in rows) for figure in rows[0][name]}
        )
        print(name, {k: round(v, 4) if isinstance(v, float) else v for k, v in table[name].items()}, flush=True)
    results.finish({"table": table, "pictures": len(files)}, notes=NOTES)
    return 0


NOTES = [
    "medians over pictures, one thread; `off` and `mates` as shares of the output's root mean square",
    "cells of the grid at 256³: a class is offered when 99 % of the surface stays within a tenth of one, an item does "
    "not depend on its mates, and it is faster",
]

if __name__ == "__main__":
    sys.exit(main())
