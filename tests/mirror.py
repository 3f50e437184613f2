"""An engine that shows what it was asked: its file is a GLB (or OBJ text) that says the picture and every parameter.

A picture `wait <path>` says hello at the Unix socket of that path and waits for an answer; `bad` is refused, `bug`
fails.
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage, Work
from meshkiln.errors import BadPicture


def make(batch: Sequence[Work]) -> list[bytes]:
    return [_made(work.inputs[0], dict(work.parameters)) for work in batch]


def _made(picture: bytes, parameters: dict[str, Any]) -> bytes:
    if picture.startswith(b"bad"):
        raise BadPicture("it shows nothing")
    if picture.startswith(b"bug"):
        raise ZeroDivisionError("of course")
    if picture.startswith(b"wait "):
        with socket.socket(socket.AF_UNIX) as gate:
            gate.connect(picture.split()[1].decode())
            gate.recv(1)
    told = {"picture": hashlib.sha256(picture).hexdigest(), **parameters}
    if parameters["format"] == "obj":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("mesh.obj", f"# {json.dumps(told)}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        return file.getvalue()
    return glb(told)


def glb(told: dict[str, Any]) -> bytes:
    """A GLB without geometry, whose `asset` says `told`."""
    text = json.dumps({"asset": {"version": "2.0", "extras": told}}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text


def told(data: bytes) -> dict[str, Any]:
    """What a file of this engine says."""
    if data.startswith(b"# "):
        said: dict[str, Any] = json.loads(data[2:].splitlines()[0])
        return said
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, size, kind) == (b"glTF", 2, len(data), b"JSON")
    said = json.loads(data[20 : 20 + length])["asset"]["extras"]
    return said


ENGINE = Engine(
    name="mirror",
    help="Shows what it was asked.",
    stages=(
        Stage(
            "make",
            "test.mirror",
            1,
            "mirror:make",
            (PICTURE,),
            ("seed", "steps", "guidance_scale", "octree_resolution", "faces", "matte", "format"),
            media_type="model/gltf-binary",
        ),
    ),
    parameters=(
        Parameter("seed", 0, "which noise", 0, 2**63 - 1),
        Parameter("steps", 16, "how often", 1, 200),
        Parameter("guidance_scale", 2.0, "how hard", 0.0, 20.0),
        Parameter("octree_resolution", 64, "how fine", 16, 1024),
        Parameter("faces", 1000, "how many", 0, 2_000_000),
        Parameter("matte", "auto", "how cut out", choices=("auto", "alpha")),
        Parameter("format", "glb", "which file", choices=("glb", "obj")),
    ),
    formats={"glb": "model/gltf-binary", "obj": "application/zip"},
)
