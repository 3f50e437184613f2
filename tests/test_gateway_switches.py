"""Every switch and limit of the settings has the effect it names."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import toy
from gate import Gate
from meshkiln.errors import BadParameter
from meshkiln.gateway.serve import build
from meshkiln.settings import Settings
from serving import PNG, post, serving, until


def metric(client: httpx.Client, name: str) -> float:
    found = re.findall(rf"^meshkiln_{name} (\S+)", client.get("/metrics").text, re.M)
    return sum(map(float, found))


def sources(client: httpx.Client, picture: bytes) -> set[str]:
    document = post(client, picture).json()
    return {stage["source"] for stage in document["stages"] if stage["source"]}


def test_memory_answers_and_without_it_the_disk_does(tmp_path: Path) -> None:
    with serving(tmp_path / "with") as client:
        post(client, b"picture")
        assert sources(client, b"picture") == {"memory"}
    with serving(tmp_path / "without", memory=False) as client:
        post(client, b"picture")
        assert sources(client, b"picture") == {"disk"}


def test_the_disk_keeps_and_without_it_a_restart_forgets(tmp_path: Path) -> None:
    for disk in (True, False):
        for expected in ("computed", "disk" if disk else "computed"):
            with serving(tmp_path / str(disk), disk=disk) as client:
                assert expected in sources(client, b"picture")


def test_without_any_store_everything_is_computed(tmp_path: Path) -> None:
    with serving(tmp_path, memory=False, disk=False) as client:
        assert sources(client, b"picture") == sources(client, b"picture") == {"computed"}


def test_a_recipe_is_the_settings_unless_asked_and_is_its_parameters_in_the_key(tmp_path: Path) -> None:
    def key(client: httpx.Client, query: str) -> str:
        return str(post(client, b"recipe", f"wait=30{query}").json()["key"])

    with serving(tmp_path / "default") as client:
        assert key(client, "") == key(client, "&recipe=fast") == key(client, "&steps=1")
        reference = key(client, "&recipe=reference")
        assert reference == key(client, "&steps=50") != key(client, "")
    with serving(tmp_path / "set", recipe="reference") as client:
        assert key(client, "") == reference
        assert key(client, "&recipe=fast") == key(client, "&recipe=reference&steps=1")


def test_a_recipe_that_no_engine_has_stops_the_server() -> None:
    with pytest.raises(BadParameter, match="no engine has a recipe 'referense'; there are fast, reference"):
        build(Settings(engine="toy", recipe="referense"), {"toy": toy.ENGINE})


@pytest.mark.parametrize("single", [True, False])
def test_single_flight_is_one_computation_and_without_it_there_are_two(tmp_path: Path, single: bool) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine()}
    with serving(tmp_path, kinds, single_flight=single, workers=2, memory=False, disk=False, batching=False) as client:
        paths = [post(client, b"twice", "").headers["location"] for _ in range(2)]
        try:
            until(lambda: gate.waiting() == (1 if single else 2))
        finally:
            gate.open()
        until(lambda: all(client.get(path).json()["state"] == "succeeded" for path in paths))
        assert gate.passed() == ["twice"] * (1 if single else 2)


@pytest.mark.parametrize("batching", [True, False])
def test_batching_runs_what_waits_together_and_without_it_one_by_one(tmp_path: Path, batching: bool) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine(batch=4)}
    with serving(tmp_path, kinds, batching=batching, memory=False, disk=False, batch_seconds=0.0) as client:
        first = post(client, b"first", "").headers["location"]
        until(lambda: gate.waiting() == 1)
        paths = [first, *(post(client, b"mate%d" % number, "").headers["location"] for number in range(8))]
        until(lambda: metric(client, "active_generations") == 9)
        gate.open()
        until(lambda: all(client.get(path).json()["state"] == "succeeded" for path in paths))
        alone, all_ = (metric(client, rf'batch_size_bucket\{{le="{bound}"\}}') for bound in ("1.0", "\\+Inf"))
        assert (alone < all_) == batching


@pytest.mark.parametrize("hot", [True, False])
def test_the_hot_path_gives_the_same_answers(tmp_path: Path, hot: bool) -> None:
    with serving(tmp_path, hot_path=hot) as client:
        document = post(client, b"picture").json()
        link = document["links"]["artifact"]
        stored = [post(client, b"picture").json() for _ in range(3)]
        assert stored[0] == stored[1] == stored[2]
        whole = [client.get(link) for _ in range(3)]
        assert (
            len(
                {
                    (w.content, *sorted((n, v) for n, v in w.headers.items() if n not in ("date", "x-request-id")))
                    for w in whole
                }
            )
            == 1
        )
        etag = whole[0].headers["etag"]
        for _ in range(2):
            same = client.get(link, headers={"If-None-Match": etag})
            assert (same.status_code, same.content) == (304, b"")
        assert client.get(link, headers={"Range": "bytes=0-2"}).content == whole[0].content[:3]
        assert client.get(link, headers={"Host": "evil.example"}).status_code == 403
        assert client.get(link, headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.delete(f"/v1/cache/{document['key']}").status_code == 204
        again = client.get(link)  # the job's own copy
        assert (again.status_code, again.content) == (200, whole[0].content)
        route = r'http_requests_total\{route="/v1/artifacts/\{key\}",status="200"\}'
        assert metric(client, route) == 4
        assert metric(client, r'generation_seconds_count\{outcome="memory"\}') == 3


def test_what_is_counted_is_what_happened(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        cost = post(client, b"picture").json()["cost_seconds"]
        post(client, b"picture")
        assert metric(client, r'stage_seconds_count\{stage="grow"\}') == 1
        assert metric(client, r'generation_seconds_count\{outcome="computed"\}') == 1
        assert metric(client, r"saved_seconds_total\{\S+\}") == pytest.approx(cost, abs=1e-5)
        post(client, b"picture", "wait=30&steps=9")  # from `smooth` on
        assert metric(client, r'stage_seconds_count\{stage="grow"\}') == 2
        assert metric(client, r'stage_seconds_count\{stage="smooth"\}') == 1
        assert post(client, b"").json()["state"] == "failed"
        assert metric(client, r'generation_seconds_count\{outcome="failed"\}') == 1


def test_a_forwarded_address_is_nobodys_word(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        location = post(client, b"picture", "").headers["location"]
        spoofed = {**PNG, "X-Forwarded-For": "10.0.0.1", "Idempotency-Key": "k"}
        first = client.post("/v1/generations?steps=2", content=b"one", headers=spoofed)
        second = client.post(
            "/v1/generations?steps=3", content=b"two", headers={**spoofed, "X-Forwarded-For": "10.0.0.2"}
        )
        # One client: the key is taken.
        assert (first.status_code, second.status_code) == (202, 422)
        until(lambda: client.get(location).json()["state"] == "succeeded")


def test_allowed_hosts_and_origins_are_served(tmp_path: Path) -> None:
    with serving(tmp_path, allowed_hosts=("kiln.example",), cors_origins=("https://studio.example",)) as client:
        assert client.get("/healthz", headers={"Host": "kiln.example:80"}).status_code == 200
        answer = client.get("/healthz", headers={"Origin": "https://studio.example"})
        assert answer.headers["access-control-allow-origin"] == "https://studio.example"
        asked = {"Origin": "https://studio.example", "Access-Control-Request-Headers": "content-type"}
        preflight = client.options("/v1/generations", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (204, "content-type")
