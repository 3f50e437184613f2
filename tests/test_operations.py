"""Operations: figures follow what happens, and actions do what is said of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gate import Gate
from meshkiln.gateway.purge import Doomed, purge
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers
from meshkiln.telemetry.form import sample_of
from meshkiln.telemetry.sample import Sample
from serving import serving, until
from store_contract import artifact, key

PNG = {"content-type": "image/png"}


def post(http: httpx.Client, picture: bytes, query: str = "wait=30") -> httpx.Response:
    return http.post(f"/v1/generations?{query}", content=picture, headers=PNG)


def seen(http: httpx.Client) -> dict[str, Any]:
    return http.get("/v1/operations").json()  # type: ignore[no-any-return]


def test_figures_follow_what_happens(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        cost = post(http, b"picture").json()["cost_seconds"]
        for _ in range(3):
            post(http, b"picture")
        post(http, b"")
        until(lambda: seen(http)["live"]["outcomes"].get("memory", {}).get("count") == 3)
        told = seen(http)
        assert told["live"]["outcomes"]["computed"]["count"] == 1
        for outcome in ("memory", "computed"):
            quantiles = [told["live"]["outcomes"][outcome][name] for name in ("p50", "p95", "p99")]
            assert 0 < quantiles[0] <= quantiles[1] <= quantiles[2] < 60
        assert told["live"]["saved"]["memory"] == pytest.approx(3 * cost, abs=5e-6)  # told to the microsecond
        assert told["live"]["stages"]["grow"]["count"] == 1
        assert told["live"]["stages"]["export"]["hits"] == {"memory": 3}
        assert told["live"]["errors"] == {"bad-picture": 1}
        assert told["day"]["outcomes"]["memory"]["count"] == 3
        drawn = http.get("/v1/operations/history?span=live").json()
        rate = sum(r * s for r, s in zip(drawn["per_second"]["memory"], drawn["seconds"], strict=True))
        assert rate == pytest.approx(3, rel=1e-3)
        dear = http.get("/v1/operations/dearest?limit=3").json()["artifacts"]
        costs = [artifact["cost_seconds"] / artifact["bytes"] for artifact in dear]
        assert len(dear) == 3
        assert costs == sorted(costs, reverse=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "history.sqlite")) as database:
        rows = [(at, *json.loads(text)) for at, text in database.execute("SELECT at, sample FROM minutes")]
    assert rows
    assert [sample_of(*row) for row in rows] == [Sample(*row) for row in rows], "what is counted is of the form"
    with serving(tmp_path) as http:
        assert seen(http)["day"]["outcomes"]["memory"]["count"] == 3
        assert seen(http)["live"]["outcomes"] == {}


def test_what_ends_while_the_server_stops_belongs_to_the_day(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine()}

    def open_once_it_stops(url: httpx.URL) -> None:
        def refused() -> bool:
            try:
                return httpx.get(url).status_code == 503
            except httpx.HTTPError:
                return True

        until(refused)
        gate.open()

    with serving(tmp_path, kinds, shutdown_seconds=30.0) as http:
        paths = [post(http, name, "").headers["location"] for name in (b"one", b"two")]
        until(lambda: gate.waiting() == 1)
        opener = threading.Thread(target=open_once_it_stops, args=(http.base_url.join("/readyz"),))
        opener.start()
    opener.join()
    with serving(tmp_path, kinds) as http:
        assert [http.get(path).json()["state"] for path in paths] == ["succeeded"] * 2
        assert seen(http)["day"]["outcomes"]["computed"]["count"] == 2


def test_without_telemetry_nothing_is_counted(tmp_path: Path) -> None:
    with serving(tmp_path, telemetry=False) as http:
        post(http, b"picture")
        post(http, b"picture")
        text = http.get("/metrics").text
        assert 'meshkiln_generation_seconds_count{outcome="memory"} 0.0' in text
        assert "meshkiln_http_requests_total{" not in text
        assert seen(http)["telemetry"] is False
        assert not (tmp_path / "data" / "history.sqlite").exists()


def test_who_hangs_on_anothers_work_is_counted_as_joined(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}) as http:
        paths = [post(http, b"twice", "").headers["location"] for _ in range(2)]
        until(lambda: gate.waiting() == 1)
        until(lambda: seen(http)["workers"][0]["state"] == "busy")
        assert seen(http)["workers"][0]["stage"] == "smooth"
        gate.open()
        until(lambda: all(http.get(path).json()["state"] == "succeeded" for path in paths))
        text = http.get("/metrics").text
        for outcome in ("joined", "computed"):
            assert f'meshkiln_generation_seconds_count{{outcome="{outcome}"}} 1.0' in text


def test_a_pause_refuses_what_is_new_and_answers_what_is_stored(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        post(http, b"picture")
        assert http.post("/v1/operations/intake", json={"paused": True}).json() == {"paused": True}
        refused = post(http, b"new")
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":intake-paused")
        assert int(refused.headers["retry-after"]) > 0
        assert post(http, b"picture").status_code == 200
        assert "meshkiln_intake_paused 1.0" in http.get("/metrics").text
        assert http.get("/readyz").status_code == 200
        http.post("/v1/operations/intake", json={"paused": False})
        assert post(http, b"new").json()["state"] == "succeeded"


def test_a_pause_refuses_conversions_that_need_a_worker_and_gives_those_that_are_stored(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        made, other = (post(http, name).json()["id"] for name in (b"one", b"two"))
        stored = http.get(f"/v1/generations/{made}/artifacts/stl")
        assert stored.status_code == 200
        http.post("/v1/operations/intake", json={"paused": True})
        refused = http.get(f"/v1/generations/{other}/artifacts/stl")
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":intake-paused")
        assert int(refused.headers["retry-after"]) > 0
        assert http.get(f"/v1/generations/{made}/artifacts/stl").content == stored.content
        http.post("/v1/operations/purge", json={"engine": "toy"})
        assert http.get(f"/v1/generations/{other}/artifacts/glb").status_code == 200  # kept with its job
        http.post("/v1/operations/intake", json={"paused": False})
        assert http.get(f"/v1/generations/{other}/artifacts/stl").status_code == 200


def test_a_drained_worker_finishes_its_batch_ends_and_comes_back(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}, workers=2) as http:
        path = post(http, b"slow", "").headers["location"]
        until(lambda: gate.waiting() == 1)  # it is busy with what comes before, too, but not for long
        busy = next(worker["number"] for worker in seen(http)["workers"] if worker["state"] == "busy")
        assert http.post(f"/v1/operations/workers/{busy}", json={"drained": True}).json()["state"] == "draining"
        # The last one that works is not drained.
        assert http.post(f"/v1/operations/workers/{1 - busy}", json={"drained": True}).status_code == 409
        gate.open()
        until(lambda: seen(http)["workers"][busy]["state"] == "drained")
        until(lambda: http.get(path).json()["state"] == "succeeded")
        assert seen(http)["workers"][busy]["memory_bytes"] == 0
        batches = seen(http)["workers"][busy]["batches"]
        for name in (b"one", b"two", b"three"):
            assert post(http, name).json()["state"] == "succeeded"
        assert seen(http)["workers"][busy]["batches"] == batches
        assert http.post(f"/v1/operations/workers/{busy}", json={"drained": False}).status_code == 200
        until(lambda: seen(http)["workers"][busy]["state"] == "idle")
        assert http.post("/v1/operations/workers/7", json={"drained": True}).status_code == 404


@pytest.mark.parametrize("switches", [{}, {"memory": False}, {"disk": False}, {"disk_bytes": 0}])
def test_a_purge_lets_go_of_what_is_named_and_of_nothing_else(tmp_path: Path, switches: dict[str, bool]) -> None:
    with serving(tmp_path, **switches) as http:
        keys = [post(http, name).json()["key"] for name in (b"one", b"two")]

        def purge(**asked: Any) -> dict[str, Any]:
            return http.post("/v1/operations/purge", json=asked).json()  # type: ignore[no-any-return]

        assert purge(key=keys[0], dry_run=True)["artifacts"] == 1
        assert {stage["source"] for stage in post(http, b"one").json()["stages"]} != {"computed"}
        assert purge(key=keys[0][:16])["artifacts"] == 1
        stages = {stage["stage"]: stage["source"] for stage in post(http, b"one").json()["stages"]}
        assert stages["export"] == "computed"
        assert stages["grow"] != "computed"
        assert purge(older_than_seconds=3600)["artifacts"] == 0
        assert purge(engine="other")["artifacts"] == 0
        assert purge(engine="toy", older_than_seconds=0)["artifacts"] > 2
        assert http.get("/v1/cache").json()["entries"] == 0
        assert http.post("/v1/operations/purge", json={}).status_code == 422
        assert http.post("/v1/operations/purge", json={"key": "xyz"}).status_code == 422


def test_a_purge_lets_go_of_what_memory_holds_when_the_disk_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    tiers = Tiers(Memory(), Disk(tmp_path / "file" / "store"))
    for n in range(5):
        tiers.put(key(n), artifact(n))
    assert purge(tiers, Doomed(key=key(3).hex())) == (1, 100)
    assert purge(tiers, Doomed(before=time.time())) == (4, 400)
    assert list(tiers) == []
    tiers.close()


def test_a_purge_takes_no_memory_for_what_does_not_fit(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    told = {"engine": "toy", "parameters": {"note": "x" * 1000}}
    disk.put_many((key(n), replace(artifact(n), provenance=told)) for n in range(5000))
    tracemalloc.start()
    assert purge(disk, Doomed(engine="other")) == (0, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6, "of five or more that all entries would take"
    assert purge(disk, Doomed(engine="toy")) == (5000, 500_000)
    assert list(disk) == []
    disk.close()


def test_actions_are_not_for_pages_of_others(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        for path, asked in (
            ("intake", {"paused": True}),
            ("purge", {"engine": "toy"}),
            ("workers/0", {"drained": True}),
        ):
            for header in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}):
                assert http.post(f"/v1/operations/{path}", json=asked, headers=header).status_code == 403
            # A form of another page's needs no preflight, but is no JSON.
            form = http.post(
                f"/v1/operations/{path}", content=b'{"paused": true}', headers={"content-type": "text/plain"}
            )
            assert form.status_code == 415
        assert seen(http)["intake"]["paused"] is False
        text = http.get("/metrics").text
        assert 'meshkiln_http_requests_total{route="none",status="403"} 6.0' in text
        for kind in ("foreign-origin", "foreign-host"):
            assert f'meshkiln_errors_total{{type="{kind}"}} 3.0' in text
