"""What a flight costs, and that there is one of it however many ask.

    python benchmarks/flights.py

The computation is empty, so that all that is measured is the flight. Each figure is the median over rounds that
interleave the cases.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meshkiln import flight, flights, heartbeat, once
from meshkiln.flights import Flight, Flights
from meshkiln.keys import Key, digest
from meshkiln.store import leases
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from results_file import Bar, Results

ROUNDS, CALLS = 15, 200
THREADS, TASKS = 400, 1000


def fresh_keys() -> Callable[[], Key]:
    count = iter(range(10**9))
    return lambda: Key(digest(b"%d" % next(count)))


def microseconds(call: Callable[[], object], calls: int = CALLS) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls * 1e6


async def amicroseconds(air: Flights, key: Callable[[], Key]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        await air.arun(key(), lambda flight: 1)
    return (time.perf_counter() - started) / CALLS * 1e6


def bare_thread() -> None:
    thread = threading.Thread(target=lambda: None, daemon=True)
    thread.start()
    thread.join()


def overhead(folder: Path) -> dict[str, float]:
    key, alone = fresh_keys(), Flights()
    pooled = Flights(ThreadPoolExecutor(8))
    leased = Flights(leases=Disk(folder).leases)
    stored = once.once(Memory(), alone, lambda n: n, name="stored")
    stored(1)
    cases: dict[str, Callable[[], float]] = {
        "bare thread": lambda: microseconds(bare_thread),
        "flight": lambda: microseconds(lambda: alone.run(key(), lambda flight: 1)),
        "flight, asyncio": lambda: asyncio.run(amicroseconds(alone, key)),
        "flight, thread pool": lambda: microseconds(lambda: pooled.run(key(), lambda flight: 1)),
        "flight, leased on disk": lambda: microseconds(lambda: leased.run(key(), lambda flight: 1)),
        "once, stored in memory": lambda: microseconds(lambda: stored(1)),
    }
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            rounds[name].append(case())
    return {name: round(statistics.median(values), 2) for name, values in rounds.items()}


class Counted:
    """Computes once everybody has joined, and counts."""

    def __init__(self, air: Flights, key: Key, waiters: int) -> None:
        self.calls, self.full = 0, threading.Event()
        self._air, self._key, self._waiters = air, key, waiters

    def __call__(self, flight: Flight) -> float:
        self.calls += 1
        while self._air.waiters(self._key) < self._waiters:
            self.full.wait(0.001)
        return time.perf_counter()


def crowd_of_threads(pool: ThreadPoolExecutor) -> tuple[int, float]:
    """(computations, microseconds per waiter from the end of the computation to the last waiter's answer)."""
    air, key = Flights(), Key(digest(b"crowd"))
    compute = Counted(air, key, THREADS)
    answers = [pool.submit(lambda: (air.run(key, compute), time.perf_counter())) for _ in range(THREADS)]
    ended, last = max((answer.result() for answer in answers), key=lambda pair: pair[1])
    return compute.calls, (last - ended) / THREADS * 1e6


async def crowd_of_tasks() -> tuple[int, float]:
    air, key = Flights(), Key(digest(b"crowd"))
    compute = Counted(air, key, TASKS)
    ended = await asyncio.gather(*(air.arun(key, compute) for _ in range(TASKS)))
    return compute.calls, (time.perf_counter() - ended[0]) / TASKS * 1e6


def crowds() -> dict[str, float]:
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [crowd_of_threads(pool) for _ in range(ROUNDS)]
    tasks = [asyncio.run(crowd_of_tasks()) for _ in range(ROUNDS)]
    return {
        "most computations": max(calls for calls, _ in threads + tasks),
        "per waiting thread": round(statistics.median(cost for _, cost in threads), 2),
        "per waiting task": round(statistics.median(cost for _, cost in tasks), 2),
    }


def main() -> None:
    sources = [str(module.__file__) for module in (flight, flights, heartbeat, once, leases)]
    results = Results("flights", sources=sources)
    with tempfile.TemporaryDirectory() as folder:
        costs = results.item("overhead", lambda: overhead(Path(folder)))
    crowd = results.item("crowds", crowds)
    for name, value in (costs | crowd).items():
        print(f"{value:10.2f}{'' if name == 'most computations' else ' us'}  {name}")
    results.finish(
        {
            "overhead_us": costs,
            "landing_us": {name: crowd[name] for name in ("per waiting thread", "per waiting task")},
            "waiters": {"threads": THREADS, "tasks": TASKS, "rounds": ROUNDS},
        },
        [Bar("computations of one key that a crowd asks for at once", crowd["most computations"], 1)],
        [
            "overhead: an empty computation, start to answer; 'bare thread' starts and joins one, for comparison",
            "landing: from the end of the computation to the last waiter's answer, divided by the waiters",
        ],
    )


if __name__ == "__main__":
    main()
