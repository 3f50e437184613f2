"""The HTTP API of the Hunyuan3D servers (2.0 and 2.1), so that their clients work here unchanged.

    POST /generate      → the file's bytes          POST /send → {"uid"}
    GET /status/{uid}   → processing | texturing | completed + model_base64 | error
    GET /health         → healthy

Field names are those servers'. Defaults are the 2.1 schema's, which are the 2.0 server's but for octree_resolution (128
there; its add-on always sends one). Ranges hold what the 2.0 add-on sends (20 to 50 steps) and what the 2.1 schema
allows (1 to 20). A field that the serving engine has no parameter for has no effect, and one that nobody knows is
passed over, as both servers do. What those servers get wrong is right here: an unknown uid is 404, a failed job says
so, and nothing blocks. As there, `obj` is one text file: its picture is in our archive only.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from blake3 import blake3
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from meshkiln.engines.base import Engine, Parameter, Scalar
from meshkiln.errors import BadParameter, MeshkilnError, PoolClosed, QueueFull, UpstreamsDown
from meshkiln.gateway.bodies import decoded, whole_body
from meshkiln.gateway.gateway import Gateway, client_of
from meshkiln.gateway.job import CANCELLED, FAILED, SUCCEEDED, Ask, Job
from meshkiln.gateway.openapi import BASE64, schema
from meshkiln.gateway.problems import Problem, not_found, problem_of
from meshkiln.gateway.uploads import Held
from meshkiln.store.base import Artifact

FIELDS: Mapping[str, Parameter] = {
    "seed": Parameter("seed", 1234, "which noise", 0, 2**32 - 1),
    "octree_resolution": Parameter("octree_resolution", 256, "grid resolution", 16, 512),
    "num_inference_steps": Parameter("num_inference_steps", 5, "sampling steps", 1, 100),
    "guidance_scale": Parameter("guidance_scale", 5.0, "classifier-free guidance", 0.0, 20.0),
    "num_chunks": Parameter("num_chunks", 8000, "queries per call; changes no result", 1, 10_000_000),
    "face_count": Parameter("face_count", 40000, "most triangles", 100, 2_000_000),
    "remove_background": Parameter("remove_background", True, "cut the subject out"),
    "texture": Parameter("texture", False, "accepted; the picture is always projected"),
    "type": Parameter("type", "glb", "file format", choices=("glb", "obj", "ply", "stl", "3mf")),
}
_NAMES = {
    "seed": "seed",
    "octree_resolution": "octree_resolution",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance_scale",
    "face_count": "faces",
    "type": "format",
}
"""Their name of a parameter, and ours."""
_PICTURES = ("image", "image_front")
_UNSUPPORTED = {
    "text": "text prompts are not supported here; send a picture as `image`",
    "mesh": "texturing a given mesh is not supported here; leave `mesh` out",
    "image_left": "one view is taken; leave image_left out",
    "image_back": "one view is taken; leave image_back out",
    "image_right": "one view is taken; leave image_right out",
    "images": "one view is taken; send it as `image`",
}
_FOR_NOW = (QueueFull, PoolClosed, UpstreamsDown)
"""Why a result cannot be made again yet, but can be later."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client of theirs asked for, in our terms."""

    picture: bytes
    ask: Ask


