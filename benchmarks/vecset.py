"""What it costs to have the learned engine at hand: seconds to import its description and to load its graphs.

    python benchmarks/vecset.py [--short]

Each in fresh processes; numpy and onnxruntime are imported before the clock runs. What a generation costs is in
benchmarks/recipes.py. Besides: what IO binding would gain, which the runtime does without, and what the memory arena
gains, which it has.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshkiln import engines
from meshkiln.engines.vecset import ENGINE, manifest, runtime
from results_file import Bar, Results, code_of

OPEN = {"batch": 1, "count": 4096, "nodes": 4096, "cells": 1024, "places": 729}
"""What the graphs leave open, as calls have it."""


def fresh(code: str) -> float:
    """Median seconds that `code` prints, each time in a new process."""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return median(float(run.stdout) for run in runs)


def inputs(session: Any) -> dict[str, NDArray[Any]]:
    """Random inputs of a graph, as many as a call has."""
    draw, given = np.random.default_rng(0), {}
    for its in session.get_inputs():
        shape = [OPEN[n] if isinstance(n, str) else n for n in its.shape]
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}[its.type]
        of = draw.normal(size=shape) if kind is np.float32 else draw.integers(OPEN["nodes"], size=shape)
        given[its.name] = of.astype(kind)
    return given


def ratios(calls: int) -> dict[str, dict[str, float]]:
    """By graph, processor time on one thread, the three in turn: a plain call's over that of one whose inputs and
    output are bound, and a call's without the memory arena over the plain one's."""
    sizes, binding, arena = manifest.manifest(), {}, {}
    graphs = {name for decoder in runtime.DECODERS for name in runtime.wanted("teacher", decoder)}
    for name in sorted({*graphs, *runtime.wanted("student", "sparse")} & set(sizes.files)):
        session, without = runtime.opened(name, 1), runtime.opened(name, 1, arena=False)
        given = inputs(session)
        (output,) = session.get_outputs()
        room = session.run(None, given)[0]
        bound = session.io_binding()
        for its, value in given.items():
            bound.bind_cpu_input(its, value)
        bound.bind_output(output.name, "cpu", 0, np.float32, room.shape, room.ctypes.data)
        ways = (
            lambda s=session, g=given: s.run(None, g),
            lambda s=session, b=bound: s.run_with_iobinding(b),
            lambda s=without, g=given: s.run(None, g),
        )
        took = np.array([[processor_ns(way) for way in ways] for _ in range(calls)])
        plain, with_binding, without_arena = took.T
        binding[name] = round(float(np.median(plain / with_binding)), 4)
        arena[name] = round(float(np.median(without_arena / plain)), 4)
    return {"of_io_binding": binding, "of_the_arena": arena}


def processor_ns(call: Callable[[], Any]) -> int:
    """Nanoseconds of processor time that a call takes."""
    started = time.process_time_ns()
    call()
    return time.process_time_ns() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a look, not a result: few calls")
    short = parser.parse_args().short
    results = Results("vecset", ["onnxruntime"], code_of(engines), trial=short)
    clock = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    imported = results.item("import", lambda: fresh(clock.format("import meshkiln.engines.vecset")))
    figures: dict[str, Any] = {"import_s": imported}
    for recipe in ("fast", "reference"):
        parameters = ENGINE.canonical(ENGINE.recipes[recipe])
        names = runtime.wanted(str(parameters["model"]), str(parameters["decoder"]))
        code = "import numpy, onnxruntime; from meshkiln.engines.vecset import runtime; "
        code += clock.format(f"runtime.load({names!r})")
        figures[f"load_{recipe}_s"] = results.item(f"load {recipe}", lambda c=code: fresh(c))
    figures |= results.item("ratios", lambda: ratios(10 if short else 100))
    print(figures)
    bars = [
        Bar("import of the engine vecset", imported, 0.15, unit=" s"),
        Bar("load of the engine vecset's graphs, recipe fast", figures["load_fast_s"], 0.5, unit=" s"),
        Bar("load of the engine vecset's graphs, recipe reference", figures["load_reference_s"], 0.5, unit=" s"),
    ]
    notes = [
        "medians of five fresh processes; loading numpy and onnxruntime is not in it",
        "of_io_binding: a plain call's processor time over a bound one's, medians; 1 is no gain",
        "of_the_arena: processor time of a call without ONNX Runtime's memory arena over one with it, medians",
    ]
    return 0 if results.finish(figures, bars, notes) else 1


if __name__ == "__main__":
    sys.exit(main())
