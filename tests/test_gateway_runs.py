"""Turns, runs and admission through HTTP: fair between clients, one run for one request, refusals that say when to come
back. With a worker that stands at a gate; what needs no server is in test_runs.py."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gate import Gate
from meshkiln.gateway import bodies, hunyuan3d
from meshkiln.gateway.jobs import Jobs
from meshkiln.gateway.service import AT_ONCE
from meshkiln.gateway.uploads import Uploads
from serving import serving, until

PNG = {"content-type": "image/png"}


@contextmanager
def gated(folder: Path, compute: str = "wait", **settings: Any) -> Iterator[tuple[httpx.Client, Gate]]:
    gate = Gate(folder / "gate")
    engine = gate.engine(compute)
    with serving(folder, kinds={"toy": engine}, memory=False, disk=False, batching=False, **settings) as client:
        try:
            yield client, gate
        finally:
            gate.open()


def post(client: httpx.Client, picture: bytes, query: str = "", **headers: str) -> httpx.Response:
    return client.post(f"/v1/generations?{query}", content=picture, headers={**PNG, **headers})


def test_one_generation_for_many_jobs_and_a_cancelled_one_leaves_the_others(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate):
        locations = [post(client, b"same").headers["location"] for _ in range(5)]
        until(lambda: gate.waiting() == 1)
        assert client.delete(locations[0]).json()["state"] == "cancelled"
        gate.open()
        until(lambda: all(client.get(path).json()["state"] == "succeeded" for path in locations[1:]))
        assert client.get(locations[0]).json()["state"] == "cancelled"
        assert gate.passed() == ["same"]


def counted(client: httpx.Client, outcome: str) -> float:
    found = re.search(rf'meshkiln_generation_seconds_count{{outcome="{outcome}"}} (\S+)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_who_is_cancelled_twice_at_once_is_counted_once(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, _):
        location = post(client, b"cancelled").headers["location"]
        with ThreadPoolExecutor(8) as several:
            answers = list(several.map(lambda _: client.delete(location).json()["state"], range(8)))
        assert answers == ["cancelled"] * 8
        assert counted(client, "cancelled") == 1


BODY = b"a picture " * 20_000


@pytest.mark.parametrize("way", ["picture", "json", "form", "theirs"])
def test_who_waits_holds_no_picture_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    held: set[int] = set()

    class Held(bytes):
        """Bytes that are known to be there as long as somebody has them."""

        def __new__(cls, data: bytes) -> Held:
            made = super().__new__(cls, data)
            held.add(id(made))
            return made

        def __del__(self) -> None:
            held.discard(id(self))

    body, decode = Uploads.body, bodies.decoded

    async def receiving(*given: Any) -> bytes:
        return Held(await body(*given))

    def decoding(image: object) -> bytes:
        return Held(decode(image))

    monkeypatch.setattr(Uploads, "body", receiving)
    monkeypatch.setattr(bodies, "decoded", decoding)
    monkeypatch.setattr(hunyuan3d, "decoded", decoding)
    text = {"image": base64.b64encode(BODY).decode()}
    with ThreadPoolExecutor(1) as other, gated(tmp_path) as (client, gate):
        path, asked = {
            "picture": ("/v1/generations?wait=30", {"content": BODY, "headers": PNG}),
            "json": ("/v1/generations?wait=30", {"json": text}),
            "form": ("/v1/generations?wait=30", {"files": {"image": BODY}}),
            "theirs": ("/generate", {"json": text}),
        }[way]
        answer = other.submit(client.post, path, **asked)
        until(lambda: gate.waiting() == 1)
        until(lambda: not held, 5.0)
        assert not answer.done()
        gate.open()
        assert answer.result().status_code == 200


def test_bodies_are_bounded_together_until_they_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, accept = threading.Event(), Jobs.accept

    def slow(*given: Any, **named: Any) -> Any:
        assert taken.wait(30)
        return accept(*given, **named)

    monkeypatch.setattr(Jobs, "accept", slow)
    with ThreadPoolExecutor(2) as others, gated(tmp_path, upload_bytes=250_000) as (client, _):
        try:
            first = [others.submit(post, client, b"%d" % number * 100_000) for number in range(2)]
            until(lambda: post(client, b"third" * 20_000, "steps=none").status_code == 503, 5.0)
        finally:
            taken.set()
        assert [one.result().status_code for one in first] == [202, 202]
        assert post(client, b"fourth" * 20_000).status_code == 202


def test_through_http_too_one_picture_is_not_behind_a_hundred_of_another_client(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate):
        gate.open()
        assert post(client, b"measured", "wait=30").json()["state"] == "succeeded"  # costs are known
        gate.close()
        theirs = [post(client, b"theirs%d" % number).headers["location"] for number in range(100)]
        until(lambda: gate.waiting() == 1)
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=client.base_url, transport=elsewhere) as other:
            mine = post(other, b"mine").headers["location"]
        until(lambda: client.get(mine).json()["state"] == "running")  # though as many as may be are in the kiln
        assert client.get(theirs[-1]).json()["position"] > 80
        gate.open()
        until(lambda: client.get(theirs[-1]).json()["state"] == "succeeded")
        until(lambda: client.get(mine).json()["state"] == "succeeded")
        # In the order of work, only what was in the kiln already came before it, and not all of that.
        assert gate.passed().index("mine") <= AT_ONCE


def test_who_joins_when_half_of_it_is_done_is_told_where_it_stands(tmp_path: Path) -> None:
    with gated(tmp_path, "wait_half_way") as (client, gate):
        first = post(client, b"same", "steps=8").headers["location"]
        with client.stream("GET", f"{first}/events") as stream:
            next(line for line in stream.iter_lines() if '"step": 4' in line)
        late = post(client, b"same", "steps=8").headers["location"]
        with client.stream("GET", f"{late}/events") as stream:
            lines = stream.iter_lines()
            told = []
            while not told or told[-1] != {"stage": "grow", "step": 4, "steps": 8}:
                line = next(lines)
                told += [json.loads(line.removeprefix("data: "))] if line.startswith("data: ") else []
            # All of this before the gate is opened.
            assert told[0] == {"state": "queued", "joined": True}
            done = [event["stage"] for event in told if event.get("state") == "done"]
            assert done == ["read", "smooth"]
            assert {"stage": "grow", "state": "begun"} in told
            gate.open()
            rest = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert {"stage": "grow", "step": 8, "steps": 8} in rest
        assert rest[-1]["state"] == "succeeded"
        assert client.get(late).json()["key"] == client.get(first).json()["key"]


def test_who_is_cancelled_while_running_frees_the_place(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate):
        first = post(client, b"first").headers["location"]
        until(lambda: gate.waiting() == 1)
        assert client.delete(first).json()["state"] == "cancelled"
        second = post(client, b"second").headers["location"]
        until(lambda: client.get(second).json()["state"] in ("running", "queued"))
        gate.open()
        until(lambda: client.get(second).json()["state"] == "succeeded")
        assert client.delete(second).json()["state"] == "succeeded"  # the first end counts


def test_a_deadline_ends_a_job_that_waits_and_spares_the_worker(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate):
        post(client, b"first")
        until(lambda: gate.waiting() == 1)
        late = post(client, b"late", "timeout=0.2").headers["location"]
        patient = post(client, b"late").headers["location"]
        until(lambda: client.get(late).json()["state"] == "failed")
        assert client.get(late).json()["error"]["type"].endswith("deadline-passed")
        assert client.get(patient).json()["state"] in ("queued", "running")
        gate.open()
        until(lambda: client.get(patient).json()["state"] == "succeeded")


def measured(client: httpx.Client, gate: Gate, query: str = "", seconds: float = 1.0) -> float:
    """Compute seconds of a generation, so many at least; the gate is closed before and after."""
    location = post(client, b"measured", query).headers["location"]
    until(lambda: gate.waiting() == 1)
    time.sleep(seconds)
    gate.open()
    until(lambda: client.get(location).json()["state"] == "succeeded")
    gate.close()
    cost: float = client.get(location).json()["cost_seconds"]
    return cost


@contextmanager
def elsewhere(client: httpx.Client) -> Iterator[httpx.Client]:
    """Another client of the same server."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=client.base_url, transport=transport) as other:
        yield other


