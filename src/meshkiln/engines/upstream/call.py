"""One question to one upstream: what is sent, how the answer is judged, and what went wrong in words.

Both ways that the API has are here: /generate, which answers with the file, and /send with /status, for servers behind
something that cuts long answers off. The first is the one to use where possible: the 2.0 server's /status says
`processing` for ever of a job that failed, the 2.1 server's may say `texturing` for ever of one without a texture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from meshkiln.engines.base import Scalar
from meshkiln.errors import BadInput, BadParameter, BadPicture

MESH_BYTES = 2**29
"""Largest answer taken."""
CONNECT = 5.0
"""Seconds to reach a server; those that serve are within reach."""
KEPT = 4.0
"""Seconds an idle connection is kept: the known servers, on uvicorn, close theirs after five."""
POLL = 0.5, 3.0
"""Seconds between questions for the status: at first, and in the end."""
MISSED = 5
"""Times in a row that the status may not be told: the generation goes on there, and is dear."""
_THEIRS = {"format": "type"}

Report = Callable[[int, int], None]


@dataclass(eq=False)
class Trouble(Exception):
    """A server did not do what was asked.

    words : what happened
    away : it could not even be reached
    busy : it takes nothing now; nothing is wrong with it, and `pause` seconds later it may
    said : it answered, and what it said is an error
    """

    words: str
    away: bool = False
    busy: bool = False
    said: bool = False
    pause: float = 0.0

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class Question:
    """A picture and the parameters it is asked with.

    body : as JSON, made once for all servers that get it
    trace : context of whoever asks (W3C traceparent), or empty
    """

    body: bytes
    format: str
    trace: str = ""

    @classmethod
    def of(cls, picture: bytes, parameters: Mapping[str, Scalar], trace: str = "") -> Question:
        """What is sent: every parameter, so that no server's default decides."""
        told: dict[str, Any] = {_THEIRS.get(name, name): value for name, value in parameters.items()}
        told["image"] = base64.b64encode(picture).decode()
        return cls(json.dumps(told).encode(), str(parameters.get("format", "glb")), trace)


