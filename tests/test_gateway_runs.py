"""Turns, runs and admission: fair between clients, one run for one request, refusals that say when to come back."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
from gate import Gate
from meshkiln.gateway.admission import Admission
from meshkiln.gateway.estimates import Estimated, Estimates, Scale
from meshkiln.gateway.flows import Flows, Place
from meshkiln.gateway.job import Ask, Job
from meshkiln.gateway.runs import Runs
from meshkiln.gateway.service import AT_ONCE
from meshkiln.gateway.turns import Turns
from meshkiln.request import Request, canonical_request
from meshkiln.workers.fair import FairQueue
from serving import serving, until

PNG = {"content-type": "image/png"}


def request(picture: bytes) -> Request:
    return canonical_request(toy.ENGINE, picture, {})


def job(id: str, client: str = "a", deadline: float | None = None, priority: int = 0) -> Job:
    return Job(id, Ask("toy", {}), "", client, priority, deadline)


def runs(most: int = 1, joining: bool = True) -> Runs:
    return Runs(most, Estimates(lambda stage, parameters: 0.5), joining)


# Turns.


def order(turns: Turns[str]) -> list[str]:
    told = list(turns)
    popped = []
    while (item := turns.pop()) is not None:
        popped.append(item)
    assert popped == told, "what is told is what happens"
    return popped


def test_one_picture_is_not_behind_five_hundred_of_another_client() -> None:
    turns: Turns[str] = Turns()
    for number in range(500):
        turns.add(f"a{number}", "a")
    turns.add("b", "b")
    assert order(turns)[:3] == ["a0", "b", "a1"]


def test_priority_comes_first_within_a_client_and_then_age() -> None:
    turns: Turns[str] = Turns()
    for item, priority in (("x", 0), ("y", 5), ("z", 5), ("w", -1)):
        turns.add(item, "a", priority)
    assert order(turns) == ["y", "z", "x", "w"]


def test_what_two_clients_want_has_the_sooner_of_their_turns() -> None:
    turns: Turns[str] = Turns()
    for item in ("a0", "a1", "shared"):
        turns.add(item, "a")
    turns.add("shared", "b")
    assert len(turns) == 3
    assert order(turns) == ["a0", "shared", "a1"]


def test_a_higher_priority_moves_forward_and_a_lower_one_does_not_move_back() -> None:
    turns: Turns[str] = Turns()
    for item in ("x", "y"):
        turns.add(item, "a")
    turns.add("y", "a", 3)
    turns.add("y", "a", -3)
    assert order(turns) == ["y", "x"]


def test_who_is_passed_over_keeps_his_place() -> None:
    turns: Turns[str] = Turns()
    for item in ("a0", "a1", "b0"):
        turns.add(item, item[0])
    assert turns.pop(but={"a"}) == "b0"
    assert turns.pop(but={"a"}) is None
    assert order(turns) == ["a0", "a1"]


def by_rounds(lines: dict[str, list[str]]) -> list[str]:
    """The order of turns, by walking all of it: the first of each line, then the second of each."""
    rounds = itertools.zip_longest(*lines.values())
    return list(dict.fromkeys(item for items in rounds for item in items if item is not None))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_place_is_what_walking_the_whole_queue_gives(data: st.DataObject) -> None:
    turns: Turns[str] = Turns()
    lines: dict[str, list[str]] = {}
    ranks: dict[tuple[str, str], int] = {}
    weights = {f"i{number}": float(number) for number in range(12)}

    def leave(item: str) -> None:
        for client in [client for client, line in lines.items() if item in line]:
            lines[client].remove(item)
            del ranks[client, item]
            if not lines[client]:
                del lines[client]

    for _ in range(data.draw(st.integers(1, 40))):
        does = data.draw(st.sampled_from(["add", "add", "add", "pop", "remove", "look"]))
        item, client = data.draw(st.sampled_from(sorted(weights))), data.draw(st.sampled_from("abcd"))
        if does == "add":
            priority = data.draw(st.integers(-1, 1))
            turns.add(item, client, priority)
            line = lines.setdefault(client, [])
            if priority > ranks.get((client, item), -9):
                if item in line:
                    line.remove(item)
                ranks[client, item] = priority
                at = sum(ranks[client, other] >= priority for other in line)
                line.insert(at, item)
        elif does == "pop":
            but = data.draw(st.sets(st.sampled_from("abcd"), max_size=2))
            first = next((client for client in lines if client not in but), None)
            assert turns.pop(but) == (None if first is None else lines[first][0])
            if first is not None:
                lines[first] = lines.pop(first)
                leave(lines[first][0])
        elif does == "remove":
            turns.remove(item)
            leave(item)
        walked = by_rounds(lines)
        if does == "look":
            assert turns.first(3) == walked[:3]
            if walked:
                place = data.draw(st.integers(0, len(walked) - 1))
                weight = sum(weights[other] for other in walked[:place])
                assert turns.before(walked[place], weights.__getitem__) == (place, weight)
    assert list(turns) == by_rounds(lines)


# Runs.


def test_a_full_kiln_still_takes_one_of_a_client_who_has_none_there_within_a_bound() -> None:
    every = runs(most=2)
    for client, count in (("a", 5), ("b", 2), ("c", 1), ("d", 1)):
        for number in range(count):
            every.join(job(f"{client}{number}", client), request(f"{client}{number}".encode()))
    begun = [run for run in (every.begin() for _ in range(8)) if run is not None]
    assert [next(iter(run.jobs)) for run in begun] == ["a0", "b0", "c0", "d0"], "twice as many as fit, and no more"
    assert every.over(begun[2])
    assert every.over(begun[3])
    assert every.begin() is None, "only clients wait who have their share in the kiln"
    assert every.over(begun[1])
    again = every.begin()
    assert again is not None
    assert next(iter(again.jobs)) == "a1"


def test_what_two_clients_want_is_worked_on_for_the_one_who_has_less_in_the_kiln() -> None:
    every = runs(most=3)
    for number in range(2):
        every.join(job(f"a{number}", "a"), request(b"%d" % number))
    every.join(job("a2", "a"), request(b"both"))
    every.join(job("b0", "b"), request(b"both"))
    begun = [run for run in (every.begin() for _ in range(3)) if run is not None]
    assert [run.client for run in begun] == ["a", "b", "a"]
    assert set(begun[1].jobs) == {"a2", "b0"}


def test_the_same_request_is_one_run_and_ends_when_nobody_waits() -> None:
    every = runs()
    run, joined = every.join(job("1"), request(b"p"))
    assert (joined, every.join(job("2"), request(b"p"))) == (False, (run, True))
    assert every.begin() is run
    assert every.leave("1") is None
    assert every.leave("2") is run
    assert len(every) == 0


def test_a_job_without_deadline_does_not_hang_on_a_run_that_has_one() -> None:
    every = runs(most=2)
    run, _ = every.join(job("1", deadline=10.0), request(b"p"))
    assert every.begin() is run
    assert every.join(job("2", deadline=9.0), request(b"p")) == (run, True)
    patient, joined = every.join(job("3"), request(b"p"))
    assert not joined
    assert every.join(job("4"), request(b"p")) == (patient, True)
    # A run that waits takes the deadline of its most patient job when it begins.
    assert every.begin() is patient
    assert patient.deadline is None


def test_places_and_seconds_are_told() -> None:
    every = runs(most=1)
    for number in range(3):
        every.join(job(str(number)), request(b"%d" % number))
    every.begin()
    assert [every.place(str(number), workers=2) for number in range(3)] == [(0, 2.0), (1, 2.0), (2, 3.0)]
    assert every.place("none", 2) is None
    assert every.seconds() == 6.0


def test_without_single_flight_every_job_has_a_run() -> None:
    every = runs(joining=False)
    assert every.join(job("1"), request(b"p"))[0] is not every.join(job("2"), request(b"p"))[0]
    assert len(every) == 2


@dataclass(eq=False)
class Item:
    """What the workers' queue knows of a generation."""

    client: str
    priority: int
    group: float
    order: tuple[float, int]
    charged: float = 0.0
    share: float = 0.0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_served_before_a_newcomer_is_what_the_workers_queue_says(data: st.DataObject) -> None:
    clients, priorities = st.sampled_from("abc"), st.integers(-1, 5)
    seconds = st.integers(0, 6).map(lambda number: number / 2)
    queue: FairQueue[Item] = FairQueue(lambda item: item.group)
    flows: Flows[Item] = Flows()
    begun = []
    for number in range(data.draw(st.integers(0, 20))):
        age = float(data.draw(st.integers(0, 5)))
        item = Item(data.draw(clients), data.draw(priorities), data.draw(seconds), (age, number))
        place = Place(item.client, item.priority, item.order)
        does = data.draw(st.sampled_from(["waits", "waits", "has begun", "left"]))
        if does == "has begun":
            begun.append((place, item.group))
        else:
            flows.put(item, Place("a", 0, (9.0, number)))  # it moves, and it may go
            flows.put(item, place)
        if does == "left":
            flows.remove(item)
        else:
            queue.push(item)
    age = data.draw(st.sampled_from([math.inf, 2.0]))
    newcomer = Item(data.draw(clients), data.draw(priorities), data.draw(seconds), (age, 100))
    queue.push(newcomer)
    place = Place(newcomer.client, newcomer.priority, newcomer.order)
    before = flows.before(place, newcomer.group, lambda item: item.group, begun)
    assert before == queue.ahead(newcomer)[1]


