"""Pictures of results for people: made by a worker when first asked for, stored, and told where they are."""

from __future__ import annotations

import io
import json
import re

import httpx
import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

import canary
import pictures
from meshkiln.engines.base import Work
from meshkiln.engines.inflate import ENGINE
from meshkiln.engines.mesh import PREVIEW as OF_A_MESH
from meshkiln.engines.mesh.preview import SIDE
from meshkiln.engines.picture import PREVIEW as OF_A_CUTOUT
from serving import serving, until

PICTURE = pictures.file(pictures.painted(pictures.mug(), (180, 60, 40), (240, 240, 240)))


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("previews"), {"inflate": ENGINE}, engine="inflate") as client:
        yield client


def made(http: httpx.Client, **query: object) -> dict:
    headers = {"content-type": "image/png"}
    return http.post("/v1/generations", params={"wait": 60, **query}, content=PICTURE, headers=headers).json()


def test_the_cutout_and_the_mesh_can_be_seen(http: httpx.Client) -> None:
    document = made(http, faces=3000)
    assert set(document["links"]["previews"]) == {"matte", "export"}
    for stage, corner in (("matte", 0), ("export", 0)):
        answer = http.get(document["links"]["previews"][stage])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        alpha = np.asarray(Image.open(io.BytesIO(answer.content)))[..., 3]
        assert alpha[0, 0] == corner
        assert 0.1 < (alpha > 200).mean() < 0.9


def test_a_preview_is_stored_and_made_once(http: httpx.Client) -> None:
    link = made(http, faces=3500)["links"]["previews"]["export"]
    before = http.get("/v1/cache").json()["puts"]
    first = http.get(link)
    after = http.get("/v1/cache").json()["puts"]
    assert after == before + 1
    again = http.get(link)
    assert again.content == first.content
    assert http.get("/v1/cache").json()["puts"] == after
    assert http.get(link, headers={"if-none-match": first.headers["etag"]}).status_code == 304


def test_previews_and_conversions_are_counted_beside_the_stages_of_generations(http: httpx.Client) -> None:
    def counted(stage: str) -> NDArray[np.float64]:
        """How often it was computed, in how many seconds, and how often it was found."""
        text = http.get("/metrics").text
        names = ("seconds_count{", "seconds_sum{", "hits_total{[^}]*")
        return np.array(
            [sum(map(float, re.findall(f'meshkiln_stage_{n}stage="{stage}"[^}}]*}} (.*)', text))) for n in names]
        )

    kinds = ("preview", "conversion", "export")
    document = made(http, faces=4500)
    before = [counted(kind) for kind in kinds]
    for link in (document["links"]["previews"]["export"], document["links"]["formats"]["stl"]):
        for _ in range(3):
            assert http.get(link).status_code == 200
    *others, export = [counted(kind) - then for kind, then in zip(kinds, before, strict=True)]
    assert export.tolist() == [0, 0, 0]
    for computed, seconds, found in others:
        assert (computed, found) == (1, 2)
        assert 0 < seconds < 60
    until(lambda: {"conversion", "preview"} <= set(http.get("/v1/operations").json()["live"]["stages"]))


def test_what_cannot_be_seen_is_404(http: httpx.Client) -> None:
    stages = {stage["stage"]: stage["key"] for stage in made(http, faces=4000)["stages"]}
    assert http.get(f"/v1/artifacts/{stages['finish']}?format=png").status_code == 404
    assert http.get(f"/v1/artifacts/{'0' * 64}?format=png").status_code == 404
    assert http.get(f"/v1/artifacts/{stages['export']}?format=gif").status_code == 422


def test_a_stage_that_is_done_is_told_with_its_cost_its_source_and_its_picture(http: httpx.Client) -> None:
    document = made(http, depth=0.7)
    events = _stages(http, document["id"])
    done = {event["stage"]: event for event in events if event["state"] == "done"}
    assert list(done) == ["matte", "inflate", "finish", "export"]
    assert done["inflate"]["source"] == "computed"
    assert done["inflate"]["seconds"] > 0
    assert done["matte"]["preview"] == document["links"]["previews"]["matte"]
    other = _stages(http, made(http, depth=0.7, faces=777)["id"])
    found = {event["stage"]: event for event in other if event["state"] == "done"}
    assert found["inflate"]["source"] in ("memory", "disk")
    assert found["inflate"]["made"] <= found["finish"]["made"]


def _stages(http: httpx.Client, id: str) -> list[dict]:
    blocks = [block.split("\n") for block in http.get(f"/v1/generations/{id}/events").text.split("\n\n") if block]
    return [json.loads(block[2].removeprefix("data: ")) for block in blocks if block[1] == "event: stage"]


def test_canary() -> None:
    ball = trimesh.creation.icosphere(2, radius=0.7)
    ball.visual.vertex_colors = np.where(ball.vertices[:, :1] > 0, (200, 30, 20, 255), (20, 160, 40, 255))
    file = trimesh.exchange.ply.export_ply(ball)
    canary.check(OF_A_MESH, {"ball": _small(OF_A_MESH, file, SIDE // 12)}, _alike)
    cutout = {"pixels": np.kron(pictures.gradient(alpha=True), np.ones((20, 20, 1), np.uint8))}
    canary.check(OF_A_CUTOUT, {"gradient": _small(OF_A_CUTOUT, cutout, 32)}, _alike)


def _small(stage, value, side: int) -> dict:
    [png] = stage.load()([Work((value,), {})])
    shown = Image.open(io.BytesIO(png))
    assert max(shown.size) <= 512
    return {"pixels": np.asarray(shown.resize((side, side), Image.Resampling.BOX), np.float64)}


def _alike(recorded, now) -> bool:
    return np.abs(recorded["pixels"] - now["pixels"]).max() < 6
