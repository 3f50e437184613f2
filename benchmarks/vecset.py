"""What one generation of the learned engine costs, stage by stage: the reference recipe beside the defaults.

    MESHKILN_DATA=… python benchmarks/vecset.py [--pictures 3]

Compute only, libraries and graphs loaded before; both recipes on the same runtime and threads, one after the other on
each picture. Network evaluations and field queries stand beside the seconds: no slow machine changes those.
Also: seconds to import the engine's description and to load its graphs, each in a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median
from typing import Any

from meshkiln.engines.base import PICTURE, Scalar, Work
from meshkiln.engines.vecset import ENGINE, decode, dense, encode, manifest, runtime, sample, sparse
from quality import picture_files
from results_file import Bar, Results, data_folder

RECIPES: dict[str, dict[str, Scalar]] = {"reference": dict(ENGINE.recipes["reference"]), "default": {}}


def generate(file: str, recipe: str) -> dict[str, Any]:
    """Seconds of every stage, network evaluations of one item and field queries."""
    parameters = ENGINE.canonical(RECIPES[recipe])
    values: dict[str, Any] = {PICTURE: (data_folder() / "images" / file).read_bytes()}
    asked = {"flow": 0, "query": 0}
    plain = runtime.run

    def counted(name: str, **inputs: Any) -> Any:
        if name == "flow.onnx":
            asked["flow"] += len(inputs["x"])
        if name == "query.onnx":
            asked["query"] += inputs["points"].shape[1]
        return plain(name, **inputs)

    seconds = {}
    runtime.run = counted
    try:
        for stage in ENGINE.stages:
            compute = stage.load()
            work = Work(tuple(values[name] for name in stage.reads), parameters)
            started = time.perf_counter()
            values[stage.name] = compute([work])[0]
            seconds[stage.name] = time.perf_counter() - started
    finally:
        runtime.run = plain
    model = sum(seconds[name] for name in ("encode", "sample", "decode", "finish"))
    return {
        "stages_s": {name: round(value, 4) for name, value in seconds.items()},
        "model_s": model,
        "total_s": sum(seconds.values()),
        "network_evaluations": asked["flow"],
        "field_queries": asked["query"],
    }


def fresh(code: str) -> float:
    """Median seconds that `code` prints, each time in a new process."""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return median(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3)
    given = parser.parse_args()
    modules = (decode, dense, encode, runtime, sample, sparse)
    weights = manifest.FOLDER / "manifest.json"
    results = Results("vecset", ["onnxruntime", "scikit-image"], [*(m.__file__ for m in modules), weights])
    for module in (encode, sample, decode):
        module.warm()
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for file in picture_files()[: given.pictures]:
        for recipe in reversed(RECIPES):
            made[recipe].append(results.item(f"{recipe} {file}", lambda f=file, r=recipe: generate(f, r)))
            print(file, recipe, made[recipe][-1], flush=True)
    clock = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    imported = results.item("import", lambda: fresh(clock.format("import meshkiln.engines.vecset")))
    graphs = "; ".join(f"from meshkiln.engines.vecset import {m}; {m}.warm()" for m in ("encode", "sample", "decode"))
    loaded = results.item("load", lambda: fresh("import numpy, onnxruntime; " + clock.format(graphs)))
    table = {
        recipe: {
            "stages_s": {s.name: median(row["stages_s"][s.name] for row in rows) for s in ENGINE.stages},
            **{name: median(row[name] for row in rows) for name in rows[0] if name != "stages_s"},
        }
        for recipe, rows in made.items()
    }
    results.finish(
        {"by_recipe": table, "pictures": given.pictures, "import_s": imported, "load_s": loaded},
        bars=[
            Bar("import of the engine vecset", imported, 0.15, unit=" s"),
            Bar("load of the engine vecset's graphs", loaded, 1.0, unit=" s"),
        ],
        notes=["medians over pictures; model_s is encode to finish; loading numpy and onnxruntime is not in load_s"],
    )


if __name__ == "__main__":
    main()
