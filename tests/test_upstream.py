"""The engine `upstream` in front of peers that misbehave, and its description."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from meshkiln import Kiln
from meshkiln.engines import upstream
from meshkiln.engines.base import engines
from meshkiln.engines.upstream.call import Question, Trouble, checked
from meshkiln.engines.upstream.upstreams import Patient, Upstreams
from meshkiln.errors import (
    BadParameter,
    Cancelled,
    DeadlinePassed,
    PoolClosed,
    QueueFull,
    UpstreamFailed,
    UpstreamsDown,
)
from meshkiln.settings import Settings
from meshkiln.store.memory import Memory
from misbehaving import MESH, Answer, free_port, peer, well
from serving import until

FAILED = (404, b'{"text": "NETWORK ERROR DUE TO HIGH TRAFFIC", "error_code": 1}')
"""What both servers answer when anything at all goes wrong."""


def question(picture: bytes = b"chair", **parameters: Any) -> Question:
    return Question.of(picture, upstream.describe("m").canonical(parameters))


def once(first: Answer) -> Callable[[str, dict[str, Any]], Answer]:
    """Answers `first`, and after that well."""
    given = iter([first])
    return lambda path, document: next(given, (200, MESH))


@pytest.fixture
def asking() -> Iterator[Callable[..., Upstreams]]:
    with ExitStack() as stack:

        def make(*urls: str, **settings: Any) -> Upstreams:
            upstreams = Upstreams(urls, **{"timeout": 20.0, **settings})
            stack.callback(upstreams.close)
            return upstreams

        yield make


def test_every_parameter_is_sent_by_the_name_that_the_servers_know(asking: Callable[..., Upstreams]) -> None:
    with peer(well) as one:
        data, seconds = asking(one.url + "/").run(question(b"chair", seed=7, texture=True))
    assert data == MESH
    assert 0 < seconds < 20
    ((path, sent),) = one.asked
    assert path == "/generate"
    assert base64.b64decode(sent.pop("image")) == b"chair"
    assert sent == {
        "seed": 7,
        "octree_resolution": 256,
        "num_inference_steps": 5,
        "guidance_scale": 5.0,
        "face_count": 40000,
        "remove_background": True,
        "texture": True,
        "type": "glb",
    }


def test_send_and_status_are_asked_until_it_is_done(asking: Callable[..., Upstreams]) -> None:
    states = iter(["processing", "texturing", "completed"])
    steps: list[tuple[int, int]] = []

    def answer(path: str, document: dict[str, Any]) -> Answer:
        if path == "/send":
            return 200, b'{"uid": "0b5e-1"}'
        assert path == "/status/0b5e-1"
        told = {"status": next(states), "model_base64": base64.b64encode(MESH).decode()}
        return 200, json.dumps(told).encode()

    with peer(answer) as one:
        data, _ = asking(one.url, polling=True).run(question(), None, lambda *step: steps.append(step))
    assert data == MESH
    assert steps == [(1, 2)]


def test_a_status_that_is_not_told_once_costs_no_second_generation(asking: Callable[..., Upstreams]) -> None:
    done = {"status": "completed", "model_base64": base64.b64encode(MESH).decode()}
    states: Iterator[Answer] = iter([None, (200, b'{"status": "processing"}'), None, (200, json.dumps(done).encode())])
    with peer(lambda path, _: (200, b'{"uid": "1"}') if path == "/send" else next(states)) as one:
        assert asking(one.url, polling=True).run(question())[0] == MESH
        assert one.generated == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_does_not_reach_the_upstream_for_a_moment_costs_no_second_generation(
    asking: Callable[..., Upstreams], status: int
) -> None:
    done = json.dumps({"status": "completed", "model_base64": base64.b64encode(MESH).decode()}).encode()
    states: Iterator[Answer] = iter([(status, b"<html>Bad Gateway</html>"), (200, done), (200, done)])
    with peer(lambda path, _: (200, b'{"uid": "1"}') if path == "/send" else next(states)) as one:
        assert asking(one.url, polling=True).run(question())[0] == MESH
        assert one.generated == 1


def test_a_job_that_a_restarted_upstream_has_forgotten_is_sent_again(asking: Callable[..., Upstreams]) -> None:
    done = {"status": "completed", "model_base64": base64.b64encode(MESH).decode()}
    forgotten = (404, b'{"status": "error", "message": "no job has this uid"}')
    states: Iterator[Answer] = iter([forgotten, (200, json.dumps(done).encode())])
    with peer(lambda path, _: (200, b'{"uid": "1"}') if path == "/send" else next(states)) as one:
        assert asking(one.url, polling=True).run(question())[0] == MESH
        assert one.generated == 2


def test_a_job_that_never_ends_is_given_up(asking: Callable[..., Upstreams]) -> None:
    def answer(path: str, document: dict[str, Any]) -> Answer:
        return (200, b'{"uid": "1"}') if path == "/send" else (200, b'{"status": "processing"}')

    with peer(answer) as one, pytest.raises(UpstreamFailed, match=r"did not answer within 0\.3 s"):
        asking(one.url, polling=True, timeout=0.3).run(question())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"status": "error", "message": "no subject"}, "no subject"),
        ({"status": "completed"}, "sends no mesh"),
        ({"status": "completed", "model_base64": base64.b64encode(MESH[:-1]).decode()}, "of a GLB"),
        ({"state": "?"}, "tells no status"),
        ([], "no JSON object"),
    ],
)
def test_a_status_that_is_no_good_is_told(asking: Callable[..., Upstreams], status: object, words: str) -> None:
    def answer(path: str, document: dict[str, Any]) -> Answer:
        return 200, (b'{"uid": "1"}' if path == "/send" else json.dumps(status).encode())

    with peer(answer) as one, pytest.raises(UpstreamFailed, match=words):
        asking(one.url, polling=True).run(question())


@pytest.mark.parametrize(
    "broken",
    [
        None,  # hangs up
        (200, MESH[:40], {"Content-Length": str(len(MESH))}),  # half a body
        (200, MESH[:40]),  # half a mesh
        (200, b""),
        (200, b"<html>a proxy's page</html>"),
        (500, b"Internal Server Error"),
        FAILED,
    ],
)
def test_what_goes_wrong_once_is_tried_again(asking: Callable[..., Upstreams], broken: Answer) -> None:
    with peer(once(broken)) as one:
        assert asking(one.url).run(question())[0] == MESH
        assert one.generated == 2


def test_a_second_upstream_is_asked_before_the_first_is_asked_again(asking: Callable[..., Upstreams]) -> None:
    with peer(lambda *_: None) as bad, peer(well) as good:
        assert asking(bad.url, good.url).run(question())[0] == MESH
    assert (bad.generated, good.generated) == (1, 1)


def test_a_picture_that_two_answers_say_fails_is_given_up(asking: Callable[..., Upstreams]) -> None:
    with peer(lambda *_: FAILED) as one, pytest.raises(UpstreamFailed, match="answered 404: NETWORK ERROR"):
        asking(one.url).run(question())
    assert one.generated == 2


def test_what_the_upstream_refuses_is_the_callers_mistake_and_asked_once(asking: Callable[..., Upstreams]) -> None:
    # As FastAPI answers for the 2.1 schema.
    said = {"detail": [{"loc": ["body", "num_inference_steps"], "msg": "Input should be less than or equal to 20"}]}
    with peer(lambda *_: (422, json.dumps(said).encode())) as one:
        with pytest.raises(BadParameter, match=r"body\.num_inference_steps: Input should be less"):
            asking(one.url).run(question())
        assert one.generated == 1


def test_a_server_that_is_none_is_named(asking: Callable[..., Upstreams]) -> None:
    with peer(lambda *_: (404, b'{"detail":"Not Found"}')) as one, pytest.raises(UpstreamFailed, match=one.url):
        asking(one.url).run(question())


def test_a_deadline_ends_the_wait_for_a_slow_one(asking: Callable[..., Upstreams]) -> None:
    answer_now = threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one:
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            asking(one.url).run(question(), Patient(deadline=began + 0.3))
        assert 0.3 <= time.monotonic() - began < 5
        answer_now.set()


def test_when_nobody_waits_any_more_its_place_is_free_for_the_next(asking: Callable[..., Upstreams]) -> None:
    first, answer_now = threading.Event(), threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        if not first.is_set():
            first.set()
            answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one:
        upstreams = asking(one.url)
        with pytest.raises(Cancelled):
            upstreams.run(question(), Patient(cancelled=True))
        assert upstreams.run(question(b"next"))[0] == MESH
        answer_now.set()


def test_one_that_cannot_be_reached_is_passed_over_at_once(asking: Callable[..., Upstreams]) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with peer(well) as one:
        upstreams = asking(away, one.url)
        for _ in range(4):
            assert upstreams.run(question())[0] == MESH
        gone, there = upstreams.stats()
    assert (gone.serving, gone.failed, gone.ejected) == (False, 1, 1)
    assert (there.serving, there.done, there.failed) == (True, 4, 0)


def test_when_all_are_down_it_is_said_at_once_and_by_name(asking: Callable[..., Upstreams]) -> None:
    away = f"http://user:secret@127.0.0.1:{free_port()}"
    upstreams = asking(away)
    for _ in range(2):
        with pytest.raises(UpstreamsDown, match="cannot be reached") as told:
            upstreams.run(question())
        assert "secret" not in str(told.value)
        assert told.value.retry_after > 0


def test_one_that_comes_back_is_asked_again(asking: Callable[..., Upstreams]) -> None:
    port = free_port()
    upstreams = asking(f"http://127.0.0.1:{port}")
    with pytest.raises(UpstreamsDown):
        upstreams.run(question())
    with peer(well, port):
        until(lambda: upstreams.stats()[0].serving)
        assert upstreams.run(question())[0] == MESH


def test_three_failures_in_a_row_take_one_out_of_service(asking: Callable[..., Upstreams]) -> None:
    with peer(lambda *_: FAILED) as bad, peer(well) as good:
        upstreams = asking(bad.url, good.url)
        for _ in range(10):
            assert upstreams.run(question())[0] == MESH
        assert not upstreams.stats()[0].serving
        assert bad.generated == 3


def test_a_busy_one_is_left_alone_and_stays_in_service(asking: Callable[..., Upstreams]) -> None:
    with peer(lambda *_: (503, b"{}", {"Retry-After": "60"})) as busy, peer(well) as free:
        upstreams = asking(busy.url, free.url)
        for _ in range(3):
            assert upstreams.run(question())[0] == MESH
        assert upstreams.stats()[0].serving
    assert busy.generated == 1


def test_a_busy_one_that_says_to_come_back_at_once_is_not_asked_without_a_pause(
    asking: Callable[..., Upstreams],
) -> None:
    with peer(lambda path, document: (503, b"full", {"Retry-After": "0"})) as one:
        with pytest.raises(QueueFull):
            asking(one.url, timeout=1.0).run(question())
        assert one.generated <= 4


def test_each_is_asked_for_as_many_as_it_may_be_and_the_idle_one_first(asking: Callable[..., Upstreams]) -> None:
    both = threading.Barrier(2)

    def together(path: str, document: dict[str, Any]) -> Answer:
        both.wait(30)  # passes only when both peers are asked at one time
        return 200, MESH

    with peer(together) as one, peer(together) as two, ThreadPoolExecutor(8) as pool:
        upstreams = asking(one.url, two.url)
        made = list(pool.map(lambda index: upstreams.run(question(b"%d" % index))[0], range(8)))
    assert made == [MESH] * 8
    assert (one.most, two.most) == (1, 1)
    assert (one.generated, two.generated) == (4, 4)


def test_the_higher_priority_is_asked_first(asking: Callable[..., Upstreams]) -> None:
    begun, answer_now = threading.Event(), threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        begun.set()
        answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one, ThreadPoolExecutor(4) as pool:
        upstreams = asking(one.url)
        runs = [pool.submit(upstreams.run, question(b"first"))]
        begun.wait(30)
        for waiting, priority in enumerate((0, 5)):
            runs.append(pool.submit(upstreams.run, question(b"%d" % priority), Patient(priority=priority)))
            until(lambda wanted=waiting + 1: upstreams.places.waiting == wanted)
        answer_now.set()
        assert [run.result(30)[0] for run in runs] == [MESH] * 3
    assert [base64.b64decode(sent["image"]) for _, sent in one.asked] == [b"first", b"5", b"0"]


def test_closing_lets_go_of_who_waits(asking: Callable[..., Upstreams]) -> None:
    begun, answer_now = threading.Event(), threading.Event()

    def slow(path: str, document: dict[str, Any]) -> Answer:
        begun.set()
        answer_now.wait(30)
        return 200, MESH

    with peer(slow) as one, ThreadPoolExecutor(1) as pool:
        upstreams = asking(one.url)
        run = pool.submit(upstreams.run, question())
        begun.wait(30)
        upstreams.close()
        with pytest.raises(PoolClosed):
            run.result(30)
        with pytest.raises(PoolClosed):
            upstreams.run(question())
        answer_now.set()


def test_an_obj_is_no_glb() -> None:
    obj = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    assert checked(obj, "obj") == obj
    for data, format in ((MESH, "obj"), (obj, "glb"), (b"v 0 0 0\n", "obj"), (MESH + b"x", "glb")):
        with pytest.raises(Trouble):
            checked(data, format)


# The description.


def test_the_model_is_the_identity_of_what_upstreams_compute() -> None:
    (one,), (same,), (other,) = (upstream.describe(model).stages for model in ("a", "a", "b"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    settings = Settings(upstreams=("http://127.0.0.1:9",), upstream_model="a")
    assert upstream.engine_of(settings).stages[0].fingerprint == one.fingerprint, "what is stated is not asked for"


def test_without_a_server_or_a_model_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(upstream.NoUpstreams, match="--upstream http"):
        upstream.engine_of(Settings())
    with pytest.raises(upstream.NoUpstreams, match="is not a URL"):
        upstream.engine_of(Settings(upstreams=("127.0.0.1:8081",), upstream_model="m"))
    with peer(well) as one, pytest.raises(upstream.NoUpstreams, match="state it as upstream_model"):
        upstream.engine_of(Settings(upstreams=(one.url,)))
    monkeypatch.delenv("MESHKILN_UPSTREAMS", raising=False)
    assert "upstream" not in engines()


def test_it_serves_without_a_server_of_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(well) as one:
        monkeypatch.setenv("MESHKILN_UPSTREAMS", one.url)
        monkeypatch.setenv("MESHKILN_UPSTREAM_MODEL", "m")
        kiln = Kiln(upstream.ENGINE, Memory())
        assert kiln.generate(b"chair").data == MESH
        assert kiln.generate(b"chair").data == MESH
        assert one.generated == 1
