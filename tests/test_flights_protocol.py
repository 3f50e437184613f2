"""Joining, leaving, finishing, failing and stopping of flights in every order."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from flying import KEY, OTHER, PATIENCE, until
from meshkiln.errors import Cancelled
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Key


class Protocol(RuleBasedStateMachine):
    """Joining, leaving, finishing, failing and stopping in any order, against what a flight ought to be.

    The machine drives a loop of its own one step at a time, and computations on real threads wait for its orders; so
    every interleaving of the protocol's steps is the machine's choice.
    """

    KEYS = (KEY, OTHER)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pool = ThreadPoolExecutor(8)
        self.flights = Flights(self.pool, clock=lambda: 0.0)
        self.orders: dict[Key, queue.Queue[tuple[str, Any]]] = {key: queue.Queue() for key in self.KEYS}
        self.begun: queue.Queue[tuple[Key, Flight, int]] = queue.Queue()
        self.running = dict.fromkeys(self.KEYS, 0)
        # The model: who waits, with which deadline and priority; whose compute runs if the flight has to start anew;
        # and whether there was a moment without waiters since it began.
        self.waiting: dict[Key, dict[asyncio.Task[Any], tuple[float, int]]] = {key: {} for key in self.KEYS}
        self.flight: dict[Key, Flight] = {}
        self.heir: dict[Key, int] = {}
        self.abandoned: dict[Key, bool] = {}
        self.serial = 0

    def _step(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    def _compute(self, key: Key, serial: int) -> Callable[[Flight], Any]:
        def compute(flight: Flight) -> Any:
            self.running[key] += 1
            assert self.running[key] == 1
            self.begun.put((key, flight, serial))
            try:
                order, value = self.orders[key].get(timeout=PATIENCE)
                if order == "fail":
                    raise ValueError(value)
                if order == "stop":
                    raise Cancelled("stopped")
                return value
            finally:
                self.running[key] -= 1

        return compute

    def _expect_begun(self, key: Key, serial: int) -> None:
        got, flight, leader = self.begun.get(timeout=PATIENCE)
        assert (got, leader) == (key, serial)
        self.flight[key], self.abandoned[key] = flight, False

    keys = st.sampled_from(KEYS)

    @rule(key=keys, deadline=st.sampled_from([1e6, 2e6, float("inf")]), priority=st.integers(-2, 2))
    def join(self, key: Key, deadline: float, priority: int) -> None:
        self.serial += 1
        limit = None if deadline == float("inf") else deadline
        compute = self._compute(key, self.serial)
        task = self.loop.create_task(self.flights.arun(key, compute, deadline=limit, priority=priority))
        self._step()
        if not self.waiting[key]:
            self.heir[key] = self.serial
        self.waiting[key][task] = (deadline, priority)
        if key not in self.flight:
            self._expect_begun(key, self.serial)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key, task = data.draw(st.sampled_from([(k, t) for k, tasks in self.waiting.items() for t in tasks]))
        task.cancel()
        self.loop.run_until_complete(asyncio.wait([task]))
        assert task.cancelled()
        del self.waiting[key][task]
        if not self.waiting[key]:
            self.abandoned[key] = True

    def _land(self, key: Key) -> list[asyncio.Task[Any]]:
        tasks = list(self.waiting[key])
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=PATIENCE))
        until(lambda: key not in self.flights._flights)
        self.waiting[key].clear()
        del self.flight[key]
        return tasks

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), value=st.integers())
    def finish(self, data: st.DataObject, value: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.flight)))
        self.orders[key].put(("finish", value))
        assert all(task.result() == value for task in self._land(key))

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), value=st.integers())
    def fail(self, data: st.DataObject, value: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.flight)))
        self.orders[key].put(("fail", value))
        errors = [task.exception() for task in self._land(key)]
        assert all(type(error) is ValueError and error.args == (value,) for error in errors)
        assert len({id(error) for error in errors}) == len(errors)

    @precondition(lambda self: self.flight)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """The computation raises Cancelled: because nobody waited, whether or not somebody does now, or out of turn."""
        key = data.draw(st.sampled_from(sorted(self.flight)))
        self.orders[key].put(("stop", None))
        if self.waiting[key] and self.abandoned[key]:
            self._expect_begun(key, self.heir[key])
        else:
            assert all(type(task.exception()) is Cancelled for task in self._land(key))

    @invariant()
    def a_flight_is_what_its_waiters_make_it(self) -> None:
        for key in self.KEYS:
            assert self.flights.waiters(key) == len(self.waiting[key])
            assert (key in self.flights._flights) == (key in self.flight)
            if key in self.flight:
                flight, waiting = self.flight[key], self.waiting[key].values()
                assert flight.cancelled == (not waiting)
                if waiting:
                    latest = max(deadline for deadline, _ in waiting)
                    assert flight.deadline == (None if latest == float("inf") else latest)
                    assert flight.priority == max(priority for _, priority in waiting)

    def teardown(self) -> None:
        for key in list(self.flight):
            self.orders[key].put(("finish", None))
            self._land(key)
        self.pool.shutdown()
        self.loop.close()


def test_the_protocol_holds_in_every_order() -> None:
    run_state_machine_as_test(Protocol, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_protocol_holds_in_very_many_orders() -> None:
    run_state_machine_as_test(Protocol, settings=settings(max_examples=5000, stateful_step_count=60, deadline=None))
