"""What it costs to have the learned engine at hand: seconds to import its description and to load its graphs.

    python benchmarks/vecset.py

Each in fresh processes; numpy and onnxruntime are imported before the clock runs. What a generation costs is in
benchmarks/recipes.py.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from meshkiln.engines.vecset import ENGINE, manifest, runtime
from results_file import Bar, Results


def fresh(code: str) -> float:
    """Median seconds that `code` prints, each time in a new process."""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return median(float(run.stdout) for run in runs)


def main() -> int:
    results = Results("vecset", ["onnxruntime"], [runtime.__file__, manifest.FOLDER / "manifest.json"])
    clock = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    imported = results.item("import", lambda: fresh(clock.format("import meshkiln.engines.vecset")))
    figures = {"import_s": imported}
    for recipe in ("fast", "reference"):
        parameters = ENGINE.canonical(ENGINE.recipes[recipe])
        names = runtime.wanted(str(parameters["model"]), str(parameters["decoder"]))
        code = "import numpy, onnxruntime; from meshkiln.engines.vecset import runtime; "
        code += clock.format(f"runtime.load({names!r})")
        figures[f"load_{recipe}_s"] = results.item(f"load {recipe}", lambda c=code: fresh(c))
    bars = [
        Bar("import of the engine vecset", imported, 0.15, unit=" s"),
        Bar("load of the engine vecset's graphs, recipe fast", figures["load_fast_s"], 0.5, unit=" s"),
        Bar("load of the engine vecset's graphs, recipe reference", figures["load_reference_s"], 0.5, unit=" s"),
    ]
    notes = ["medians of five fresh processes; loading numpy and onnxruntime is not in it"]
    return 0 if results.finish(figures, bars, notes) else 1


if __name__ == "__main__":
    sys.exit(main())
