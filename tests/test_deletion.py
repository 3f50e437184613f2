"""Deleting a mesh for everybody: what goes with it, what stays, and what its links say afterwards."""

from __future__ import annotations

from pathlib import Path

import httpx

import pictures
from meshkiln.engines.inflate import ENGINE
from serving import computed, post, serving


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def gone(client: httpx.Client, path: str) -> bool:
    answer = client.get(path)
    kept = answer.headers["cache-control"] != "no-store"  # by caches, which would tell so when it is there again
    return answer.status_code == 410 and "deleted" in answer.json()["detail"] and not kept


def test_a_deleted_mesh_is_gone_in_every_format_however_it_was_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "data" / "jobs"
    with serving(tmp_path) as client:
        glb = post(client, b"a mug").json()
        stl = post(client, b"a mug", "wait=30&format=stl").json()
        converted = post(client, b"a mug", "wait=30&seed=1").json()
        client.get(converted["links"]["formats"]["stl"])
        other = post(client, b"a cup").json()
        mesh = {one["key"]: one["mesh"] for one in client.get("/v1/artifacts").json()["artifacts"]}
        assert mesh[glb["key"]] == mesh[stl["key"]], "files of one mesh are told to be so"
        assert len({mesh[document["key"]] for document in (glb, converted, other)}) == 3
        answer = client.delete(f"/v1/artifacts/{glb['key']}")
        assert (answer.status_code, set(answer.json()["deleted"])) == (200, {glb["key"], stl["key"]})
        for document in (glb, stl):
            for id in (document["id"], f"k{document['key']}"):
                assert gone(client, f"/v1/generations/{id}/artifacts/glb")
                assert gone(client, f"/v1/generations/{id}/artifacts/stl")
            assert gone(client, document["links"]["artifact"])
            assert gone(client, f"/v1/generations/k{document['key']}")
        assert client.get(glb["links"]["self"]).json()["state"] == "succeeded", "what became of it is still known"
        listed = {one["key"] for one in client.get("/v1/artifacts").json()["artifacts"]}
        assert {converted["key"], other["key"]} < listed
        assert not {glb["key"], stl["key"]} & listed
        assert files(kept / "results") == {converted["digest"], other["digest"]}
        assert client.delete(f"/v1/artifacts/{glb['key']}").status_code == 404
        # Another mesh of the picture still needs it; without that one nothing does.
        assert len(files(kept / "pictures")) == 2
        assert len(client.delete(f"/v1/artifacts/{converted['key']}").json()["deleted"]) == 2
        assert len(files(kept / "pictures")) == 1
    with serving(tmp_path) as client:
        assert gone(client, glb["links"]["artifact"])
        again = post(client, b"a mug").json()
        assert (again["key"], computed(again)) == (glb["key"], ["export"])
        assert client.get(glb["links"]["artifact"]).status_code == 200, "somebody asked for it again"
        assert client.get(again["links"]["formats"]["stl"]).status_code == 200


def test_a_mesh_that_only_a_job_keeps_is_deleted_as_well(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        made = post(client, b"a mug").json()
        assert client.delete(f"/v1/cache/{made['key']}").status_code == 204
        assert client.get(made["links"]["artifact"]).status_code == 200
        assert client.delete(f"/v1/artifacts/{made['key']}").json() == {"deleted": [made["key"]]}
        assert gone(client, made["links"]["artifact"])
        for unknown in ("0" * 64, "nonsense"):
            assert client.delete(f"/v1/artifacts/{unknown}").status_code == 404


def test_the_picture_of_a_deleted_mesh_goes_with_it(tmp_path: Path) -> None:
    picture = pictures.file(pictures.painted(pictures.mug(), (180, 60, 40), (240, 240, 240)))
    with serving(tmp_path, {"inflate": ENGINE}, engine="inflate") as client:
        made = post(client, picture, "wait=60&faces=2000").json()
        previews = made["links"]["previews"]
        assert all(client.get(link).status_code == 200 for link in previews.values())
        assert client.delete(f"/v1/artifacts/{made['key']}").status_code == 200
        assert client.get(previews["export"]).status_code == 404
        assert client.get(previews["matte"]).status_code == 200, "other meshes of the picture have the same"
