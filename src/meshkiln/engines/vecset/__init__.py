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
    version=2,
    compute="meshkiln.engines.vecset.encode:encode",
    reads=("matte",),
    parameters=("numeric",),
    weights=_WEIGHTS.digest("encoder.onnx"),
    numeric="fp32",
    batch=16,
)

_STUDENT = "student.onnx" in _WEIGHTS.files
_PATCHES = ("nodes.onnx", "basis.onnx", "blend.onnx") if "nodes.onnx" in _WEIGHTS.files else ()

SAMPLE = Stage(
    name="sample",
    id="meshkiln.vecset.sample",
    version=3,
    compute="meshkiln.engines.vecset.sample:sample",
    reads=("encode",),
    parameters=("model", "steps", *sampling.OF_THE_TEACHER, "seed", "numeric"),
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
    version=4,
    compute="meshkiln.engines.vecset.decode:decode",
    reads=("sample",),
    parameters=("octree_resolution", "decoder", "numeric"),
    # Of every decoder, whichever is asked: patches are distilled from the query head, so they change together.
    weights=_WEIGHTS.digest("latents.onnx", "query.onnx", *_PATCHES),
    numeric="fp32",
    # Not for batches, which are of one: a dense grid costs hundreds of times what patches do, and who waits is told.
    batch_with=("octree_resolution", "decoder"),
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
    "how the field is sampled: every sample asked of the network (dense), those near the surface (sparse; the same "
    "surface), or those near it by distilled local expansions (patches; some tenths of a cell away, much quicker)",
    choices=(*(["patches"] if _PATCHES else []), "sparse", "dense"),
)
NUMERIC = Parameter(
    "numeric",
    "fp32",
    "numeric class of the networks, part of the key",
    choices=("fp32",),
    refused=(
        ("int8", "it moves parts of the surface by more than a tenth of a cell, and an item with its batch mates"),
        ("bf16", "the inference runtime has no such matrix product on a processor"),
        ("fp16", "it is no faster on a processor"),
    ),
)
"""One class is offered, as benchmarks/numeric.py found no other that is faster and leaves the surface where it is."""

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
        "numeric": "fp32",
    },
    # Training-free: what any flow of this family can be served with.
    "balanced": {
        "model": sampling.TEACHER,
        "steps": 16,
        "solver": "adams",
        "shift": 1.0,
        "guidance_scale": _GUIDANCE,
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "cache_threshold": 0.1,
        "octree_resolution": 256,
        "decoder": "sparse",
        "numeric": "fp32",
    },
}
# The same latents, and a distilled decoder. Fewer steps save little beside it and end farther off. So does the
# distilled student: as good on the mean, but another shape, too far off shape by shape for the bound on a loss.
RECIPES["fast"] = {**RECIPES["balanced"], "decoder": "patches" if _PATCHES else "sparse"}
"""The one place where a recipe's steps, solver, guidance and decoder are chosen (benchmarks/recipes.py has the curve).
`fast` is the default."""


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
                NUMERIC,
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
