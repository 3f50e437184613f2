"""The engine `upstream`: servers that speak the Hunyuan3D API make the meshes; they are kept, shared and queued here.

One stage, from the picture's bytes to the mesh's. What it computes is identified by a model's name, which the operator
states (setting `upstream_model`) or the servers' /health tells: change it when what they serve changes. Parameters are
the API's. The description needs no HTTP client; asking is `call`, choosing among servers `upstreams`.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage
from meshkiln.engines.mesh import PREVIEW
from meshkiln.errors import BadParameter
from meshkiln.settings import Settings, load

NAME = "upstream"
FORMATS = {"glb": "model/gltf-binary", "obj": "model/obj"}
"""What both servers declare; one that answers with something else is found out."""

PARAMETERS = (
    Parameter("seed", 1234, "of the noise the model starts from", 0, 2**32 - 1),
    Parameter("octree_resolution", 256, "cells of the decoding grid along each axis", 16, 512, unit="cells"),
    Parameter("num_inference_steps", 5, "sampling steps", 1, 100),
    Parameter("guidance_scale", 5.0, "classifier-free guidance", 0.0, 20.0),
    Parameter("face_count", 40_000, "most triangles of a textured mesh", 100, 2_000_000, unit="triangles"),
    Parameter("remove_background", True, "cut the subject out"),
    Parameter("texture", False, "make a texture too"),
    Parameter("format", "glb", "file format of the mesh", choices=tuple(FORMATS)),
)


class NoUpstreams(BadParameter, ImportError):
    """The engine cannot be described: no server is named, or no model. Lists of engines leave it out."""


def describe(model: str) -> Engine:
    """The engine of upstreams that serve `model`."""
    stage = Stage(
        name="generate",
        id=f"upstream/{model}",
        version=1,
        compute="meshkiln.engines.upstream.upstreams:generate",
        reads=(PICTURE,),
        parameters=tuple(parameter.name for parameter in PARAMETERS),
        # The face count matters to the servers' texture step alone.
        only=(("face_count", "texture", (True,)),),
        numeric="stated",  # by whoever named the model: a model served in another precision has another name
        media_type="application/octet-stream",
        batch_with=("octree_resolution", "num_inference_steps", "texture"),
        preview=PREVIEW,
    )
    return Engine(
        name=NAME,
        help=f"{model}, on servers that speak the Hunyuan3D API",
        stages=(stage,),
        parameters=PARAMETERS,
        formats=FORMATS,
    )


def engine_of(settings: Settings) -> Engine:
    """The engine that `settings` ask for. Raises NoUpstreams when they name no server, or no model can be told."""
    urls = addresses(settings.upstreams)
    if settings.upstream_model:
        return describe(settings.upstream_model)
    from meshkiln.engines.upstream.call import told_model

    told = {url: told_model(url) for url in urls}
    models = set(told.values())
    model = models.pop() if len(models) == 1 else None
    if model is None:
        heard = ", ".join(f"{url}: {name or 'none'}" for url, name in told.items())
        raise NoUpstreams(f"the upstreams' /health tells no one model ({heard}); state it as upstream_model")
    return describe(model)


def addresses(urls: Sequence[str]) -> tuple[str, ...]:
    """The servers' addresses, checked and without a slash at the end. Raises NoUpstreams."""
    if not urls:
        raise NoUpstreams("engine upstream needs servers: name one or more, such as --upstream http://127.0.0.1:8081")
    for url in urls:
        scheme, found, rest = url.partition("://")
        if scheme not in ("http", "https") or not found or not rest.strip("/"):
            raise NoUpstreams(f"upstream {url!r} is not a URL such as http://127.0.0.1:8081")
    return tuple(dict.fromkeys(url.rstrip("/") for url in urls))


def __getattr__(name: str) -> Engine:
    """`ENGINE`, the entry point's: described when asked for, by the settings there are then."""
    if name == "ENGINE":
        return engine_of(load().settings)
    raise AttributeError(name)
