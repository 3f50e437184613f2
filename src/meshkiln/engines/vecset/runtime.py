"""ONNX Runtime sessions for the bundled graphs: one per graph and process, deterministic, on a bounded pool.

`run(name, **inputs)` is the one way to a graph. Where it runs is the setting `execution_provider`; what it computes is
float32 everywhere, as the stages' fingerprints say: no provider is allowed to round its products further.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset import tuning
from meshkiln.engines.vecset.manifest import path
from meshkiln.errors import BadParameter
from meshkiln.settings import load as settings

if TYPE_CHECKING:
    import onnxruntime

F32 = NDArray[np.float32]

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "tensorrt": ("TensorrtExecutionProvider", {"trt_fp16_enable": "False", "trt_bf16_enable": "False"}),
    "openvino": ("OpenVINOExecutionProvider", {"device_type": "CPU", "precision": "FP32"}),
    "coreml": ("CoreMLExecutionProvider", {"MLComputeUnits": "CPUOnly", "ModelFormat": "MLProgram"}),
}
"""The setting's values → ONNX Runtime's name and the options that keep it to float32."""

TRIED = ("cpu",)
"""Providers that have been run. The options of the others are from ONNX Runtime's documentation: not yet run."""


@cache
def provider() -> str:
    """The execution provider asked for. Raises BadParameter when this ONNX Runtime has it not, naming those it has."""
    import onnxruntime

    asked = settings().settings.execution_provider
    there = [name for name, (theirs, _) in PROVIDERS.items() if theirs in onnxruntime.get_available_providers()]
    if asked not in there:
        raise BadParameter(
            f"execution_provider={asked} is not in the installed onnxruntime {onnxruntime.__version__}, "
            f"which has {', '.join(there)} (of {', '.join(PROVIDERS)})"
        )
    return asked


def threads() -> int:
    """Threads a graph runs on: what was found quickest of `available`, else all of them."""
    found = tuning.stored(available())
    return found.threads if found else available()


def available() -> int:
    """Threads that may be used: `MESHKILN_THREADS` where a worker was given its share, else the usable processors."""
    asked = os.environ.get("MESHKILN_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batch() -> int:
    """Items that a network is given in one call: what was found quickest, else 4. A stage's batch may be larger."""
    found = tuning.stored(available())
    return found.batch if found else 4


def measured() -> str:
    """Threads and batch size of this machine, measured now if they never were, in words for people."""
    found = tuning.stored(available()) or tuning.measure(available(), opened)
    kept = f"kept in {tuning.file()}" if tuning.stored(available()) else f"and cannot be kept in {tuning.file()}"
    tried = "" if provider() in TRIED else ", not yet run by its developers"
    return (
        f"onnxruntime on {provider()}{tried}: {found.threads} of {available()} threads, {found.batch} items a call "
        f"({found.milliseconds:.1f} ms an evaluation; measured on {found.date}, {kept})"
    )


@cache
def session(name: str) -> onnxruntime.InferenceSession:
    """The session of the graph `name` ("flow.onnx"), loaded once. Raises NoWeights when there is no such file."""
    return opened(name, threads())


def opened(name: str, count: int, arena: bool = True) -> onnxruntime.InferenceSession:
    """A new session of that graph on `count` threads; without the `arena` it gives memory back after every call, for
    the benchmark that says what that costs (`benchmarks/vecset.py`)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.use_deterministic_compute = True
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Idle threads that spin would take the other workers' processors.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    chosen = PROVIDERS[provider()]
    # What a provider has no kernel for falls to the processor.
    fallback = [] if chosen[0] == "CPUExecutionProvider" else [PROVIDERS["cpu"]]
    return onnxruntime.InferenceSession(path(name), options, providers=[chosen, *fallback])


DECODERS = {
    "patches": ("latents.onnx", "nodes.onnx", "basis.onnx", "blend.onnx"),
    "sparse": ("latents.onnx", "query.onnx"),
    "dense": ("latents.onnx", "query.onnx"),
}
"""The graphs that each decoder runs."""


def wanted(model: str, decoder: str) -> list[str]:
    """The graphs that a generation runs with these values of the parameters `model` and `decoder`."""
    return ["encoder.onnx", "student.onnx" if model == "student" else "flow.onnx", *DECODERS[decoder]]


def load(names: Sequence[str]) -> None:
    """Load these graphs side by side: ONNX Runtime lets the interpreter go while it does."""
    with ThreadPoolExecutor(len(names)) as loaders:
        for _ in loaders.map(session, names):
            pass


def run(name: str, **inputs: NDArray[Any]) -> F32:
    """The single output of the graph `name` on float32 inputs, named as in `training/INTERFACE.md`.

    Without IO binding: on the processor arrays are not copied on their way in, and binding gains a few per cent of most
    graphs, 13 % of the smallest at most (`benchmarks/vecset.py`).
    """
    out: F32 = session(name).run(None, inputs)[0]
    return out
