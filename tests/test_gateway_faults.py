"""What breaks: clients that stall, stop half way or send nonsense, disks that take nothing, stages that fail."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage
from meshkiln.gateway import connection, serve, uploads
from serving import serving, until
from test_gateway_kills import victim

PNG = {"content-type": "image/png"}
HERE = Path(__file__).parent


def talk(http: httpx.Client, sent: bytes, close: bool = False) -> bytes:
    """What the server says to `sent` until it closes the connection."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=30) as connected:
        connected.sendall(sent)
        if close:
            return b""
        said = b""
        with contextlib.suppress(ConnectionError):
            while piece := connected.recv(65536):
                said += piece
        return said


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEAD_SECONDS", 0.5)
        patch.setattr(uploads, "RECEIVE_SECONDS", 0.5)
        patch.setattr(serve, "JUDGED", 1)
        folder = tmp_path_factory.mktemp("faults")
        with serving(folder, body_bytes=100_000, upload_bytes=250_000) as client:
            yield client


HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: "
OPERATE = HEAD.replace(b"generations", b"operations/intake").replace(b"image/png", b"application/json")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-", 408),
        (b"\r\n\r\n", None),
        (HEAD + b"50\r\n\r\nhalf a body", 408),
        (OPERATE + b"50\r\n\r\n{", 408),
        (HEAD + b"200000\r\nConnection: close\r\n\r\nx", 413),
        (HEAD + b"many\r\n\r\nx", 400),
        (HEAD + b"-5\r\n\r\nx", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + b"a" * 200_000, 431),
        (b"GET /" + b"a" * 200_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET \xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", None),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", None),
        (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 403),
        (b"GET /healthz HTTP/1.1\r\nHost: x.example\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 400),
        (HEAD + b"1\r\nContent-Length: 2\r\n\r\nxy", 400),
        (HEAD + b"1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\nConnection: close\r\n\r\n", 403),
        (
            b"GET /v1/generations/x/events HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: \xb2\r\n"
            b"Connection: close\r\n\r\n",
            404,
        ),
        (
            b"POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n" * 1 + b"zz\r\n",
            400,
        ),
    ],
)
def test_stalling_half_and_malformed_requests_are_told_and_closed(
    http: httpx.Client, sent: bytes, status: int | None
) -> None:
    said = talk(http, sent)
    if status is not None:
        # A head without end that comes in one piece is only too slow.
        allowed = (431, 408) if status == 431 else (status,)
        assert int(said.split(b" ", 2)[1]) in allowed, said[:200]
        assert b"application/problem+json" in said
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("sent", "kinds"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {"malformed"}),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-", {"too-slow"}),
        (b"GET /" + b"a" * 500_000, {"head-too-large", "too-slow"}),
        # The application has this one already, and counts it: its connection was closed.
        (HEAD.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), {"disconnected"}),
    ],
)
def test_what_is_refused_on_the_connection_is_counted_once_by_type(
    http: httpx.Client, sent: bytes, kinds: set[str]
) -> None:
    def refused(name: str) -> Counter[str]:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name)]
        return Counter({line.split('="')[-1].split('"')[0]: int(float(line.split()[-1])) for line in lines})

    errors, statuses = "meshkiln_errors_total{", 'meshkiln_http_requests_total{route="none"'
    before = refused(errors), refused(statuses)
    said = talk(http, sent)
    until(lambda: refused(errors) != before[0])
    ((kind, times),) = (refused(errors) - before[0]).items()
    assert times == 1
    assert kind in kinds
    if kind != "disconnected":
        assert json.loads(said.partition(b"\r\n\r\n")[2])["type"].endswith(f":{kind}")
        assert refused(statuses) - before[1] == Counter({said.split(b" ", 2)[1].decode(): 1})


