"""The gateway over real HTTP: a real server, real worker processes, the toy engine."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import toy
from meshkiln.engines.base import engines
from meshkiln.gateway.artifacts import SUFFIXES
from serving import PNG, computed, post, serving, until


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("gateway"), body_bytes=100_000) as client:
        yield client


@pytest.mark.parametrize("query", ["timeout=false", "wait=soon", "priority=0.5", "steps=many", "engine=none"])
def test_what_the_body_says_again_is_not_nonsense_in_the_query(http: httpx.Client, query: str) -> None:
    again = {"timeout": 60, "wait": 30, "priority": 1, "steps": 3, "engine": "toy"}
    encoded = base64.b64encode(b"twice").decode()
    for body in ({"json": {"image": encoded, **again}}, {"files": {"image": b"twice"}, "data": again}):
        assert http.post("/v1/generations", **body).status_code == 200
        answer = http.post(f"/v1/generations?{query}", **body)
        assert answer.status_code in (404, 422)
        assert query.partition("=")[2] in answer.json()["detail"]


def test_a_new_picture_is_made_and_the_same_again_is_found(http: httpx.Client) -> None:
    first = post(http, b"new")
    assert first.status_code == 200
    document = first.json()
    assert document["state"] == "succeeded"
    assert computed(document) == ["read", "smooth", "grow", "export"]
    artifact = http.get(document["links"]["artifact"])
    assert artifact.content.startswith(b"glb:")
    assert artifact.headers["content-type"] == "model/gltf-binary"
    for _ in range(3):  # the framework's side, then the hot path's
        again = post(http, b"new").json()
        assert again["key"] == document["key"]
        assert computed(again) == []
        assert again["saved_seconds"] == pytest.approx(again["cost_seconds"])
        assert http.get(again["links"]["self"]).json()["key"] == document["key"]


def test_the_three_forms_of_a_request_meet(http: httpx.Client) -> None:
    body = post(http, b"forms", "wait=30&format=stl&steps=3").json()
    form = http.post(
        "/v1/generations", files={"image": ("cat.png", b"forms")}, data={"format": "stl", "steps": "3"}
    ).json()
    encoded = base64.b64encode(b"forms").decode()
    plain = http.post("/v1/generations", json={"image": encoded, "format": "stl", "steps": 3}).json()
    url = http.post(
        "/v1/generations", json={"image": f"data:image/png;base64,{encoded}", "format": "stl", "steps": 3.0}
    ).json()
    assert body["key"] == form["key"] == plain["key"] == url["key"]


def test_accepted_jobs_are_told_where_to_look(http: httpx.Client) -> None:
    accepted = post(http, b"later", "steps=50")
    assert accepted.status_code == 202
    location = accepted.headers["location"]
    until(lambda: http.get(location).json()["state"] == "succeeded")
    job = http.get(location).json()
    assert {"id", "state", "key", "stages", "cost_seconds", "saved_seconds", "links"} <= set(job)
    stl = http.get(job["links"]["formats"]["stl"])
    assert stl.content.startswith(b"stl:")
    assert http.get(f"/v1/generations/{job['id']}/artifacts/doc").status_code == 404


def test_prefer_wait_is_honoured_and_said(http: httpx.Client) -> None:
    for number, prefer in enumerate(("respond-async, wait=30", "Wait=30; foo")):
        done = post(http, b"prefer%d" % number, "", Prefer=prefer)
        assert done.status_code == 200
        assert done.headers["preference-applied"] == "wait=30"
    assert "preference-applied" not in post(http, b"prefer nothing", "", Prefer="respond-async, no-wait").headers


def test_no_cache_computes_anew(http: httpx.Client) -> None:
    post(http, b"refresh")
    for said in ("no-cache", "max-age=0, No-Cache"):
        anew = post(http, b"refresh", **{"Cache-Control": said}).json()
        assert computed(anew) == ["read", "smooth", "grow", "export"]


def test_an_idempotency_key_gives_the_same_job_and_refuses_another_request(http: httpx.Client) -> None:
    one = post(http, b"idem", "seed=1", **{"Idempotency-Key": "abc"})
    same = post(http, b"idem", "seed=1", **{"Idempotency-Key": "abc"})
    assert same.status_code in (200, 202)
    if "location" in same.headers:  # else it was answered from the store already
        assert same.headers["location"] == one.headers["location"]
    other = post(http, b"idem", "seed=2", **{"Idempotency-Key": "abc"})
    assert other.status_code == 422
    assert other.json()["type"] == "urn:meshkiln:problem:idempotency-conflict"
    # An empty one is none.
    for seed in (3, 4):
        assert post(http, b"idem", f"seed={seed}", **{"Idempotency-Key": ""}).status_code == 202
    assert post(http, b"idem", "seed=5", **{"Idempotency-Key": "x" * 256}).status_code == 422


def test_a_hundred_at_once_cost_one_generation(http: httpx.Client) -> None:
    together = threading.Barrier(100)

    def ask(_: int) -> dict[str, Any]:
        with httpx.Client(base_url=http.base_url, timeout=60) as client:
            together.wait()
            document: dict[str, Any] = post(client, b"hundred", "wait=50&steps=7").json()
            return document

    def tasks_done() -> float:
        (line,) = re.findall(r'^meshkiln_worker_tasks_total\{outcome="done"\} (\S+)$', http.get("/metrics").text, re.M)
        return float(line)

    post(http, b"before the hundred")
    before = tasks_done()
    with ThreadPoolExecutor(100) as threads:
        documents = list(threads.map(ask, range(100)))
    assert {document["key"] for document in documents} == {documents[0]["key"]}
    # Whoever came after the last stage found it stored; nobody computed a stage a second time.
    assert tasks_done() - before == 4


def test_events_tell_the_way_and_can_be_taken_up_again(http: httpx.Client) -> None:
    location = post(http, b"events", "steps=4").headers["location"]
    until(lambda: http.get(location).json()["state"] == "succeeded")
    text = http.get(f"{location}/events").text
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "state"
    assert kinds[-1] == "state"
    assert json.loads(events[-1]["data"])["state"] == "succeeded"
    stages = [json.loads(e["data"]) for e in events if e["event"] == "stage"]
    for state in ("begun", "done"):
        told = [stage["stage"] for stage in stages if stage["state"] == state]
        assert told == ["read", "smooth", "grow", "export"]
    assert {"stage": "grow", "step": 4, "steps": 4} in [json.loads(e["data"]) for e in events if e["event"] == "step"]
    rest = http.get(f"{location}/events", headers={"Last-Event-ID": events[2]["id"]}).text
    assert rest == text.split("\n\n", 3)[3]


def test_artifacts_have_validators_and_ranges(http: httpx.Client) -> None:
    link = post(http, b"ranges").json()["links"]["artifact"]
    whole = http.get(link)
    etag, size = whole.headers["etag"], len(whole.content)
    # It may be deleted, so nobody may have it from a cache that did not ask.
    assert "no-cache" in whole.headers["cache-control"]
    for matching in (f'"other", W/{etag}', f'"other",{etag}', "*"):
        assert http.get(link, headers={"If-None-Match": matching}).status_code == 304, matching
        assert http.head(link, headers={"If-None-Match": matching}).status_code == 304, matching
    for lines in ((etag, '"other"'), ('"other"', etag)):
        several = [("If-None-Match", line) for line in lines]
        assert http.get(link, headers=several).status_code == 304, lines
        assert http.head(link, headers=several).status_code == 304, lines
    for other in ('"other"', etag.strip('"'), f'"x{etag[1:]}'):
        assert http.get(link, headers={"If-None-Match": other}).status_code == 200, other
    part = http.get(link, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{size}"
    assert http.get(link, headers={"Range": "bytes=-3"}).content == whole.content[-3:]
    assert http.get(link, headers={"Range": "BYTES=-3"}).content == whole.content[-3:]
    for ignored in ("bytes=3-2", "bytes=0-0,2-3", "lines=0-1", "bytes=", "bytes=a-b"):
        answer = http.get(link, headers={"Range": ignored})
        assert (answer.status_code, answer.content) == (200, whole.content), ignored
    assert http.get(link, headers={"Range": f"bytes=1-{size * 9}"}).content == whole.content[1:]
    for beyond in (f"bytes={size}-", "bytes=-0"):
        assert http.get(link, headers={"Range": beyond}).status_code == 416
    assert http.get(link, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    head = http.head(link)
    assert (head.content, head.headers["content-length"]) == (b"", str(size))
    assert 'filename="mesh-' in whole.headers["content-disposition"]


@pytest.mark.parametrize(
    ("send", "status", "kind"),
    [
        ({"content": b"", "headers": PNG}, 422, "bad-picture"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported-media-type"),
        ({"content": b"x" * 100_001, "headers": PNG}, 413, "too-large"),
        ({"content": b"x", "headers": {**PNG, "content-encoding": "gzip"}}, 415, "unsupported-encoding"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed"),
        ({"json": []}, 400, "malformed"),
        ({"json": {"format": "glb"}}, 400, "no-picture"),
        ({"json": {"image": "§§"}}, 400, "malformed"),
        ({"json": {"image": "eHg=", "steps": 99}}, 422, "bad-parameter"),
        ({"json": {"image": "eHg=", "stepz": 9}}, 422, "bad-parameter"),
        ({"json": {"image": "eHg=", "engine": "magic"}}, 422, "unknown-engine"),
        ({"json": {"image": "eHg=", "recipe": "magic"}}, 422, "bad-parameter"),
        ({"json": {"image": "eHg=", "wait": "soon"}}, 422, "bad-parameter"),
        ({"data": {"format": "glb"}, "files": {"picture": b"x"}}, 400, "no-picture"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, None),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, None),
    ],
)
def test_bad_requests_are_problem_documents(
    http: httpx.Client, send: dict[str, Any], status: int, kind: str | None
) -> None:
    answer = http.post("/v1/generations?wait=30", **send)
    document = answer.json()
    if answer.status_code == 200:  # an empty picture is only found out by a worker
        document = document["error"]
        assert document["status"] == status
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code == document["status"] == status
    assert kind is None or document["type"].endswith(kind)
    assert document["title"]


def test_what_is_not_there_is_404(http: httpx.Client) -> None:
    ids = ("/v1/generations/none", "/v1/generations/none/events", f"/v1/generations/k{'0' * 64}", "/v1/generations/kzz")
    for path in (*ids, f"/v1/artifacts/{'0' * 64}", "/v1/artifacts/..%2f..%2fetc%2fpasswd", "/nowhere"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    assert http.put("/v1/generations").status_code == 405
    assert http.delete(f"/v1/cache/{'0' * 64}").status_code == 404


def test_head_is_get_without_its_body(http: httpx.Client) -> None:
    document = post(http, b"heads").json()
    own = document["links"]["self"]
    for path in ("/healthz", "/readyz", "/v1/engines", "/v1/generations", "/v1/cache", "/openapi.json", "/", own):
        get, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert http.head("/openapi.json").headers["content-length"] == str(len(http.get("/openapi.json").content))
    stl = document["links"]["formats"]["stl"]
    assert http.head(stl, headers={"Range": "bytes=0-1"}).headers["content-length"] == str(len(http.get(stl).content))
    assert http.head("/v1/generations/none").status_code == 404
    refused = http.head("/generate")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert http.put("/healthz").headers["allow"] == "GET, HEAD"


def test_keys_are_written_one_way(http: httpx.Client) -> None:
    link = post(http, b"written").json()["links"]["artifact"]
    assert http.get(link).status_code == 200
    prefix, key = link.rsplit("/", 1)
    assert key != key.upper()
    for other in (key.upper(), f"{key}%0A", f"%20{key[1:]}", key[:-1], f"{key}0"):
        assert http.get(f"{prefix}/{other}").status_code == 404, other


def test_an_artifact_can_be_forgotten_and_is_made_again(http: httpx.Client) -> None:
    document = post(http, b"forget").json()
    assert http.delete(f"/v1/cache/{document['key']}").status_code == 204
    # The job's own copy still answers.
    assert http.get(document["links"]["artifact"]).content.startswith(b"glb:")


def test_listing_pages_through_jobs_newest_first(http: httpx.Client) -> None:
    made = [post(http, f"list{i}".encode()).json()["id"] for i in range(3)]
    page = http.get("/v1/generations?limit=2").json()
    assert [job["id"] for job in page["generations"]] == made[:0:-1]
    following = http.get("/v1/generations", params={"limit": 2, "cursor": page["next"]}).json()
    assert following["generations"][0]["id"] == made[0]
    assert all(j["state"] == "failed" for j in http.get("/v1/generations?state=failed").json()["generations"])
    assert http.get("/v1/generations?state=odd").status_code == 422
    assert http.get("/v1/generations?cursor=nonsense").status_code == 422


def test_foreign_hosts_and_origins_get_403(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
    assert http.get("/healthz", headers={"Host": "127.0.0.1.evil.example:80"}).status_code == 403
    for origin in ("http://evil.example", "null", "https://localhost.evil.example"):
        posted = http.post("/v1/generations", content=b"x", headers={**PNG, "Origin": origin})
        deleted = http.delete(f"/v1/cache/{'0' * 64}", headers={"Origin": origin})
        cancelled = http.delete("/v1/generations/none", headers={"Origin": origin})
        for refused in (posted, deleted, cancelled):
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
    own = str(http.base_url).rstrip("/")
    assert http.get("/healthz", headers={"Origin": own}).status_code == 200


def test_engines_cache_health_and_metrics_are_told(http: httpx.Client) -> None:
    for _ in range(2):
        post(http, b"to be counted")
    (engine,) = http.get("/v1/engines").json()
    assert (engine["name"], engine["default"], engine["recipe"]) == ("toy", True, "fast")
    assert http.get("/v1/cache").json()["entries"] >= 0
    assert http.get("/healthz").json() == {"status": "ok"}
    text = http.get("/metrics").text
    for name in (
        "http_requests_total{",
        'generation_seconds_bucket{le="0.001",outcome="memory"}',
        'stage_seconds_count{stage="grow"}',
        'stage_hits_total{stage="export",tier="memory"}',
        'saved_seconds_total{outcome="memory"}',
        "flights_joined_total ",
        "queue_generations ",
        "queue_seconds ",
        "batch_size_bucket{",
        'worker_busy_ratio{worker="0"}',
        'worker_memory_bytes{worker="0"}',
        'store_bytes{tier="disk"}',
    ):
        assert f"\nmeshkiln_{name}" in text, name
    assert "\nprocess_resident_memory_bytes " in text
    described = http.get("/openapi.json").json()
    limits = described["paths"]["/v1/generations"]["post"]["requestBody"]["content"]["image/png"]["schema"]
    assert limits["maxLength"] == 100_000


def test_what_is_evicted_is_counted(tmp_path: Path) -> None:
    with serving(tmp_path, disk=False, memory_entries=4) as client:
        for number in range(3):
            post(client, b"evicted%d" % number)
        counts = re.findall(
            r'^meshkiln_store_evictions_total\{\S*tier="memory"\} (\S+)$', client.get("/metrics").text, re.M
        )
        assert sum(map(float, counts)) > 0


def test_another_format_runs_the_export_and_is_no_generation(http: httpx.Client) -> None:
    document = post(http, b"format").json()

    def counted() -> tuple[float, float, int]:
        text = http.get("/metrics").text
        done = re.findall(r'^meshkiln_worker_tasks_total\{outcome="done"\} (\S+)$', text, re.M)
        generations = re.findall(r"^meshkiln_generation_seconds_count\S* (\S+)$", text, re.M)
        return (
            sum(map(float, done)),
            sum(map(float, generations)),
            len(http.get("/v1/generations").json()["generations"]),
        )

    tasks, generations, listed = counted()
    stl = http.get(document["links"]["formats"]["stl"])
    assert (stl.headers["content-type"], stl.content[:4]) == ("model/stl", b"stl:")
    assert stl.headers["content-disposition"].endswith('.stl"')
    assert counted() == (tasks + 1, generations, listed)


def test_every_format_has_a_suffix() -> None:
    for engine in engines().values():
        assert set(engine.formats.values()) <= set(SUFFIXES)


def test_it_answers_and_says_that_it_is_not_ready_while_models_are_loaded(tmp_path: Path) -> None:
    stages = [replace(s, compute="deadly:smooth") if s.name == "smooth" else s for s in toy.ENGINE.stages]
    with serving(tmp_path, {"toy": replace(toy.ENGINE, stages=tuple(stages))}, ready=False) as client:
        assert client.get("/healthz").status_code == 200
        loading = client.get("/readyz")
        assert (loading.status_code, loading.json()["type"]) == (503, "urn:meshkiln:problem:not-ready")
        assert loading.headers["retry-after"] == "1"
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_picture_that_kills_workers_fails_clearly_and_does_not_come_back(tmp_path: Path) -> None:
    stages = [replace(s, compute="deadly:smooth") if s.name == "smooth" else s for s in toy.ENGINE.stages]
    kinds = {"toy": replace(toy.ENGINE, stages=tuple(stages))}

    def restarts(client: httpx.Client) -> float:
        counts = re.findall(
            r'^meshkiln_worker_restarts_total\{reason="died"\} (\S+)$', client.get("/metrics").text, re.M
        )
        return sum(map(float, counts))

    with serving(tmp_path, kinds) as client:
        failed = post(client, b"deadly").json()
        assert (failed["state"], failed["error"]["type"]) == ("failed", "urn:meshkiln:problem:poisoned")
        assert "signal 9" in failed["error"]["detail"]
        assert restarts(client) == 2
        assert post(client, b"harmless").json()["state"] == "succeeded"
    with serving(tmp_path, kinds) as client:
        again = post(client, b"deadly").json()
        assert again["error"]["type"] == "urn:meshkiln:problem:poisoned"
        assert restarts(client) == 0, "it was not even tried"
