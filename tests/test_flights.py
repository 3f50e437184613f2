"""One computation per key, however many threads and tasks ask; a flight belongs to nobody who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flying import KEY, OTHER, PATIENCE, Held, until
from meshkiln.errors import Cancelled, DeadlinePassed, StageFailed
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Key


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(400) as pool:
        yield pool


def test_hundreds_of_threads_share_one_computation(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()
    answers = [threads.submit(flights.run, KEY, held) for _ in range(400)]
    until(lambda: flights.waiters(KEY) == 400)
    held.go.set()
    assert {answer.result(PATIENCE) for answer in answers} == {1}
    assert (held.calls, flights.joined, len(flights)) == (1, 399, 0)


def test_hundreds_of_tasks_and_threads_on_several_loops_share_one_computation(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()

    async def many() -> list[int]:
        return await asyncio.gather(*(flights.arun(KEY, held) for _ in range(300)))

    loops = [threads.submit(asyncio.run, many()) for _ in range(3)]
    waiting = [threads.submit(flights.run, KEY, held) for _ in range(100)]
    until(lambda: flights.waiters(KEY) == 1000)
    held.go.set()
    assert {answer for loop in loops for answer in loop.result(PATIENCE)} == {1}
    assert {answer.result(PATIENCE) for answer in waiting} == {1}
    assert held.calls == 1


def test_different_keys_fly_at_the_same_time(threads: ThreadPoolExecutor) -> None:
    flights = Flights()
    meeting = threading.Barrier(50)

    def compute(flight: Flight) -> int:
        # Nobody gets past it unless all fifty are in the air at once.
        return meeting.wait(PATIENCE)

    answers = [threads.submit(flights.run, Key(bytes([n]) * 32), compute) for n in range(50)]
    assert sorted(answer.result(PATIENCE) for answer in answers) == list(range(50))


def test_a_computation_runs_on_no_waiters_thread() -> None:
    assert Flights().run(KEY, lambda flight: threading.get_ident()) != threading.get_ident()


def test_a_landed_flight_is_not_remembered() -> None:
    flights, held = Flights(), Held()
    held.go.set()
    assert [flights.run(KEY, held), flights.run(KEY, held)] == [1, 2]


def test_everybody_gets_an_exception_of_his_own(threads: ThreadPoolExecutor) -> None:
    flights, go = Flights(), threading.Event()

    def fail(flight: Flight) -> None:
        go.wait(PATIENCE)
        error = KeyError("gone", 7)
        error.add_note("a note")
        raise error

    answers = [threads.submit(flights.run, KEY, fail) for _ in range(20)]
    until(lambda: flights.waiters(KEY) == 20)
    go.set()
    errors = [answer.exception(PATIENCE) for answer in answers]
    assert {(type(error), error.args) for error in errors} == {(KeyError, ("gone", 7))}
    assert all(error.__notes__ == ["a note"] for error in errors)
    assert len({id(error) for error in errors}) == 20
    (original,) = {error.__cause__ for error in errors}
    assert "fail" in [frame.name for frame in traceback.extract_tb(original.__traceback__)]
    tracebacks = [traceback.extract_tb(error.__traceback__) for error in errors]
    assert all("fail" not in [frame.name for frame in frames] for frames in tracebacks)
    assert len({len(frames) for frames in tracebacks}) == 1, "tracebacks grow from waiter to waiter when shared"


class Particular(Exception):
    """An exception whose constructor does not take its `args`."""

    def __init__(self, what: str, *, where: str) -> None:
        super().__init__(f"{what} at {where}")
        self.where = where


class Unclonable(Exception):
    def __new__(cls, token: object) -> Unclonable:
        if token is not KEY:
            raise ValueError("made elsewhere")
        made = super().__new__(cls)
        return made

    def __init__(self, token: object) -> None:
        super().__init__("unclonable")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (Particular("fire", where="sea"), Particular, "fire at sea"),
        (FileNotFoundError(2, "No such file", "a.png"), FileNotFoundError, "[Errno 2] No such file: 'a.png'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeDecodeError, "bad"),
        (ExceptionGroup("two", [ValueError("a"), OSError("b")]), ExceptionGroup, "two"),
        (StopIteration(3), StopIteration, "3"),
        (Unclonable(KEY), StageFailed, "Unclonable: unclonable"),
        (SystemExit(3), StageFailed, "SystemExit: 3"),
        (asyncio.CancelledError(), StageFailed, "CancelledError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_arrive_as_they_are_and_never_stop_a_waiter(
    error: BaseException, kind: type[Exception], text: str
) -> None:
    def fail(flight: Flight) -> None:
        raise error

    with pytest.raises(kind) as caught:
        Flights().run(KEY, fail)
    assert text in str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert {name: value for name, value in vars(error).items() if name != "__notes__"}.items() <= vars(
        caught.value
    ).items()


def test_a_failed_flight_is_not_remembered() -> None:
    flights = Flights()
    with pytest.raises(ZeroDivisionError):
        flights.run(KEY, lambda flight: 1 // 0)
    assert flights.run(KEY, lambda flight: 2) == 2
    assert flights.counts().failed == 1


def test_cancelling_the_first_task_leaves_the_others_their_result() -> None:
    flights, held = Flights(), Held()

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(flights.arun(KEY, held)) for _ in range(10)]
        await asyncio.to_thread(held.begun.wait, PATIENCE)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert held.flight is not None
        assert not held.flight.cancelled
        held.go.set()
        return await asyncio.gather(*tasks[1:])

    assert asyncio.run(main()) == [1] * 9
    assert held.calls == 1


def test_a_deadline_is_its_waiters_alone(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()
    patient = threads.submit(flights.run, KEY, held)
    assert held.begun.wait(PATIENCE)
    with pytest.raises(DeadlinePassed):
        flights.run(KEY, held, deadline=time.monotonic() + 0.02)
    with pytest.raises(DeadlinePassed):
        asyncio.run(flights.arun(KEY, held, deadline=time.monotonic() + 0.02))
    assert held.flight is not None
    assert not held.flight.cancelled
    held.go.set()
    assert patient.result(PATIENCE) == 1


def test_a_deadline_that_has_passed_starts_nothing() -> None:
    flights = Flights(clock=lambda: 100.0)
    with pytest.raises(DeadlinePassed):
        flights.run(KEY, lambda flight: 1, deadline=100.0)
    assert flights.counts().started == 0
    assert flights.run(KEY, lambda flight: 1, deadline=1e12) == 1


def test_a_flight_that_nobody_waits_for_is_cancelled_and_may_stop() -> None:
    flights, held, told = Flights(), Held(), threading.Event()
    stopped = threading.Event()

    def compute(flight: Flight) -> int:
        flight.on_cancel(told.set)
        assert not told.is_set()
        held(flight)
        if flight.cancelled:
            stopped.set()
            raise Cancelled("as nobody waits")
        return 1

    with pytest.raises(DeadlinePassed):
        flights.run(KEY, compute, deadline=time.monotonic() + 0.05)
    assert told.wait(PATIENCE)
    held.go.set()
    assert stopped.wait(PATIENCE)
    until(lambda: len(flights) == 0)
    assert flights.counts().cancelled == 1
    assert flights.counts().failed == 0


def test_who_joins_a_flight_that_is_stopping_is_computed_for_anew(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()

    def stop(flight: Flight) -> str:
        held(flight)
        raise Cancelled("it saw that nobody waited")

    with pytest.raises(DeadlinePassed):
        flights.run(KEY, stop, deadline=time.monotonic() + 0.05)
    late = threads.submit(flights.run, KEY, lambda flight: "mine")
    until(lambda: flights.waiters(KEY) == 1)
    held.go.set()
    assert late.result(PATIENCE) == "mine"
    assert flights.joined == 1


def test_who_joins_an_abandoned_flight_that_goes_on_gets_its_result(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()
    with pytest.raises(DeadlinePassed):
        flights.run(KEY, held, deadline=time.monotonic() + 0.05)
    late = threads.submit(flights.run, KEY, held)
    until(lambda: flights.waiters(KEY) == 1)
    held.go.set()
    assert late.result(PATIENCE) == 1


def test_an_engine_that_cancels_on_its_own_does_not_fly_for_ever() -> None:
    def give_up(flight: Flight) -> None:
        raise Cancelled("for reasons of its own")

    with pytest.raises(Cancelled, match="reasons of its own"):
        Flights().run(KEY, give_up)


def test_a_flight_takes_the_latest_deadline_and_highest_priority_of_those_who_wait_now() -> None:
    flights, held = Flights(clock=lambda: 0.0), Held()

    async def main() -> None:
        async def join(deadline: float | None, priority: int) -> asyncio.Task[int]:
            task = asyncio.create_task(flights.arun(KEY, held, deadline=deadline, priority=priority))
            await asyncio.sleep(0)
            return task

        async def leave(task: asyncio.Task[int]) -> None:
            task.cancel()
            await asyncio.wait([task])

        first = await join(1000.0, 1)
        await asyncio.to_thread(held.begun.wait, PATIENCE)
        flight = held.flight
        assert flight is not None
        assert (flight.deadline, flight.priority) == (1000.0, 1)
        second = await join(3000.0, 0)
        assert (flight.deadline, flight.priority) == (3000.0, 1)
        third = await join(None, 5)
        assert (flight.deadline, flight.priority) == (None, 5)
        await leave(third)
        assert (flight.deadline, flight.priority) == (3000.0, 1)
        await leave(first)
        assert (flight.deadline, flight.priority) == (3000.0, 0)
        await leave(second)
        assert flight.cancelled
        fourth = await join(500.0, -1)
        assert not flight.cancelled
        assert (flight.deadline, flight.priority) == (500.0, -1)
        held.go.set()
        assert await fourth == 1

    asyncio.run(main())


def test_the_store_is_asked_again_before_computing() -> None:
    flights = Flights()
    assert flights.run(KEY, lambda flight: 1, found=lambda: 2) == 2
    assert flights.run(KEY, lambda flight: 1, found=lambda: None) == 1
    counts = flights.counts()
    assert (counts.found, counts.computed) == (1, 1)


def test_a_store_that_cannot_be_asked_does_not_stand_in_the_way() -> None:
    def broken() -> int:
        raise OSError("disk on fire")

    flights = Flights()
    assert flights.run(KEY, lambda flight: 1, found=broken) == 1
    assert flights.counts().unasked == 1


def test_flights_may_wait_for_flights_and_know_how_long_they_did() -> None:
    flights = Flights()
    waited = []

    def deep(flight: Flight, depth: int) -> int:
        if depth == 0:
            threading.Event().wait(0.05)
            return 0
        below = flights.run(Key(bytes([depth]) * 32), lambda flight: deep(flight, depth - 1))
        waited.append(flight.waited)
        return below + 1

    assert flights.run(KEY, lambda flight: deep(flight, 60)) == 60
    assert all(seconds >= 0.05 for seconds in waited)


def test_a_computation_that_waits_for_itself_is_told_so() -> None:
    flights = Flights()

    def around(flight: Flight) -> int:
        return flights.run(OTHER, lambda flight: asyncio.run(flights.arun(KEY, around)))

    with pytest.raises(RecursionError, match="waits for its own result"):
        flights.run(KEY, around, deadline=time.monotonic() + PATIENCE)


def test_no_lock_is_held_while_computing_or_looking(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()
    slow = threads.submit(flights.run, KEY, held)
    looking = threads.submit(flights.run, OTHER, lambda flight: 0, found=lambda: held.go.wait(PATIENCE) and None)
    assert held.begun.wait(PATIENCE)
    assert flights.run(Key(b"x" * 32), lambda flight: 1, deadline=time.monotonic() + PATIENCE) == 1
    assert flights.counts().started == 3
    held.go.set()
    slow.result(PATIENCE)
    looking.result(PATIENCE)


def test_an_executor_that_is_shut_down_leaves_nobody_waiting(threads: ThreadPoolExecutor) -> None:
    executor = ThreadPoolExecutor(1)
    flights, held = Flights(executor), Held()
    running = threads.submit(flights.run, KEY, held)
    assert held.begun.wait(PATIENCE)
    queued = threads.submit(flights.run, OTHER, held)
    until(lambda: flights.waiters(OTHER) == 1)
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(Cancelled, match="shut down"):
        queued.result(PATIENCE)
    held.go.set()
    assert running.result(PATIENCE) == 1
    with pytest.raises(RuntimeError, match="shutdown"):
        flights.run(KEY, held)
    assert len(flights) == 0


def test_a_loop_that_is_closed_disturbs_nobody_else(threads: ThreadPoolExecutor) -> None:
    flights, held = Flights(), Held()
    loop = asyncio.new_event_loop()
    task = loop.create_task(flights.arun(KEY, held))
    loop.run_until_complete(asyncio.to_thread(held.begun.wait, PATIENCE))
    others = [threads.submit(flights.run, KEY, held) for _ in range(3)]
    until(lambda: flights.waiters(KEY) == 4)
    loop.close()
    held.go.set()
    assert [other.result(PATIENCE) for other in others] == [1, 1, 1]
    with contextlib.suppress(RuntimeError, AttributeError):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()
