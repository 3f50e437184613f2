"""Pictures in: the stages that every image-to-3D engine begins with. Descriptions only; the work is in the modules.

`read` turns a file's bytes into canonical pixels, `matte` cuts the subject out of them.
"""

from __future__ import annotations

from dataclasses import replace

from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage

READ = Stage(
    name="read",
    id="meshkiln.read",
    version=2,
    compute="meshkiln.engines.picture.read:read",
    reads=(PICTURE,),
    cutoff=True,
)
"""bytes of a picture → {"pixels": (H, W, 4) uint8, sRGB, straight alpha, colour zeroed under zero alpha}."""

PREVIEW = Stage(
    name="preview",
    id="meshkiln.matte.preview",
    version=1,
    compute="meshkiln.engines.picture.preview:preview",
    reads=("matte",),
    media_type="image/png",
)
"""cut-out → PNG, longest side ≤ 512."""

MATTE = Stage(
    name="matte",
    id="meshkiln.matte",
    version=1,
    compute="meshkiln.engines.picture.matte:matte",
    reads=("read",),
    parameters=("matte",),
    # Colour statistics and filters in single precision: a few edge pixels may differ between processors.
    numeric="fp32",
    preview=PREVIEW,
)
"""canonical pixels → {"pixels": (H, W, 4) uint8 cut-out, soft alpha, longest side ≤ 1024}."""

PARAMETERS = (
    Parameter(
        "matte",
        "auto",
        "how the subject is cut out: by the picture's alpha, else from its background (auto), or by alpha alone, "
        "an opaque picture being all subject",
        choices=("auto", "alpha"),
    ),
)
"""What an engine that uses these stages declares beside its own parameters."""

CUTOUT = Engine(
    name="cutout",
    help="the subject cut out of its background: what an engine that begins with `matte` makes its mesh of",
    # Of its own identity: under a preview's key flies what is no part of a chain.
    stages=(READ, MATTE, replace(PREVIEW, name="cutout", id="meshkiln.matte.cutout")),
    parameters=(*PARAMETERS, Parameter("format", "png", "file format of the cut-out", choices=("png",))),
    formats={"png": "image/png"},
)
"""The cut-out alone, for people who want to see it before a mesh is made of it. What it stores, they find."""
