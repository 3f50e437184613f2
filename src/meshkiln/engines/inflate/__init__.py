"""The engine `inflate`: a silhouette blown up and textured. It needs no model; learned engines must beat it."""

from __future__ import annotations

from meshkiln.engines.base import Engine, Parameter, Stage
from meshkiln.engines.mesh import EXPORT, FACES, FINISH, FORMAT, FORMATS, SIZE
from meshkiln.engines.picture import MATTE, PARAMETERS, READ

DEPTH = Parameter("depth", 1.0, "thickness relative to a round shape: 0.3 is a relief", low=0.02, high=3.0)

INFLATE = Stage(
    name="inflate",
    id="meshkiln.inflate",
    version=1,
    compute="meshkiln.engines.inflate.inflate:inflate",
    reads=("matte",),
    parameters=("depth",),
    numeric="fp32",
)

ENGINE = Engine(
    name="inflate",
    help="the silhouette as a rounded volume with the picture on it; no model, under a second",
    stages=(READ, MATTE, INFLATE, FINISH, EXPORT),
    parameters=(*PARAMETERS, DEPTH, FACES, FORMAT, SIZE),
    formats=FORMATS,
)