def test_bodies_are_bounded_together(http: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:

        def refused() -> bool:
            # One more each time: any is refused itself when it comes while the others and this body are held.
            held = stack.enter_context(socket.create_connection((http.base_url.host, http.base_url.port or 80)))
            held.sendall(HEAD + b"90000\r\n\r\n" + b"x" * 80_000)
            return http.post("/v1/generations", content=b"y" * 60_000, headers=PNG).status_code == 503

        until(refused)
    # Those who left give back what they held.
    until(lambda: http.post("/v1/generations?wait=20", content=b"z" * 60_000, headers=PNG).status_code == 200)


@pytest.mark.parametrize("announced", [True, False])
def test_no_route_that_takes_a_body_takes_one_of_any_size(http: httpx.Client, announced: bool) -> None:
    made = http.post("/v1/generations?wait=20", content=b"bounded", headers=PNG).json()["id"]
    routes = [path for path, methods in http.get("/openapi.json").json()["paths"].items() if "post" in methods]
    assert {"/v1/generations", "/v1/operations/purge", "/generate"} <= set(routes)
    for route in routes:
        # More than the largest bound of all, base64 of a picture of `body_bytes`.
        pieces = [b" " * 50_000] * 5
        refused = http.post(
            route.format(id=made, worker=0),
            content=b"".join(pieces) if announced else iter(pieces),
            headers={"content-type": "application/json"},
        )
        assert (route, refused.status_code) == (route, 413)


def test_who_leaves_while_waiting_leaves_the_generation_alone(http: httpx.Client) -> None:
    body = b"left alone"
    talk(http, HEAD.replace(b"generations", b"generations?wait=20") + b"%d\r\n\r\n%b" % (len(body), body), close=True)
    answer = http.post("/v1/generations?wait=20", content=body, headers=PNG).json()
    assert answer["state"] == "succeeded"


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/artifacts/../../../etc/passwd"]
)
def test_there_is_no_way_out_of_the_api(http: httpx.Client, path: str) -> None:
    said = talk(http, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert said.split(b" ", 2)[1] == b"404"
    assert b"root:" not in said


def idle(http: httpx.Client, count: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((http.base_url.host, http.base_url.port or 80)))
        assert http.get("/healthz").status_code == 200
        body = b"beside %d idle ones" % count
        assert http.post("/v1/generations?wait=30", content=body, headers=PNG).json()["state"] == "succeeded"


def test_idle_connections_do_not_keep_others_out(http: httpx.Client) -> None:
    idle(http, 500)


@pytest.mark.soak
def test_ten_thousand_idle_connections(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 10_500:
        pytest.skip(f"{before[1]} open files are allowed; 10,000 connections need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        with victim(tmp_path) as server, httpx.Client(base_url=server.url, timeout=60) as client:
            idle(client, 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("broken", "told"), [("pictures", "missing folder"), ("store", "input/output error")])
def test_what_a_disk_does_not_take_is_told_without_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str, told: str
) -> None:
    with serving(tmp_path) as http:
        made = http.post("/v1/generations?wait=30", content=b"kept", headers=PNG).json()
        if broken == "pictures":
            (tmp_path / "data" / "jobs" / "pictures").rename(tmp_path / "away")
            refused = http.post("/v1/generations", content=b"new", headers=PNG)
        else:
            (index,) = tmp_path.glob("cache/**/index.sqlite")
            with contextlib.closing(sqlite3.connect(index)) as rows:
                rows.execute("DROP TABLE artifacts")
            refused = http.delete(f"/v1/cache/{made['key']}")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:meshkiln:problem:storage")
        assert told in refused.json()["detail"]
        assert str(tmp_path) not in refused.text
    said = [record.getMessage() for record in caplog.records if record.name == "meshkiln.gateway.problems"]
    assert len(said) == 1
    assert str(tmp_path) in said[0], "the operator is told where"


def test_what_a_stages_code_says_is_for_the_log_and_not_for_callers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Stage("read", "lost.read", 1, "stages:lose", (PICTURE,), media_type="text/plain")
    engine = Engine(
        "toy",
        "Its weights are lost.",
        (lost,),
        (Parameter("format", "glb", "which file", choices=("glb",)),),
        {"glb": "text/plain"},
    )
    with serving(tmp_path, {"toy": engine}) as http:
        failed = http.post("/v1/generations?wait=30", content=str(tmp_path / "weights").encode(), headers=PNG)
        id = http.get("/v1/generations").json()["generations"][0]["id"]
        answers = [failed, http.get(f"/v1/generations/{id}"), http.get(f"/v1/generations/{id}/events")]
    told = "stage read failed: FileNotFoundError; the server's log tells more"
    assert answers[1].json()["error"]["detail"] == told
    for answer in answers:
        assert "stage read failed" in answer.text
        assert str(tmp_path) not in answer.text
    said = [record for record in caplog.records if record.name == "meshkiln.gateway.problems"]
    assert str(tmp_path / "weights") in said[0].getMessage()
    assert "In the worker" in str(said[0].exc_info[1].__notes__), "and where it was raised"  # type: ignore[index, union-attr]
