"""The Hunyuan3D API from the side of its clients: a real server, and an engine that shows what it was asked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import mirror
from meshkiln.engines.base import Parameter
from meshkiln.gateway.hunyuan3d import wanted
from serving import serving, until


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(
        tmp_path_factory.mktemp("hunyuan"), {"mirror": mirror.ENGINE}, engine="mirror", body_bytes=100_000
    ) as client:
        yield client


def ask(picture: bytes, **fields: Any) -> dict[str, Any]:
    return {"image": base64.b64encode(picture).decode(), **fields}


def generated(http: httpx.Client, picture: bytes, **fields: Any) -> dict[str, Any]:
    response = http.post("/generate", json=ask(picture, **fields))
    assert response.status_code == 200, response.text
    return mirror.told(response.content)


def ended(http: httpx.Client, uid: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def over() -> bool:
        seen.append(http.get(f"/status/{uid}").json())
        return seen[-1]["status"] not in ("processing", "texturing")

    until(over)
    return seen[-1]


@contextlib.contextmanager
def gate(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(40)
        yield listening


def test_generate_answers_with_the_file(http: httpx.Client) -> None:
    response = http.post("/generate", json=ask(b"chair"))
    assert response.headers["content-type"] == "model/gltf-binary"
    assert mirror.told(response.content)["picture"] == hashlib.sha256(b"chair").hexdigest()


def test_what_is_not_said_is_as_the_2_1_schema_has_it(http: httpx.Client) -> None:
    told = generated(http, b"defaults")
    assert told["seed"] == 1234
    assert told["steps"] == 5
    assert told["guidance_scale"] == 5.0
    assert told["octree_resolution"] == 256
    assert told["faces"] == 40000
    assert told["matte"] == "auto"


def test_what_the_2_0_add_on_sends_is_honoured(http: httpx.Client) -> None:
    sent = {"octree_resolution": 128, "num_inference_steps": 50, "guidance_scale": 5.5, "texture": False}
    told = generated(http, b"add-on", **sent)
    assert (told["octree_resolution"], told["steps"], told["guidance_scale"]) == (128, 50, 5.5)


def test_what_the_2_1_schema_names_is_honoured(http: httpx.Client) -> None:
    told = generated(
        http,
        b"schema",
        remove_background=False,
        texture=True,
        seed=2**32 - 1,
        octree_resolution=512,
        num_inference_steps=20,
        guidance_scale=0.1,
        num_chunks=20000,
        face_count=100000,
        type="glb",
    )
    assert (told["seed"], told["octree_resolution"], told["steps"]) == (2**32 - 1, 512, 20)
    assert (told["guidance_scale"], told["faces"], told["matte"]) == (0.1, 100000, "alpha")


def test_more_steps_than_a_distilled_model_takes_ask_for_its_teacher() -> None:
    model = Parameter("model", "student", "which", choices=("teacher", "student"))
    distilled = replace(
        mirror.ENGINE,
        parameters=(*mirror.ENGINE.parameters, model),
        limits=(("steps", 8, "model", ("student",)),),
        recipes={"fast": {"model": "student", "steps": 4}},
    )
    for steps, expected in ((5, "student"), (8, "student"), (20, "teacher"), (50, "teacher")):
        asked = wanted(ask(b"x", num_inference_steps=steps), distilled, "mirror", "fast").ask
        whole = distilled.canonical({**distilled.recipes["fast"], **asked.parameters})
        assert (whole["steps"], whole["model"]) == (steps, expected)


def test_num_chunks_and_unknown_fields_change_nothing(http: httpx.Client) -> None:
    plain = generated(http, b"chunks")
    assert generated(http, b"chunks", num_chunks=1000, unheard_of=[1]) == plain


def test_an_obj_is_one_text_file(http: httpx.Client) -> None:
    response = http.post("/generate", json=ask(b"text file", type="obj"))
    assert response.headers["content-type"].startswith("model/obj")
    assert mirror.told(response.content)["format"] == "obj"
    sent = http.post("/send", json=ask(b"text file", type="obj")).json()
    assert base64.b64decode(ended(http, sent["uid"])["model_base64"]) == response.content


def test_another_seed_is_another_mesh_and_the_same_seed_the_same(http: httpx.Client) -> None:
    one, again, two = (generated(http, b"seeds", seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert (one["seed"], two["seed"]) == (1, 2)


def test_a_data_url_and_image_front_are_pictures_too(http: httpx.Client) -> None:
    encoded = base64.b64encode(b"forms").decode()
    told = generated(http, b"forms")
    for body in ({"image": f"data:image/png;base64,{encoded}"}, {"image_front": encoded}):
        assert mirror.told(http.post("/generate", json=body).content) == told


def test_send_and_status_end_with_the_model(http: httpx.Client) -> None:
    response = http.post("/send", json=ask(b"later", seed=7))
    assert response.status_code == 200
    assert set(response.json()) == {"uid"}
    uid = response.json()["uid"]
    assert str(uuid.UUID(uid)) == uid
    end = ended(http, uid)
    assert end["status"] == "completed"
    assert mirror.told(base64.b64decode(end["model_base64"]))["seed"] == 7


def test_an_unknown_uid_is_404_and_says_error(http: httpx.Client) -> None:
    for uid in (str(uuid.uuid4()), "nonsense", "..%2f..%2fetc%2fpasswd"):
        response = http.get(f"/status/{uid}")
        assert response.status_code == 404, uid
    assert http.get(f"/status/{uuid.uuid4()}").json()["status"] == "error"


def lost(http: httpx.Client, folder: Path, uid: str) -> None:
    """Take every copy of that job's result away, so that it has to be made again."""
    document = http.get(f"/v1/generations/{uuid.UUID(uid).hex}").json()
    assert http.delete(f"/v1/cache/{document['key']}").status_code == 204
    (folder / "data" / "jobs" / "results" / document["digest"]).unlink()


