"""The engine `vecset`: a learned image-to-3D model that runs on a CPU.

A picture becomes image tokens, the tokens steer a flow from noise to a latent set (3DShape2VecSet, Zhang et al. 2023),
whose occupancy field is decoded to a mesh: the family of Hunyuan3D-2. Descriptions only; the work is in the modules.
"""

from __future__ import annotations

from dataclasses import replace

from meshkiln.engines import sampling
from meshkiln.engines.base import Engine, Parameter, Scalar, Stage
from meshkiln.engines.mesh import EXPORT, FACES, FINISH, FORMAT, FORMATS, SIZE
from meshkiln.engines.picture import MATTE, PARAMETERS, READ
from meshkiln.engines.vecset.manifest import manifest as _manifest

_WEIGHTS = _manifest()

ENCODE = Stage(
    name="encode",
    id="meshkiln.vecset.encode",
    version=1,
    compute="meshkiln.engines.vecset.encode:encode",
    reads=("matte",),
    weights=_WEIGHTS.digest("encoder.onnx"),
    numeric="fp32",
    batch=16,
)

_STUDENT = "student.onnx" in _WEIGHTS.files

SAMPLE = Stage(
    name="sample",
    id="meshkiln.vecset.sample",
    version=2,
    compute="meshkiln.engines.vecset.sample:sample",
    reads=("encode",),
    parameters=("model", "steps", *sampling.OF_THE_TEACHER, "seed"),
    only=tuple((name, "model", (sampling.TEACHER,)) for name in sampling.OF_THE_TEACHER),
    # Of both networks, whichever is asked: a student is distilled from its teacher, so the two change together.
    weights=_WEIGHTS.digest("flow.onnx", "null.npy", *(["student.onnx"] if _STUDENT else [])),
    numeric="fp32",
    batch=16,
    # A batch lasts as long as its longest member; seeds and scales may differ.
    batch_with=("model", "steps", "solver", "cache_threshold"),
)

DECODE = Stage(
    name="decode",
    id="meshkiln.vecset.decode",
    version=2,
    compute="meshkiln.engines.vecset.decode:decode",
    reads=("sample",),
    parameters=("octree_resolution", "decoder"),
    weights=_WEIGHTS.digest("latents.onnx", "query.onnx"),
    numeric="fp32",
)

MODEL = Parameter(
    "model",
    sampling.TEACHER,
    "which network samples: the teacher, or the student distilled from it, guidance within, for 1 to 8 steps",
    choices=(sampling.TEACHER, *([sampling.STUDENT] if _STUDENT else [])),
)
OCTREE_RESOLUTION = Parameter(
    "octree_resolution", 256, "cells of the decoding grid along each axis", low=16, high=1024, unit="cells"
)
DECODER = Parameter(
    "decoder",
    "sparse",
    "which samples of the grid are asked for: those near the surface (sparse) or all (dense); one surface either way",
    choices=("sparse", "dense"),
)

_GUIDANCE = 3.0

RECIPES: dict[str, dict[str, Scalar]] = {
    # The field's standard, frozen: what every figure is paired with.
    "reference": {
        "model": sampling.TEACHER,
        "steps": 50,
        "solver": "euler",
        "shift": 1.0,
        "guidance_scale": _GUIDANCE,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "cache_threshold": 0.0,
        "octree_resolution": 256,
        "decoder": "dense",
    },
    # Training-free: what any flow of this family can be served with.
    "balanced": {
        "model": sampling.TEACHER,
        "steps": 16,
        "solver": "adams",
        "shift": 2.0,
        "guidance_scale": _GUIDANCE,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "cache_threshold": 0.05,
        "octree_resolution": 256,
        "decoder": "sparse",
    },
}
RECIPES["fast"] = (
    {
        **RECIPES["balanced"],
        "model": sampling.STUDENT,
        "steps": 4,
        # The student is no velocity to be integrated: its spans are taken as they are, and equal ones it knows best.
        "solver": "euler",
        "shift": 1.0,
        "cache_threshold": 0.0,
    }
    if _STUDENT
    else {**RECIPES["balanced"], "steps": 8, "cache_threshold": 0.1}
)
"""The one place where a recipe's steps, solver and guidance are chosen (benchmarks/recipes.py has the curve). `fast` is
the default: with the student when the weights hold one, else few steps of the teacher."""


def _by_default(parameter: Parameter) -> Parameter:
    return replace(parameter, default=RECIPES["fast"].get(parameter.name, parameter.default))


ENGINE = Engine(
    name="vecset",
    help="a learned model: image tokens, flow matching over a latent set, occupancy field; seconds on a CPU",
    stages=(READ, MATTE, ENCODE, SAMPLE, DECODE, replace(FINISH, reads=("decode",)), EXPORT),
    parameters=(
        *PARAMETERS,
        *(
            _by_default(parameter)
            for parameter in (
                MODEL,
                sampling.STEPS,
                sampling.SOLVER,
                sampling.SHIFT,
                sampling.GUIDANCE_SCALE,
                sampling.GUIDANCE_START,
                sampling.GUIDANCE_END,
                sampling.CACHE_THRESHOLD,
                sampling.SEED,
                OCTREE_RESOLUTION,
                DECODER,
            )
        ),
        FACES,
        FORMAT,
        SIZE,
    ),
    formats=FORMATS,
    recipes=RECIPES,
    measured="meshkiln.engines.vecset.runtime:measured",
    limits=(("steps", 8, "model", (sampling.STUDENT,)),),
)