def admitted(waiting: int, clients: int) -> tuple[int, int]:
    """Of 21 more where so many wait: how often a stage's cost is asked for them, and how often a run is weighed."""
    asked, weighed = 0, 0

    def cost(stage: object, parameters: object) -> float:
        nonlocal asked
        asked += 1
        return 0.5

    class Counting(Scale):
        def __call__(self, run: Estimated) -> float:
            nonlocal weighed
            weighed += 1
            return super().__call__(run)

    estimates = Estimates(cost, clock=lambda: 0.0)
    estimates._scale = Counting(estimates.seconds)
    every = Runs(1, estimates)
    admission = Admission(lambda: 0.0, 1, 1e9, 10**9)

    def post(number: int) -> None:
        admission.admit(every)
        client = f"c{number % clients}"
        admission.in_time(every, client, 0, 2.0, 1e9)
        asked_for = canonical_request(toy.ENGINE, b"%d" % number, {"seed": number})
        every.join(Job(str(number), Ask("toy", {}), "", client, created=float(number)), asked_for)
        every.begin()
        for _ in every.moved(10):
            pass
        assert every.place(str(number), 1) is not None

    for number in range(waiting):
        post(number)
    asked = weighed = 0
    for number in range(waiting, waiting + 21):
        post(number)
    assert len(every) == waiting + 21
    return asked, weighed


@pytest.mark.parametrize("clients", [1, 7, 5000])
def test_admission_does_no_more_work_when_more_wait(clients: int) -> None:
    few, many = admitted(50, clients), admitted(1000, clients)
    assert many == few
    assert max(many) <= 21 * 12


# Through HTTP, with a worker that stands at a gate.


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


def measured(client: httpx.Client, gate: Gate) -> float:
    """Compute seconds of a generation, a second at least; the gate is closed before and after."""
    location = post(client, b"measured").headers["location"]
    until(lambda: gate.waiting() == 1)
    time.sleep(1.0)
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
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine("wait_half_way")}
    with serving(tmp_path, kinds=kinds, memory=False, disk=False, batching=False) as client:
        first = post(client, b"measured", "steps=8").headers["location"]
        until(lambda: client.get(first).json()["state"] == "running")
        time.sleep(2.0)
        gate.open()
        until(lambda: client.get(first).json()["state"] == "succeeded")
        gate.close()
        cost = client.get(first).json()["cost_seconds"]
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
        gate.open()


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
