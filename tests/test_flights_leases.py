"""Flights over leases: two that play two processes compute once, and leases that fail or are lost stop nobody."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flying import KEY, PATIENCE, Held, until
from meshkiln.errors import DeadlinePassed, StoreError
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Key


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(400) as pool:
        yield pool


@pytest.mark.parametrize("error", [StoreError("index is read only"), OSError("no space")])
def test_leases_that_fail_are_done_without(error: Exception) -> None:
    class Broken:
        def acquire(self, key: Key, owner: str, seconds: float) -> bool:
            raise error

        renew = acquire

        def release(self, key: Key, owner: str) -> None:
            raise error

    flights = Flights(leases=Broken())
    assert flights.run(KEY, lambda flight: 1) == 1
    assert flights.run(KEY, lambda flight: 1, found=lambda: 2) == 2
    assert flights.counts().faults == {"lease": 2}


class Shared:
    """Leases in this process's memory, for two `Flights` that play two processes."""

    def __init__(self) -> None:
        self.holders: dict[Key, str] = {}
        self.renewals: queue.Queue[str] = queue.Queue()

    def acquire(self, key: Key, owner: str, seconds: float) -> bool:
        return self.holders.setdefault(key, owner) == owner

    def renew(self, key: Key, owner: str, seconds: float) -> bool:
        self.renewals.put(owner)
        return self.holders.get(key) == owner

    def release(self, key: Key, owner: str) -> None:
        if self.holders.get(key) == owner:
            del self.holders[key]


def test_what_another_process_makes_is_waited_for_and_found(threads: ThreadPoolExecutor) -> None:
    shared, store, held = Shared(), {}, Held()
    here, there = Flights(leases=shared), Flights(leases=shared)

    def compute(flight: Flight) -> int:
        store[KEY] = held(flight)
        return store[KEY]

    first = threads.submit(there.run, KEY, compute, found=lambda: store.get(KEY))
    assert held.begun.wait(PATIENCE)
    second = threads.submit(here.run, KEY, compute, found=lambda: store.get(KEY))
    until(lambda: here.counts().waited == 1)
    held.go.set()
    assert (first.result(PATIENCE), second.result(PATIENCE), held.calls) == (1, 1, 1)
    assert here.counts().found == 1
    assert shared.holders == {}


def test_what_another_process_fails_at_is_computed_here(threads: ThreadPoolExecutor) -> None:
    shared, held = Shared(), Held()
    here, there = Flights(leases=shared), Flights(leases=shared)

    def fail(flight: Flight) -> None:
        held(flight)
        raise ValueError("there only")

    first = threads.submit(there.run, KEY, fail)
    assert held.begun.wait(PATIENCE)
    second = threads.submit(here.run, KEY, lambda flight: "here", found=lambda: None)
    until(lambda: here.counts().waited == 1)
    held.go.set()
    assert isinstance(first.exception(PATIENCE), ValueError)
    assert second.result(PATIENCE) == "here"


def test_nobody_waits_for_another_process_on_behalf_of_nobody() -> None:
    shared = Shared()
    shared.holders[KEY] = "another process"
    flights = Flights(leases=shared)
    with pytest.raises(DeadlinePassed):
        flights.run(KEY, lambda flight: 1, deadline=time.monotonic() + 0.05)
    until(lambda: len(flights) == 0)
    assert flights.counts().cancelled == 1
    assert shared.holders == {KEY: "another process"}


def test_one_heartbeat_renews_every_lease_for_as_long_as_it_is_held(threads: ThreadPoolExecutor) -> None:
    shared, held = Shared(), Held()
    flights = Flights(leases=shared, lease_seconds=0.03)
    keys = [Key(bytes([n]) * 32) for n in range(20)]
    answers = [threads.submit(flights.run, key, held) for key in keys]
    until(lambda: len(shared.holders) == 20)
    owners = {shared.renewals.get(timeout=PATIENCE) for _ in range(200)}
    assert len(owners) == 1
    assert sum(thread.name == "meshkiln-heartbeat" and thread.is_alive() for thread in threading.enumerate()) >= 1
    held.go.set()
    for answer in answers:
        answer.result(PATIENCE)
    assert shared.holders == {}
    assert flights.counts().faults == {}


def test_a_lost_lease_is_not_released_and_its_result_is_good(threads: ThreadPoolExecutor) -> None:
    shared, held = Shared(), Held()
    flights = Flights(leases=shared, lease_seconds=0.03)
    answer = threads.submit(flights.run, KEY, held)
    assert held.begun.wait(PATIENCE)
    shared.holders[KEY] = "who took it over"
    until(lambda: flights.counts().faults.get("lost") == 1)
    held.go.set()
    assert answer.result(PATIENCE) == 1
    assert shared.holders == {KEY: "who took it over"}


def test_closing_lets_others_have_the_leases(threads: ThreadPoolExecutor) -> None:
    shared, held = Shared(), Held()
    flights = Flights(leases=shared)
    answer = threads.submit(flights.run, KEY, held)
    assert held.begun.wait(PATIENCE)
    flights.close()
    assert shared.holders == {}
    held.go.set()
    assert answer.result(PATIENCE) == 1
