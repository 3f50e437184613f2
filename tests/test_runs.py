"""Whose turn it is, whom a run serves, and what is served before a newcomer. Without a server."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toy
from meshkiln.gateway.admission import Admission
from meshkiln.gateway.estimates import Estimated, Estimates, Scale
from meshkiln.gateway.flows import Flows, Place
from meshkiln.gateway.job import Ask, Job
from meshkiln.gateway.runs import Runs
from meshkiln.gateway.turns import Turns
from meshkiln.request import Request, canonical_request
from meshkiln.workers.fair import FairQueue


def request(picture: bytes) -> Request:
    return canonical_request(toy.ENGINE, picture, {})


def job(id: str, client: str = "a", deadline: float | None = None, priority: int = 0) -> Job:
    return Job(id, Ask("toy", {}), "", client, priority, deadline)


def runs(most: int = 1, joining: bool = True) -> Runs:
    return Runs(most, Estimates(lambda stage, parameters: 0.5), joining)


# Turns.


def order(turns: Turns[str]) -> list[str]:
    told = turns.first(len(turns))
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


def test_who_does_not_wait_has_no_place() -> None:
    turns: Turns[str] = Turns()
    turns.add("there", "a")
    with pytest.raises(KeyError):
        turns.before("elsewhere", lambda item: 1.0)


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
    assert turns.first(len(turns)) == by_rounds(lines)


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
