"""Results that are asked for later: from the store, from their job, made again, or gone."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

import toy
from meshkiln.gateway import house
from meshkiln.kiln import Kiln
from meshkiln.store.disk import Disk
from serving import post, serving, until


def test_a_result_of_which_no_copy_is_left_is_made_again_and_after_its_time_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "EVERY", 0.1)
    results = tmp_path / "data" / "jobs" / "results"
    with serving(tmp_path) as client:
        document = post(client, b"again").json()
        data = client.get(document["links"]["artifact"]).content
        assert client.delete(f"/v1/cache/{document['key']}").status_code == 204
        (results / document["digest"]).unlink()
        assert client.get(document["links"]["artifact"]).content == data
    with serving(tmp_path, retention_seconds=0.0) as client:
        until(lambda: not list(results.iterdir()))
        until(lambda: not list((tmp_path / "data" / "jobs" / "pictures").iterdir()))
        assert client.delete(f"/v1/cache/{document['key']}").status_code == 204
        gone = client.get(document["links"]["artifact"])
        assert (gone.status_code, gone.json()["type"]) == (410, "urn:meshkiln:problem:gone")
        # It is known that it was, and what it came to.
        assert client.get(document["links"]["self"]).json()["state"] == "succeeded"


def test_a_mesh_in_the_store_is_given_in_its_own_format_whatever_became_of_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiln = Kiln(toy.ENGINE, Disk(tmp_path / "cache"))  # as the command line makes it
    alone = kiln.generate(b"alone", "stl")
    kiln.close()
    with serving(tmp_path) as client:
        document = client.get(f"/v1/generations/k{alone.key.hex()}").json()
        assert list(document["links"]["formats"]) == ["stl"], "of a mesh whose picture nobody keeps"
        assert client.get(document["links"]["formats"]["stl"]).content == alone.data
        for other in ("glb", "doc"):
            assert client.get(f"/v1/generations/{document['id']}/artifacts/{other}").status_code == 410
        made = post(client, b"with a job").json()
        data = client.get(made["links"]["artifact"]).content
        for id in (made["id"], f"k{made['key']}"):
            assert list(client.get(f"/v1/generations/{id}").json()["links"]["formats"]) == ["glb", "stl"]
    monkeypatch.setattr(house, "EVERY", 0.1)
    kept = tmp_path / "data" / "jobs"
    with serving(tmp_path, retention_seconds=0.0) as client:
        until(lambda: not [*(kept / "results").iterdir(), *(kept / "pictures").iterdir()])
        for id in (made["id"], f"k{made['key']}"):
            formats = client.get(f"/v1/generations/{id}").json()["links"]["formats"]
            assert {name: client.get(path).content for name, path in formats.items()} == {"glb": data}
            assert client.get(f"/v1/generations/{id}/artifacts/stl").status_code == 410


def test_a_mesh_whose_jobs_row_is_damaged_is_given_as_one_without_a_job(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        made = post(client, b"damaged").json()
        data = client.get(made["links"]["artifact"]).content
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "jobs" / "jobs.sqlite", isolation_level=None)) as rows:
        rows.execute("UPDATE jobs SET ask = '{'")
    with serving(tmp_path) as client:
        document = client.get(f"/v1/generations/k{made['key']}").json()
        formats = document["links"]["formats"]
        assert {name: client.get(path).content for name, path in formats.items()} == {"glb": data}
        assert client.get(f"/v1/generations/k{made['key']}/artifacts/stl").status_code == 410
        assert client.delete(f"/v1/cache/{made['key']}").status_code == 204
        for path in (document["links"]["artifact"], document["links"]["self"], formats["glb"]):
            assert client.get(path).status_code == 404