def test_a_deadline_is_refused_by_the_fair_turn_and_not_by_all_that_waits(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate), elsewhere(client) as other:
        cost = measured(client, gate)
        for number in range(50):
            assert post(client, b"theirs%d" % number).status_code == 202
        until(lambda: gate.waiting() == 1)
        last = client.get("/v1/generations?limit=1").json()["generations"][0]
        assert (last["state"], last["position"]) == ("queued", 50 - AT_ONCE)
        assert last["estimated_seconds"] == pytest.approx(50 * cost, rel=0.05)
        with client.stream("GET", last["links"]["events"]) as events:
            told = [line for line, _ in zip(events.iter_lines(), range(8), strict=False)]
        assert "event: queue" in told
        assert f'data: {{"position": {50 - AT_ONCE}}}' in told
        # One of theirs comes before it, and not fifty.
        refused = post(other, b"mine", f"timeout={1.5 * cost}")
        assert (refused.status_code, refused.json()["type"]) == (504, "urn:meshkiln:problem:deadline-passed")
        told = re.findall(r"in about (\S+) s", refused.json()["detail"])
        assert float(told[0]) == pytest.approx(2 * cost, abs=0.2)
        assert post(other, b"mine", f"timeout={3 * cost}").status_code == 202
        # Who has fifty waiting comes after his own, unless this one is more urgent to him than they are.
        assert post(client, b"fifty-first", f"timeout={20 * cost}").status_code == 504
        assert post(client, b"urgent", f"timeout={20 * cost}&priority=3").status_code == 202


