"""Pictures in: the stages that every image-to-3D engine begins with. Descriptions only; the work is in the modules.

`read` turns a file's bytes into canonical pixels, `matte` cuts the subject out of them.
"""

from __future__ import annotations

from meshkiln.engines.base import PICTURE, Parameter, Stage

READ = Stage(
    name="read",
    id="meshkiln.read",
    version=1,
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
