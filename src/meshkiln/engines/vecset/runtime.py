"""ONNX Runtime sessions for the bundled graphs: one per graph and process, deterministic, on a bounded pool."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.manifest import path

if TYPE_CHECKING:
    import onnxruntime

F32 = NDArray[np.float32]


def threads() -> int:
    """Threads a graph runs on: `MESHKILN_THREADS` where a worker was given its share, else the usable processors."""
    asked = os.environ.get("MESHKILN_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def session(name: str) -> onnxruntime.InferenceSession:
    """The session of the graph `name` ("flow.onnx"), loaded once. Raises NoWeights when there is no such file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Idle threads that spin would take the other workers' processors.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path(name), options, providers=["CPUExecutionProvider"])


def run(name: str, **inputs: NDArray[Any]) -> F32:
    """The single output of the graph `name` on float32 inputs, named as in `training/INTERFACE.md`."""
    out: F32 = session(name).run(None, inputs)[0]
    return out