def test_who_joins_is_judged_by_what_is_left_of_it(tmp_path: Path) -> None:
    with gated(tmp_path, "wait_half_way") as (client, gate):
        cost = measured(client, gate, "steps=8", 2.0)
        made = post(client, b"same", "steps=8").headers["location"]
        with client.stream("GET", f"{made}/events") as stream:
            next(line for line in stream.iter_lines() if '"step": 4' in line)
        # Half of it is to come: that is too late for the one, and soon enough for the other.
        refused = post(client, b"same", f"steps=8&timeout={0.3 * cost}")
        assert (refused.status_code, refused.json()["type"]) == (504, "urn:meshkiln:problem:deadline-passed")
        told = re.findall(r"in about (\S+) s", refused.json()["detail"])
        assert float(told[0]) == pytest.approx(cost / 2, abs=0.1)
        assert post(client, b"same", f"steps=8&timeout={0.9 * cost}").status_code == 202
        # What waits is all to come, after what is being made.
        for number in range(AT_ONCE):
            assert post(client, b"other%d" % number, "steps=8").status_code == 202
        waits = client.get("/v1/generations?limit=1").json()["generations"][0]
        assert waits["state"] == "queued"
        last = b"other%d" % (AT_ONCE - 1)
        assert post(client, last, f"steps=8&timeout={3 * cost}").status_code == 504
        assert post(client, last, f"steps=8&timeout={(AT_ONCE + 2) * cost}").status_code == 202
        # Asked for by somebody else, it is his first.
        with elsewhere(client) as other:
            assert post(other, last, f"steps=8&timeout={3 * cost}").status_code == 202


def test_a_stage_without_steps_may_be_nearly_done(tmp_path: Path) -> None:
    with gated(tmp_path) as (client, gate):
        cost = measured(client, gate)
        post(client, b"same")
        until(lambda: gate.waiting() == 1)
        assert post(client, b"same", f"timeout={0.2 * cost}").status_code == 504
        until(lambda: post(client, b"same", f"timeout={0.2 * cost}").status_code == 202)


def test_a_deadline_that_the_fair_turn_meets_is_met_behind_fifty(tmp_path: Path) -> None:
    with gated(tmp_path, "linger") as (client, _), elsewhere(client) as other:
        cost = post(client, b"measured", "wait=30").json()["cost_seconds"]
        theirs = [post(client, b"theirs%d" % number).headers["location"] for number in range(50)]
        mine = post(other, b"mine", f"timeout={20 * cost}")
        assert mine.status_code == 202
        until(lambda: client.get(mine.headers["location"]).json()["state"] == "succeeded")
        assert client.get(theirs[-1]).json()["state"] == "queued"
        for location in theirs:
            client.delete(location)


def test_a_deadline_is_judged_by_what_has_to_run(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, kinds={"toy": gate.engine()}) as client:
        cost = measured(client, gate)
        assert post(client, b"other", f"timeout={0.9 * cost}").status_code == 504
        # Of this one all is stored but the export, which takes no time.
        stl = post(client, b"measured", f"timeout={0.9 * cost}&format=stl&wait=30")
        assert stl.json()["state"] == "succeeded"


def test_a_full_queue_refuses_what_is_new_says_when_and_still_answers(tmp_path: Path) -> None:
    with gated(tmp_path, queue_generations=3) as (client, gate):
        posted: list[httpx.Response] = []
        while len(posted) < 200 and (not posted or posted[-1].status_code == 202):
            posted.append(post(client, b"new%d" % len(posted)))
        refused = posted[-1]
        assert refused.status_code == 503
        assert refused.json()["type"].endswith("queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        # Joining what is being made costs nothing, and is not refused.
        assert post(client, b"new0").status_code == 202
        assert client.get("/healthz").status_code == 200
        gate.open()
        accepted = [response.headers["location"] for response in posted[:-1]]
        until(lambda: all(client.get(path).json()["state"] == "succeeded" for path in accepted))
        assert post(client, b"again").status_code == 202


def test_a_full_queue_still_answers_what_is_stored(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, kinds={"toy": gate.engine()}, queue_generations=1) as client:
        gate.open()
        stored = post(client, b"stored", "wait=30").json()
        gate.close()
        try:
            until(lambda: post(client, b"x%d" % gate.tick()).status_code == 503)
            again = post(client, b"stored")
            assert (again.status_code, again.json()["key"]) == (200, stored["key"])
            assert client.get(stored["links"]["artifact"]).status_code == 200
        finally:
            gate.open()


def test_work_that_waits_too_long_is_refused_by_its_seconds(tmp_path: Path) -> None:
    with gated(tmp_path, queue_seconds=0.001) as (client, gate):
        gate.open()
        assert post(client, b"measured", "wait=30").json()["state"] == "succeeded"
        gate.close()
        until(lambda: post(client, b"x%d" % gate.tick()).status_code == 503)
        refused = post(client, b"refused")
        assert refused.status_code == 503
        assert float(refused.headers["retry-after"]) <= 2  # a toy's generations take milliseconds