def test_a_result_that_cannot_be_made_again_yet_is_still_processing(tmp_path: Path) -> None:
    with serving(tmp_path, {"mirror": mirror.ENGINE}, engine="mirror") as http:
        uid = http.post("/send", json=ask(b"again")).json()["uid"]
        end = ended(http, uid)
        lost(http, tmp_path, uid)
        http.post("/v1/operations/intake", json={"paused": True})
        response = http.get(f"/status/{uid}")
        assert response.json() == {"status": "processing"}
        assert int(response.headers["retry-after"]) > 0
        http.post("/v1/operations/intake", json={"paused": False})
        assert ended(http, uid) == end


@pytest.mark.parametrize(("picture", "said"), [(b"bad one", "it shows nothing"), (b"bug one", "ZeroDivisionError")])
def test_a_failed_job_says_so(http: httpx.Client, picture: bytes, said: str) -> None:
    end = ended(http, http.post("/send", json=ask(picture)).json()["uid"])
    assert end["status"] == "error"
    assert said in end["message"]
    assert "model_base64" not in end
    refused = http.post("/generate", json=ask(picture))
    assert refused.status_code >= 400
    assert refused.json()["error_code"] == 1
    assert said in refused.json()["text"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (ask(b"x", num_inference_steps=0), 422, "num_inference_steps"),
        (ask(b"x", num_inference_steps="many"), 422, "num_inference_steps"),
        (ask(b"x", octree_resolution=513), 422, "octree_resolution"),
        (ask(b"x", guidance_scale=-1), 422, "guidance_scale"),
        (ask(b"x", seed=-1), 422, "seed"),
        (ask(b"x", seed=2**32), 422, "seed"),
        (ask(b"x", texture="perhaps"), 422, "texture"),
        (ask(b"x", type="exe"), 422, "type"),
        (ask(b"x", mesh="AAAA"), 422, "mesh"),
        ({"text": "a chair"}, 422, "picture"),
        ({}, 400, "image"),
        ({"image": 5}, 400, "image"),
        ({"image": "?"}, 400, "base64"),
        ([], 400, "object"),
    ],
)
def test_what_cannot_be_done_is_refused_by_their_name_of_it(
    http: httpx.Client, body: object, status: int, said: str
) -> None:
    for path in ("/generate", "/send"):
        response = http.post(path, json=body)
        assert response.status_code == status
        assert response.json()["error_code"] == 1
        assert said in response.json()["text"]


def test_an_empty_prompt_beside_a_picture_is_no_prompt(http: httpx.Client) -> None:
    assert generated(http, b"prompt", text="", mesh=None)
    assert generated(http, b"prompt", text="a chair")


def test_too_large_a_body_is_refused(http: httpx.Client) -> None:
    assert http.post("/generate", json=ask(b"x" * 300_000)).status_code == 413


def test_status_and_health_answer_while_it_generates(http: httpx.Client, tmp_path: Path) -> None:
    with gate(tmp_path / "s") as listening, ThreadPoolExecutor(1) as pool:
        blocking = pool.submit(generated, http, b"wait " + bytes(tmp_path / "s"))
        inside, _ = listening.accept()  # the worker is in the stage, and stays there
        with inside:
            waiting = http.post("/send", json=ask(b"behind it")).json()["uid"]
            assert http.get("/health").json()["status"] == "healthy"
            assert http.get(f"/status/{waiting}").json() == {"status": "processing"}
            assert not blocking.done()
            inside.send(b".")
        assert blocking.result(40)["seed"] == 1234
    assert ended(http, waiting)["status"] == "completed"


def test_generate_and_the_own_api_share_what_is_stored(http: httpx.Client) -> None:
    generated(http, b"shared", seed=3)
    query = "seed=3&steps=5&guidance_scale=5&octree_resolution=256&faces=40000&wait=30"
    document = http.post(f"/v1/generations?{query}", content=b"shared", headers={"content-type": "image/png"}).json()
    assert document["saved_seconds"] == pytest.approx(document["cost_seconds"])
    assert document["id"].startswith("k"), "it was stored, and no job was made"


def test_health_tells_the_worker_and_a_model_that_lasts(http: httpx.Client) -> None:
    health = http.get("/health").json()
    assert {"status", "worker_id"} <= set(health)
    assert health["model"].startswith("mirror-")
    assert http.get("/health").json() == health