def wanted(document: object, engine: Engine, default_engine: str, recipe: str | None = None) -> Wanted:
    """What a posted JSON document asks for. Raises Problem or BadParameter, naming the field as they call it."""
    if not isinstance(document, dict):
        raise Problem(400, "malformed", "The body is not a JSON object")
    given = {name: value for name, value in document.items() if value not in (None, "")}
    pictures = [given[name] for name in _PICTURES if name in given]
    for name, why in _UNSUPPORTED.items():
        # The add-on sends an empty prompt along with a picture; only what would be left undone is refused.
        if name in given and not (name == "text" and pictures):
            raise Problem(422, "unsupported", "This server cannot do that", why)
    if not pictures:
        raise Problem(400, "no-picture", "There is no picture", "send it in base64 as `image`")
    values: dict[str, Scalar] = {}
    for name, field in FIELDS.items():
        try:
            values[name] = field.canonical(given.get(name, field.default))
        except BadParameter as error:
            raise Problem(422, "bad-parameter", "A parameter is unknown or out of range", str(error)) from None
    known = {parameter.name: parameter for parameter in engine.parameters}
    parameters: dict[str, Any] = {}
    for theirs, value in values.items():
        # An engine in front of their servers calls its parameters as they do.
        ours = theirs if theirs in known else _NAMES.get(theirs)
        if ours in known:
            high = known[ours].high
            # Who said nothing gets the most there is here, when that is less than their default.
            parameters[ours] = (
                value if high is None or theirs in given else type(value)(min(cast("float", value), high))
            )
    for name, most, other, limited in engine.limits:
        # Who asks for more steps than a distilled model takes wants the model it was distilled from.
        if float(parameters.get(name, 0)) > most and known[other].default in limited:
            parameters[other] = next(choice for choice in known[other].choices if choice not in limited)
    if "matte" in known and not values["remove_background"]:
        parameters["matte"] = "alpha"
    return Wanted(decoded(pictures[0]), Ask(default_engine, parameters, recipe))


def add_routes(app: FastAPI, gateway: Gateway) -> None:
    """Add their routes to the application."""
    service = gateway.service
    engine = service.kiln(gateway.settings.engine).engine
    model = model_name(engine)

    async def read(request: Request, held: Held) -> Wanted:
        # Base64 makes four bytes of three.
        body = await whole_body(request, gateway.settings.body_bytes * 4 // 3 + 65536, held)
        try:
            document = await asyncio.to_thread(json.loads, body)
        except (ValueError, RecursionError):
            raise Problem(400, "malformed", "The body is not JSON") from None
        name = gateway.settings.engine
        recipe = gateway.settings.recipe if gateway.settings.recipe in engine.recipes else None
        return await asyncio.to_thread(wanted, document, service.kiln(name).engine, name, recipe)

    async def accepted(request: Request, asked: Wanted) -> Job:
        return await service.submit(asked.ask, asked.picture, client=client_of(request))

    @app.post("/generate", tags=["Hunyuan3D"], summary="A mesh of a picture, as a file", **_file_described(engine))
    async def generate(request: Request) -> Response:
        job = None
        try:
            with gateway.uploads.holding() as held:
                asked = await read(request, held)
                started = time.perf_counter()
                stored = await asyncio.to_thread(service.stored, asked.ask, asked.picture)
                if stored is not None:
                    gateway.metrics.stored(stored, time.perf_counter() - started)
                    return await _file(stored.data, stored.media_type)
                job = await accepted(request, asked)
                del asked  # the picture is on disk
            while not job.done:
                job = await service.wait(job, 60.0)
            artifact = await _artifact(gateway, job)
            return await _file(artifact.data, artifact.media_type)
        except (Problem, MeshkilnError) as error:
            problem = problem_of(error)
            if job is None:  # how a job ended has been counted
                gateway.metrics.problem(problem.kind)
            return _refusal(problem)

    @app.post("/send", tags=["Hunyuan3D"], summary="Begin making a mesh", **_described(engine))
    async def send(request: Request) -> Response:
        try:
            with gateway.uploads.holding() as held:
                job = await accepted(request, await read(request, held))
        except (Problem, MeshkilnError) as error:
            problem = problem_of(error)
            gateway.metrics.problem(problem.kind)
            return _refusal(problem)
        return JSONResponse({"uid": str(uuid.UUID(job.id))})

    @app.get("/status/{uid}", tags=["Hunyuan3D"], summary="What became of a mesh", responses=_ANSWERS)
    async def status(uid: str) -> Response:
        try:
            job = await gateway.job(uuid.UUID(uid).hex)
        except (ValueError, Problem):
            problem = not_found(f"no job has the uid {uid!r}")
            return JSONResponse({**problem.document(), "status": "error", "message": problem.detail}, 404)
        if not job.done:
            return JSONResponse({"status": "processing"})
        try:
            artifact = await _artifact(gateway, job)
        except _FOR_NOW as error:
            # Their clients ask again while it is processing, and give up for good on an error.
            return JSONResponse({"status": "processing"}, headers=dict(problem_of(error).headers))
        except (Problem, MeshkilnError) as error:
            told = problem_of(error)
            return JSONResponse({"status": "error", "message": told.detail or told.title})
        data, _ = await asyncio.to_thread(_one_file, artifact.data, artifact.media_type)
        encoded = await asyncio.to_thread(base64.b64encode, data)
        return JSONResponse({"status": "completed", "model_base64": encoded.decode()})

    @app.get("/health", tags=["Hunyuan3D"], summary="Whether the server is well")
    async def health() -> Response:
        return JSONResponse({"status": "healthy", "worker_id": gateway.settings.engine, "model": model})


def model_name(engine: Engine) -> str:
    """A name that changes when what `engine` computes does: the model that /health tells whoever keeps its answers."""
    prints = json.dumps([stage.fingerprint for stage in engine.stages])
    return f"{engine.name}-{blake3(prints.encode()).hexdigest()[:16]}"


async def _artifact(gateway: Gateway, job: Job) -> Artifact:
    """The result of a job that has ended. Raises Problem with what it ended with."""
    if job.state == SUCCEEDED and job.result is not None:
        return await gateway.results.artifact(job.result["key"])
    if job.state == FAILED and job.error is not None:
        kind = str(job.error["type"]).rpartition(":")[2]
        raise Problem(int(job.error["status"]), kind, str(job.error["title"]), str(job.error.get("detail", "")))
    assert job.state == CANCELLED, job.state
    raise Problem(409, "cancelled", "The generation was cancelled")


async def _file(data: bytes, media_type: str) -> Response:
    content, kind = await asyncio.to_thread(_one_file, data, media_type)
    return Response(content, media_type=kind)


def _one_file(data: bytes, media_type: str) -> tuple[bytes, str]:
    """The file their clients expect, and its media type: of an OBJ in an archive with its picture, the OBJ alone."""
    if media_type != "application/zip":
        return data, media_type
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("mesh.obj"), "model/obj"


def _refusal(problem: Problem) -> Response:
    """The problem with the two fields their clients show."""
    told = {"text": problem.detail or problem.title, "error_code": 1, **problem.document()}
    return JSONResponse(told, problem.status, dict(problem.headers))


_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "What was wrong, as their clients read it and as a problem document",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    for status in ("4XX", "5XX")
}


