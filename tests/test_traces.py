"""Traces arrive at a real collector: a span for each stage, links to who leads, contexts in and out."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from collector import collecting
from gate import Gate
from meshkiln.settings import Settings
from meshkiln.telemetry import logs, names
from serving import serving, until

PNG = {"content-type": "image/png"}
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


def post(http: httpx.Client, picture: bytes, query: str = "wait=30", **headers: str) -> httpx.Response:
    return http.post(f"/v1/generations?{query}", content=picture, headers={**PNG, **headers})


def test_a_request_is_one_trace_with_a_span_for_each_stage(tmp_path: Path) -> None:
    with collecting() as collector:
        with serving(tmp_path, traces_endpoint=collector.endpoint) as http:
            answer = post(http, b"picture", **ASKED)
            assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
            post(http, b"picture", "wait=30&steps=9", **ASKED)
        (first, second) = collector.named("POST /v1/generations")
        assert (first.trace, first.parent) == (TRACE, CALLER)
        assert first.attributes["http.response.status_code"] == 200
        assert first.attributes["meshkiln.request"] == answer.headers["x-request-id"]
        generations = collector.named("generation")
        assert [g.parent for g in generations] == [first.id, second.id]
        of_first = [s for s in collector.spans if s.parent == generations[0].id]
        assert sorted(s.name for s in of_first) == ["stage export", "stage grow", "stage read", "stage smooth"]
        assert {s.attributes["meshkiln.source"] for s in of_first} == {"computed"}
        assert all(s.seconds >= s.attributes["meshkiln.compute_seconds"] > 0 for s in of_first)  # type: ignore[operator]
        of_second = {s.name: s.attributes["meshkiln.source"] for s in collector.spans if s.parent == generations[1].id}
        assert of_second["stage grow"] == of_second["stage export"] == "computed"
        assert of_second["stage smooth"] == "memory"
        assert {s.trace for s in of_first} == {TRACE}


def test_who_joins_is_linked_to_who_leads(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with collecting() as collector:
        with serving(tmp_path, {"toy": gate.engine()}, traces_endpoint=collector.endpoint, workers=1) as http:
            paths = [post(http, b"twice", "").headers["location"]]
            until(lambda: gate.waiting() == 1)
            # The same request hangs on the generation; one that shares its first stages joins their flights.
            paths += [post(http, b"twice", query).headers["location"] for query in ("", "steps=9")]
            until(lambda: "meshkiln_flights_joined_total 1.0" in http.get("/metrics").text)
            gate.open()
            until(lambda: all(http.get(path).json()["state"] == "succeeded" for path in paths))
        generations = collector.named("generation")
        (joined,) = [g for g in generations if g.attributes.get("meshkiln.outcome") == "joined"]
        leader, other = (g for g in generations if g is not joined)
        if joined.links != (leader.id,):
            leader, other = other, leader
        assert joined.links == (leader.id,)
        by_parent = {(s.parent, s.name): s for s in collector.spans}
        waited = by_parent[other.id, "stage smooth"]
        assert waited.attributes["meshkiln.source"] == "joined"
        assert waited.links == (by_parent[leader.id, "stage smooth"].id,)


def test_a_failure_tells_its_kind_and_nothing_of_what_was_sent(tmp_path: Path) -> None:
    with collecting() as collector:
        with serving(tmp_path, traces_endpoint=collector.endpoint) as http:
            assert post(http, b"").json()["state"] == "failed"
        (generation,) = collector.named("generation")
        assert generation.failed
        (read,) = collector.named("stage read")
        assert read.failed


def test_a_cancelled_generation_is_told_as_that_and_as_no_error(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with collecting() as collector:
        with serving(tmp_path, {"toy": gate.engine()}, traces_endpoint=collector.endpoint) as http:
            path = post(http, b"let go", "").headers["location"]
            until(lambda: gate.waiting() == 1)
            assert http.delete(path).json()["state"] == "cancelled"
            until(lambda: gate.waiting() == 0)
        (generation,) = collector.named("generation")
        assert generation.attributes["meshkiln.outcome"] == "cancelled"
        (smooth,) = collector.named("stage smooth")
        assert smooth.attributes["meshkiln.source"] == "cancelled"
        assert not [span.name for span in collector.spans if span.failed]


def test_upstreams_are_asked_in_the_same_trace(tmp_path: Path) -> None:
    asked: list[str | None] = []

    class Theirs(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.headers.get("traceparent"))
            mesh = b"glTF" + (2).to_bytes(4, "little") + (12).to_bytes(4, "little")
            self.send_response(200)
            self.send_header("content-length", str(len(mesh)))
            self.end_headers()
            self.wfile.write(mesh)

        def log_message(self, *said: object) -> None:
            """Nothing is to be said."""

    theirs = ThreadingHTTPServer(("127.0.0.1", 0), Theirs)
    threading.Thread(target=theirs.serve_forever, daemon=True).start()
    try:
        with collecting() as collector:
            upstreams = {
                "upstreams": (f"http://127.0.0.1:{theirs.server_port}",),
                "upstream_model": "m",
                "engine": "upstream",
            }
            with serving(tmp_path, traces_endpoint=collector.endpoint, **upstreams) as http:
                post(http, b"picture", **ASKED)
            (call,) = [
                s
                for s in collector.spans
                if s.name.startswith("stage") and s.attributes["meshkiln.source"] == "computed"
            ]
        assert asked == [f"00-{TRACE}-{call.id}-01"]
    finally:
        theirs.shutdown()
        theirs.server_close()


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made, and nobody reads
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serving(tmp_path, traces_endpoint=endpoint, shutdown_seconds=1.0) as http:
            assert post(http, b"picture").json()["state"] == "succeeded"
            ending = time.monotonic()
        # What else there is to close is given as much again.
        assert time.monotonic() - ending < 5.0


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    import subprocess

    # Its interface alone is: the web framework loads that.
    names_ = ("opentelemetry.sdk", "opentelemetry.exporter", "meshkiln.telemetry.traces")
    code = f"import sys, meshkiln.gateway.serve; print([n for n in sys.modules if n.startswith({names_})])"
    assert Settings().traces_endpoint == ""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Logs.


def lines(capsys: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]  # type: ignore[attr-defined]


def test_log_lines_are_json_carry_the_request_and_never_what_callers_keep_secret(
    tmp_path: Path, capsys: object
) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.begin(as_json=True, requests=True)
        with serving(tmp_path, log_requests=True) as http:
            secret = {"authorization": "Bearer hush-hush", "idempotency-key": "hush-hush", "x-request-id": "order.66"}
            answer = post(http, b"hush-hush picture", "wait=30", **secret)
            document = answer.json()
            http.get("/hush-hush?key=hush-hush")
            http.get(document["links"]["artifact"])
            http.get("/v1/generations?cursor=hush-hush")
            post(http, b"|hush-hush")
        told = lines(capsys)
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    assert answer.headers["x-request-id"] == "order.66"
    assert "hush-hush" not in json.dumps(told)
    assert {"time", "level", "logger", "message"} <= set(told[0])
    accepted = next(line for line in told if line["message"] == "accepted")
    assert (accepted["request"], accepted["generation"]) == ("order.66", document["id"])
    ended = next(line for line in told if line["message"] == "succeeded")
    assert ended["generation"] == document["id"]
    routes = [(line["route"], line["status"]) for line in told if line["message"] == "answered"]
    assert ("/v1/artifacts/{key}", 200) in routes
    assert ("none", 404) in routes
    assert ("/v1/generations", 200) in routes


def test_a_request_is_named_by_its_caller_only_with_a_plain_word() -> None:
    assert names.begin("order.66") == "order.66"
    for bad in ("", "a b", "x" * 65, 'a"\n{"level": "forged"'):
        assert names.begin(bad) != bad


def test_plain_lines_tell_of_requests_what_json_lines_do(tmp_path: Path, capsys: object) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.begin(as_json=False, requests=True)
        with serving(tmp_path, log_requests=True) as http:
            document = post(http, b"picture", **{"x-request-id": "order.66"}).json()
        told = capsys.readouterr().err.splitlines()  # type: ignore[attr-defined]
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    (answered,) = (line for line in told if ": answered" in line and "route=/v1/generations " in line)
    assert {"request=order.66", "method=POST", "status=200"} <= set(answered.split())
    assert re.search(r" seconds=\d+\.\d+ bytes=\d+$", answered)
    assert any(f": succeeded generation={document['id']} " in line for line in told)


def test_an_answer_and_its_log_line_have_one_name_whoever_answers(tmp_path: Path, capsys: object) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    given = {"x-request-id": "order.66"}
    try:
        logs.begin(as_json=True, requests=True)
        with serving(tmp_path, log_requests=True) as http:
            artifact = post(http, b"picture").json()["links"]["artifact"]
            post(http, b"picture")  # answered by the framework, and remembered
            lines(capsys)
            answers = [post(http, b"picture", **headers) for headers in (given, {})]
            answers += [http.get(artifact, headers=headers) for headers in (given, {})]
            answers += [http.get("/healthz", headers={"host": "rebound.example"})]
        told = [line["request"] for line in lines(capsys) if line["message"] == "answered"]
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    assert told == [answer.headers["x-request-id"] for answer in answers]
    assert [name == "order.66" for name in told] == [True, False, True, False, False]


def test_a_stored_answer_carries_the_name_its_caller_gave(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        answers = [post(http, b"picture", **{"x-request-id": f"order.{number}"}) for number in range(4)]
        assert [answer.headers["x-request-id"] for answer in answers] == [f"order.{number}" for number in range(4)]
        assert "x-request-id" not in post(http, b"picture").headers, "answered without the framework, as are the last"


def test_no_value_of_a_plain_line_looks_like_another_or_like_a_line() -> None:
    record = logging.LogRecord("meshkiln", logging.INFO, "f.py", 1, "said", (), None)
    record.fields = {"one": "a b=c\nforged", "two": "", "three": 3}
    assert logs.Plain().format(record).endswith(' one="a b=c\\nforged" two="" three=3')


def test_an_error_is_one_line_with_its_stack() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("meshkiln", logging.ERROR, "f.py", 1, "it %s", ("broke",), sys.exc_info())
    told = json.loads(logs.Json().format(record))
    assert (told["message"], told["error"]) == ("it broke", "ValueError")
    assert "Traceback" in told["stack"]
