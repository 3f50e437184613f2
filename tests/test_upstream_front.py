"""A server of ours in front of another, by the engine `upstream`."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import mirror
from misbehaving import MESH, Answer, Peer, peer, well
from serving import serving, until


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("behind"), {"mirror": mirror.ENGINE}, engine="mirror") as client:
        yield client


@pytest.fixture(scope="module")
def front(behind: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    url = str(behind.base_url)
    with serving(tmp_path_factory.mktemp("front"), {}, engine="upstream", upstreams=(url,)) as client:
        yield client


def post(http: httpx.Client, picture: bytes, query: str = "wait=30") -> dict[str, Any]:
    document: dict[str, Any] = http.post(
        f"/v1/generations?{query}", content=picture, headers={"content-type": "image/png"}
    ).json()
    return document


def made_by(http: httpx.Client) -> int:
    """How many generations a server has been asked for and accepted."""
    return len(http.get("/v1/generations?limit=200").json()["generations"])


def test_a_picture_goes_through_and_is_kept_on_this_side(front: httpx.Client, behind: httpx.Client) -> None:
    first = post(front, b"through", "wait=30&seed=9&num_inference_steps=20")
    assert first["state"] == "succeeded", first
    told = mirror.told(front.get(first["links"]["artifact"]).content)
    assert (told["seed"], told["steps"], told["octree_resolution"]) == (9, 20, 256)
    before = made_by(behind)
    again = post(front, b"through", "wait=30&seed=9&num_inference_steps=20")
    assert again["key"] == first["key"]
    assert again["saved_seconds"] == pytest.approx(again["cost_seconds"])
    assert made_by(behind) == before


def test_the_hunyuan3d_api_in_front_of_the_hunyuan3d_api(front: httpx.Client, behind: httpx.Client) -> None:
    body = {"image": base64.b64encode(b"twice").decode(), "seed": 4, "type": "obj", "remove_background": False}
    through = front.post("/generate", json=body)
    assert through.status_code == 200, through.text
    assert through.content == behind.post("/generate", json=body).content
    told = mirror.told(through.content)
    assert (told["seed"], told["matte"]) == (4, "alpha")


def test_many_who_ask_for_one_picture_cost_the_upstream_one(front: httpx.Client, behind: httpx.Client) -> None:
    before = made_by(behind)
    with ThreadPoolExecutor(20) as pool:
        documents = list(pool.map(lambda _: post(front, b"crowd"), range(20)))
    assert {document["state"] for document in documents} == {"succeeded"}
    assert made_by(behind) == before + 1


def test_what_the_upstream_says_of_a_bad_picture_is_passed_on(front: httpx.Client) -> None:
    failed = post(front, b"bad one")
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "urn:meshkiln:problem:bad-picture"
    assert "it shows nothing" in failed["error"]["detail"]


def test_when_the_upstream_is_gone_stored_answers_are_still_served(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one: Peer = stack.enter_context(peer(well))
        settings = {"engine": "upstream", "upstreams": (one.url,), "upstream_model": "m"}
        front = stack.enter_context(serving(tmp_path, {}, **settings))
        kept = post(front, b"kept")
        assert kept["state"] == "succeeded", kept
        one.server.shutdown()
        one.server.server_close()
        failed = post(front, b"new")
        assert failed["state"] == "failed"
        assert failed["error"]["type"] == "urn:meshkiln:problem:upstreams-down"
        assert one.url in failed["error"]["detail"]
        assert post(front, b"kept")["key"] == kept["key"]
        assert front.get(kept["links"]["artifact"]).content == MESH
        metrics = front.get("/metrics").text
        assert f'meshkiln_upstream_serving{{upstream="{one.url}"}} 0.0' in metrics
        assert f'meshkiln_upstream_answers_total{{outcome="done",upstream="{one.url}"}} 1.0' in metrics
        body = {"image": base64.b64encode(b"newer").decode()}
        assert front.post("/generate", json=body).status_code == 503


def test_a_picture_the_upstream_was_at_is_made_after_a_restart(tmp_path: Path) -> None:
    begun, answer_now = threading.Event(), threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        begun.set()
        answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one:
        settings = {"engine": "upstream", "upstreams": (one.url,), "upstream_model": "m", "shutdown_seconds": 0.1}
        with serving(tmp_path, {}, **settings) as front:
            accepted = post(front, b"unfinished", "")
            begun.wait(30)
        answer_now.set()
        with serving(tmp_path, {}, **settings) as front:
            until(lambda: front.get(accepted["links"]["self"]).json()["state"] == "succeeded")


def test_draining_a_worker_changes_nothing_for_who_waits_for_upstreams(tmp_path: Path) -> None:
    answer_now = threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        assert document.get("image") == base64.b64encode(b"first").decode() or answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one, peer(slow) as other:
        # As many places as workers: by their number alone they are not told apart.
        settings = {"engine": "upstream", "upstreams": (one.url, other.url), "upstream_model": "m", "workers": 2}
        with serving(tmp_path, {}, **settings) as front:
            assert post(front, b"first")["state"] == "succeeded"  # what one takes is known from then on
            post(front, b"waited for", "")

            def at_one_time() -> float:
                queue = front.get("/v1/operations").json()["queue"]
                return round(queue["work_seconds"] / queue["wait_seconds"], 3)

            assert at_one_time() == 2
            assert front.post("/v1/operations/workers/0", json={"drained": True}).status_code == 200
            assert at_one_time() == 2
            answer_now.set()