def _described(engine: Engine) -> dict[str, Any]:
    """The description of what is posted, with the formats that `engine` makes."""
    fields = {name: {"anyOf": [schema(field), {"enum": [None, ""]}]} for name, field in FIELDS.items()}
    known = {parameter.name: parameter for parameter in engine.parameters}
    for theirs in FIELDS:
        ours = known.get(theirs) or known.get(_NAMES.get(theirs, ""))
        told = fields[theirs]["anyOf"][0]
        if ours is not None and ours.low is not None and "minimum" in told:
            told["minimum"] = max(told["minimum"], ours.low)
        if ours is not None and ours.high is not None and "maximum" in told:
            told["maximum"] = min(told["maximum"], ours.high)
            told["default"] = min(told["default"], told["maximum"])
    fields["type"]["anyOf"][0]["enum"] = [name for name in FIELDS["type"].choices if name in engine.formats]
    document = {"type": "object", "required": ["image"], "properties": {"image": BASE64, **fields}}
    content = {"application/json": {"schema": document}}
    return {"responses": _ANSWERS, "openapi_extra": {"requestBody": {"required": True, "content": content}}}


def _file_described(engine: Engine) -> dict[str, Any]:
    file = {"description": "The file", "content": {"*/*": {"schema": {"type": "string"}}}}
    return {**_described(engine), "responses": {**_ANSWERS, 200: file}}