def client() -> httpx.AsyncClient:
    """A client for any number of servers; time limits of whole answers are the caller's."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEPT)
    # The servers are named, so no proxy of the environment stands before them.
    return httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT), limits=limits, trust_env=False)


async def generate(http: httpx.AsyncClient, url: str, question: Question) -> bytes:
    """The mesh, by /generate. Raises Trouble, BadPicture or BadParameter."""
    status, headers, data = await _asked(http, "POST", f"{url}/generate", question.body, question.trace)
    _judge(status, headers, data)
    return checked(data, question.format)


async def send_and_poll(http: httpx.AsyncClient, url: str, question: Question, report: Report) -> bytes:
    """The mesh, by /send and /status. Raises Trouble, BadPicture or BadParameter."""
    status, headers, data = await _asked(http, "POST", f"{url}/send", question.body, question.trace)
    _judge(status, headers, data)
    uid = _object(data).get("uid")
    if not isinstance(uid, str) or not uid.replace("-", "").isalnum():
        raise Trouble("took the picture and told no uid")
    pause, slowest = POLL
    missed = 0
    while True:
        try:
            status, headers, data = await _asked(http, "GET", f"{url}/status/{uid}", trace=question.trace)
            if status >= 500:  # a proxy may say so, which does not reach the server: that tells nothing either
                _judge(status, headers, data)
        except Trouble:
            missed += 1
            if missed >= MISSED:
                raise
            await asyncio.sleep(pause)
            continue
        missed = 0
        told = _object(data)
        match told.get("status"):
            case "completed":
                try:
                    mesh = base64.b64decode(str(told["model_base64"]), validate=True)
                except (KeyError, binascii.Error, ValueError):
                    raise Trouble("says it completed and sends no mesh") from None
                return checked(mesh, question.format)
            case "error":
                # A 404 does not say that the picture fails: the server was started anew, and knows nothing of it.
                raise Trouble(f"failed: {_detail(data)}", said=status == 200)
            case "processing" | "texturing" as state:
                if state == "texturing":
                    report(1, 2)
            case _:
                _judge(status, headers, data)
                raise Trouble(f"tells no status: {_detail(data)}")
        await asyncio.sleep(pause)
        pause = min(slowest, pause * 1.5)


async def alive(http: httpx.AsyncClient, url: str, seconds: float) -> bool | None:
    """Whether a server answers; None when it lets us wait.

    The 2.0 server has no /health, so anything it says will do; and both answer nothing at all while they generate.
    """
    try:
        async with asyncio.timeout(seconds):
            status, _, _ = await _asked(http, "GET", f"{url}/health")
    except TimeoutError:
        return None
    except Trouble:
        return False
    return status < 500


def told_model(url: str) -> str | None:
    """The model that a server's /health tells; None when it does not. Blocks for a few seconds at most.

    The 2.1 server's `worker_id` is drawn at each start and names no model.
    """
    try:
        answer = httpx.get(f"{url}/health", timeout=CONNECT, trust_env=False)
        model = _object(answer.content).get("model")
    except (httpx.HTTPError, httpx.InvalidURL, Trouble):
        return None
    return model if isinstance(model, str) and model else None


def checked(data: bytes, format: str) -> bytes:
    """`data`, when it is whole and of that format. Raises Trouble: half a file must not be kept for ever."""
    if format == "obj":
        if data.startswith(b"glTF"):
            raise Trouble("answers with GLB where OBJ was asked for; ask for glb", said=True)
        if b"\nf " in data and b"\0" not in data:
            return data
        raise Trouble(f"answered with {len(data)} bytes that are no OBJ")
    if len(data) >= 12 and data.startswith(b"glTF"):
        (size,) = struct.unpack_from("<I", data, 8)
        if size == len(data):
            return data
        raise Trouble(f"sent {len(data)} of the {size} bytes of a GLB")
    raise Trouble(f"answered with {len(data)} bytes that are no GLB")


async def _asked(
    http: httpx.AsyncClient, method: str, url: str, body: bytes | None = None, trace: str = ""
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and the whole body. Raises Trouble."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if trace:
        headers["traceparent"] = trace
    data = bytearray()
    try:
        async with http.stream(method, url, content=body, headers=headers) as answer:
            async for part in answer.aiter_bytes():
                data += part
                if len(data) > MESH_BYTES:
                    raise Trouble(f"answers with more than {MESH_BYTES >> 20} MiB")
            return answer.status_code, answer.headers, bytes(data)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Trouble(f"cannot be reached ({error or type(error).__name__})", away=True) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Trouble(f"broke off ({error or type(error).__name__})") from None


def _judge(status: int, headers: httpx.Headers, data: bytes) -> None:
    """Raise what an answer other than 200 means: the caller's mistake, a full queue, or an error of the server's."""
    if status == 200:
        return
    detail = _detail(data)
    if status in (429, 503):
        raise Trouble(f"is busy: {detail}", busy=True, pause=_seconds(headers.get("retry-after", "")))
    if status in (400, 413, 415, 422):
        kind = str(_object(data, {}).get("type", "")).rpartition(":")[2]
        if kind == "poisoned":
            raise Trouble(f"gave the picture up: {detail}", said=True)
        refused: type[BadInput] = BadPicture if kind == "bad-picture" or status in (413, 415) else BadParameter
        raise refused(f"the upstream refuses this: {detail}")
    if status == 404 and "error_code" not in _object(data, {}):
        raise Trouble("has no such path: is this the address of a Hunyuan3D server?", said=True)
    raise Trouble(f"answered {status}: {detail}", said=True)


def _object(data: bytes, default: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    if default is not None:
        return default
    raise Trouble("answered with something that is no JSON object")


def _detail(data: bytes) -> str:
    """What an answer says is wrong, at most 300 characters."""
    told = _object(data, {})
    for name in ("detail", "text", "message", "error", "title"):
        said = told.get(name)
        if isinstance(said, list):  # FastAPI's list of what it could not validate
            said = "; ".join(
                f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg')}"
                for item in said
                if isinstance(item, dict)
            )
        if isinstance(said, str) and said:
            return said[:300]
    return data[:300].decode("utf-8", "replace").strip() or "nothing is said"


def _seconds(text: str) -> float:
    """Of a Retry-After; dates and what is none count as five seconds, nobody is left alone for over a minute, and who
    says 0 is not asked without a pause."""
    return max(POLL[0], min(60.0, float(text))) if text.isascii() and text.isdigit() else 5.0
