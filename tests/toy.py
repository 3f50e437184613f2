"""A small engine over text, with the shape of a real one: a cut-off, a stage that reaches back, two formats.

A "picture" is text; after a `|` comes a comment that `read` drops, as pictures drop their metadata.
`RUNS` counts what was really computed, by stage name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage, Work
from meshkiln.errors import BadPicture

RUNS: Counter[str] = Counter()


def read(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    RUNS["read"] += len(batch)
    values = []
    for work in batch:
        text = work.inputs[0].split(b"|")[0]
        if not text:
            raise BadPicture("the picture is empty")
        values.append({"pixels": np.frombuffer(text, np.uint8).copy()})
    return values


def smooth(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    RUNS["smooth"] += len(batch)
    return [{"field": w.inputs[0]["pixels"].astype(np.float64) * float(w.parameters["scale"])} for w in batch]


def grow(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    RUNS["grow"] += len(batch)
    values = []
    for work in batch:
        steps = int(work.parameters["steps"])
        for step in range(steps):
            work.report(step + 1, steps)
        values.append({"mesh": work.inputs[0]["field"] + steps})
    return values


def export(batch: Sequence[Work]) -> list[bytes]:
    RUNS["export"] += len(batch)
    return [
        f"{w.parameters['format']}:{w.inputs[0]['mesh'].sum():g}:{w.inputs[1]['pixels'].sum()}".encode() for w in batch
    ]


ENGINE = Engine(
    name="toy",
    help="A small engine over text.",
    stages=(
        Stage("read", "toy.read", 1, "toy:read", (PICTURE,), cutoff=True),
        Stage("smooth", "toy.smooth", 1, "toy:smooth", ("read",), ("scale",)),
        Stage("grow", "toy.grow", 1, "toy:grow", ("smooth",), ("steps", "seed")),
        Stage("export", "toy.export", 1, "toy:export", ("grow", "read"), ("format",), media_type="text/plain"),
    ),
    parameters=(
        Parameter("scale", 1.0, "how large", 0.0, 10.0),
        Parameter("steps", 5, "how often", 1, 50),
        Parameter("seed", 0, "which noise", 0, 2**32 - 1),
        Parameter("format", "glb", "which file", choices=("glb", "stl")),
    ),
    formats={"glb": "model/gltf-binary", "stl": "model/stl"},
    recipes={"fast": {"steps": 1}, "reference": {"steps": 50}},
)
