"""Verdicts on generations: kept, told, and still there after a restart; and the listing of what the store holds."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from meshkiln.store.disk import Disk
from serving import serving
from store_contract import artifact, key


def test_a_verdict_is_kept_with_what_it_is_about(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        made = http.post("/v1/generations?wait=30", content=b"a vase", headers={"content-type": "image/png"}).json()
        where = f"/v1/generations/{made['id']}/feedback"
        assert http.get(where).json() is None
        assert http.post(where, json={"rating": "up"}).status_code == 200
        assert http.post(where, json={"rating": "down", "reason": "flat"}).json()["reason"] == "flat"
        for wrong in ({"rating": "so-so"}, {}, {"rating": "up", "colour": 1}, {"rating": "up", "reason": "x" * 2001}):
            assert http.post(where, json=wrong).status_code == 422
        kind = {"content-type": "application/json"}
        assert http.post(where, content=b"{", headers=kind).status_code == 422
        assert http.post(where, content=b" " * 20_000, headers=kind).status_code == 413
        for other in ({"content-type": "text/plain"}, {}):
            refused = http.post(where, content=b'{"rating": "up"}', headers=other)
            assert refused.status_code == 415
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"].endswith(":unsupported-media-type")
        assert http.post("/v1/generations/nobody/feedback", json={"rating": "up"}).status_code == 404
        stored = http.post("/v1/generations", content=b"a vase", headers={"content-type": "image/png"}).json()
        assert http.post(f"/v1/generations/{stored['id']}/feedback", json={"rating": "up"}).status_code == 200
    with serving(tmp_path) as http:
        assert http.get(where).json()["rating"] == "down"
    with sqlite3.connect(tmp_path / "data" / "jobs" / "feedback.sqlite") as rows:
        kept = rows.execute("SELECT generation, key, engine, rating, reason FROM feedback").fetchall()
    assert kept == [
        (made["id"], made["key"], "toy", "up", ""),
        (made["id"], made["key"], "toy", "down", "flat"),
        (stored["id"], made["key"], "toy", "up", ""),
    ]


def test_a_verdict_on_a_mesh_that_only_its_job_knows_is_kept_with_what_it_is_about(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        sent = {"content": b"a vase", "headers": {"content-type": "image/png"}}
        made = http.post("/v1/generations?wait=30&recipe=fast&seed=7", **sent).json()
        whole = http.get(f"/v1/generations/k{made['key']}").json()
        assert http.post("/v1/operations/purge", json={"engine": "toy"}).json()["artifacts"] > 1
        told = http.get(f"/v1/generations/k{made['key']}").json()
        assert told["engine"] == "toy"
        assert told["parameters"] == {"steps": 1, "seed": 7}
        assert told["cost_seconds"] == whole["cost_seconds"]
        assert http.post(f"/v1/generations/k{made['key']}/feedback", json={"rating": "up"}).status_code == 200
    with sqlite3.connect(tmp_path / "data" / "jobs" / "feedback.sqlite") as rows:
        kept = rows.execute("SELECT engine, parameters FROM feedback").fetchall()
    assert kept == [("toy", '{"steps": 1, "seed": 7}')]


def test_a_verdict_is_kept_where_nobody_knows_what_made_the_mesh(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "cache")
    disk.put(key("k"), replace(artifact("k"), provenance={}))
    disk.close()
    with serving(tmp_path) as http:
        where = f"/v1/generations/k{key('k').hex()}/feedback"
        assert http.post(where, json={"rating": "up"}).status_code == 200
        assert http.get(where).json()["rating"] == "up"


def test_the_store_lists_its_meshes_newest_first_and_no_longer_what_was_deleted(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        made = [
            http.post("/v1/generations?wait=30", content=text, headers={"content-type": "image/png"}).json()["key"]
            for text in (b"one", b"two", b"three")
        ]
        page = http.get("/v1/artifacts?limit=2").json()
        assert [entry["key"] for entry in page["artifacts"]] == [made[2], made[1]]
        rest = http.get(f"/v1/artifacts?limit=2&before={page['next']!r}").json()
        assert [entry["key"] for entry in rest["artifacts"]] == [made[0]]
        assert rest["next"] is None
        entry = page["artifacts"][0]
        assert http.get(entry["links"]["generation"]).json()["key"] == entry["key"]
        assert http.delete(f"/v1/cache/{made[2]}").status_code == 204
        assert made[2] not in [entry["key"] for entry in http.get("/v1/artifacts").json()["artifacts"]]
