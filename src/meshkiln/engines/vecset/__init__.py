"""The engine `vecset`: a learned image-to-3D model that runs on a CPU.

A picture becomes image tokens, the tokens steer a flow from noise to a latent set (3DShape2VecSet, Zhang et al. 2023),
whose occupancy field is decoded to a mesh: the family of Hunyuan3D-2. Descriptions only; the work is in the modules.
"""

from __future__ import annotations

from dataclasses import replace

from meshkiln.engines.base import Engine, Parameter, Stage
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

SAMPLE = Stage(
    name="sample",
    id="meshkiln.vecset.sample",
    version=1,
    compute="meshkiln.engines.vecset.sample:sample",
    reads=("encode",),
    parameters=("steps", "guidance_scale", "seed"),
    weights=_WEIGHTS.digest("flow.onnx", "null.npy"),
    numeric="fp32",
    batch=16,
    batch_with=("steps",),
)

DECODE = Stage(
    name="decode",
    id="meshkiln.vecset.decode",
    version=1,
    compute="meshkiln.engines.vecset.decode:decode",
    reads=("sample",),
    parameters=("octree_resolution", "decoder"),
    weights=_WEIGHTS.digest("latents.onnx", "query.onnx"),
    numeric="fp32",
)

STEPS = Parameter("steps", 16, "Euler steps of the flow", low=1, high=200)
GUIDANCE_SCALE = Parameter(
    "guidance_scale",
    3.0,
    "classifier-free guidance: 1 follows the picture as the model learned it, more follows it harder",
    low=0.0,
    high=20.0,
)
OCTREE_RESOLUTION = Parameter(
    "octree_resolution", 256, "cells of the decoding grid along each axis", low=16, high=1024, unit="cells"
)
SEED = Parameter("seed", 0, "of the noise the flow starts from", low=0, high=2**63 - 1)
DECODER = Parameter(
    "decoder",
    "sparse",
    "which samples of the grid are asked for: those near the surface (sparse) or all (dense); one surface either way",
    choices=("sparse", "dense"),
)

ENGINE = Engine(
    name="vecset",
    help="a learned model: image tokens, flow matching over a latent set, occupancy field; seconds on a CPU",
    stages=(READ, MATTE, ENCODE, SAMPLE, DECODE, replace(FINISH, reads=("decode",)), EXPORT),
    parameters=(*PARAMETERS, STEPS, GUIDANCE_SCALE, SEED, OCTREE_RESOLUTION, DECODER, FACES, FORMAT, SIZE),
    formats=FORMATS,
    recipes={
        # The field's standard, kept as what every figure is paired with.
        "reference": {"steps": 50, "guidance_scale": 3.0, "octree_resolution": 256, "decoder": "dense"},
    },
)
