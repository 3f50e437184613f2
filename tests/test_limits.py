"""A server's own limits: in what it takes, in what it says it takes, and in nothing that it stores."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trimesh

import pictures
from meshkiln.engines.inflate import ENGINE as INFLATE
from meshkiln.engines.vecset import ENGINE as VECSET
from meshkiln.errors import BadParameter
from meshkiln.gateway.limits import limited
from serving import serving

MUG = pictures.file(pictures.painted(pictures.mug(), (180, 60, 40), (240, 240, 240)))


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("limits")
    height, width = pictures.mug().shape[:2]
    with serving(
        folder, {"inflate": INFLATE}, engine="inflate", limits=("faces=5000",), picture_pixels=height * width
    ) as client:
        yield client


def test_a_parameter_is_refused_beyond_the_limit_and_described_with_it(http: httpx.Client) -> None:
    for faces, status in ((5000, 200), (5001, 422)):
        answer = http.post(f"/v1/generations?wait=60&faces={faces}", content=MUG, headers={"content-type": "image/png"})
        assert answer.status_code == status
    assert "5,000" in answer.json()["detail"]
    post = http.get("/openapi.json").json()["paths"]["/v1/generations"]["post"]
    (faces_,) = [p for p in post["parameters"] if p["name"] == "faces"]
    assert (faces_["schema"]["maximum"], faces_["schema"]["default"]) == (5000, 5000)
    (engine,) = [e for e in http.get("/v1/engines").json() if e["name"] == "inflate"]
    (told,) = [p for p in engine["parameters"] if p["name"] == "faces"]
    assert told["high"] == 5000


def test_a_larger_picture_is_refused_before_it_is_decoded(http: httpx.Client) -> None:
    mug = pictures.painted(pictures.mug(), (180, 60, 40), (240, 240, 240))
    one_row_more = pictures.file(mug[[*range(len(mug)), -1]])
    answer = http.post("/v1/generations?wait=60", content=one_row_more, headers={"content-type": "image/png"}).json()
    assert answer["error"]["type"] == "urn:meshkiln:problem:bad-picture"
    assert "pixels" in answer["error"]["detail"]
    described = http.get("/openapi.json").json()["paths"]["/v1/generations"]["post"]
    assert f"{mug.shape[0] * mug.shape[1]} pixels" in described["description"]


def test_clients_of_hunyuan3d_get_the_most_there_is_when_they_name_no_number(http: httpx.Client) -> None:
    body: dict[str, Any] = {"image": base64.b64encode(MUG).decode()}
    answer = http.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    mesh = trimesh.load(trimesh.util.wrap_as_stream(answer.content), file_type="glb", force="mesh")
    assert 1000 < len(mesh.faces) <= 5000
    assert http.post("/generate", json={**body, "face_count": 40000}).status_code == 422
    described = json.dumps(http.get("/openapi.json").json()["paths"]["/generate"])
    assert '"maximum": 5000' in described


def test_a_limit_narrows_what_is_asked_and_no_key_knows_it() -> None:
    narrow = limited({"vecset": VECSET}, ["steps=20", "octree_resolution=128"])["vecset"]
    assert narrow.canonical({"steps": 20, "model": "teacher"})["steps"] == 20
    for given in ({"steps": 21, "model": "teacher"}, {"octree_resolution": 129}):
        with pytest.raises(BadParameter, match="from"):
            narrow.canonical(given)
    assert "reference" in VECSET.recipes
    assert "reference" not in narrow.recipes, "it asks for 50 steps"
    assert narrow.stages == VECSET.stages
    assert limited({"vecset": VECSET}, [])["vecset"] == VECSET


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("steps", "steps=20"),
        ("steps=many", "steps=20"),
        ("steps=inf", "steps=20"),
        ("stepz=5", "stepz"),
        ("solver=2", "solver"),
        ("steps=0", "at least 1"),
    ],
)
def test_what_is_no_limit_is_refused_at_the_start(tmp_path: Path, limit: str, says: str) -> None:
    with pytest.raises(BadParameter, match=says), serving(tmp_path, {"v": VECSET}, engine="v", limits=(limit,)):
        pass
