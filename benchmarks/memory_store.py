"""What a hit and a put cost in the memory store, beside the caches people would use instead.

    python benchmarks/memory_store.py

All contenders hold the same artifacts and are measured in turn, round after round, in an order drawn for each round;
a ratio is taken within a round and its median reported, so that other load on the machine hits all alike. One thread
is timed by its processor time, two by the clock on the wall: what they wait for each other is part of what they cost.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import cachebox
import cachetools
import moka_py
import theine

from meshkiln.keys import Key, digest
from meshkiln.store import clock, memory, policies
from meshkiln.store.base import Artifact
from meshkiln.store.memory import Memory
from results_file import Bar, Results

HELD = 10_000
SIZE = 1024
TTL = 3600.0

Get = Callable[[Key], Any]
Put = Callable[[Key, Artifact], Any]


class Recent:
    """The store one writes by hand: an OrderedDict behind an RLock, with bytes, TTL and statistics."""

    def __init__(self, max_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._items: OrderedDict[Key, tuple[Artifact, float]] = OrderedDict()
        self._lock = threading.RLock()
        self._now = now
        self._max_bytes = max_bytes
        self._bytes = self._hits = self._misses = self._puts = self._refused = self._evictions = 0
        self._seconds_saved = 0.0

    def get(self, key: Key, default: Artifact | None = None) -> Artifact | None:
        with self._lock:
            item = self._items.get(key)
            if item is None:
                self._misses += 1
                return default
            artifact, expires = item
            if expires <= self._now():
                del self._items[key]
                self._bytes -= len(artifact.data)
                self._misses += 1
                return default
            self._items.move_to_end(key)
            self._hits += 1
            self._seconds_saved += artifact.cost
            return artifact

    def put(self, key: Key, artifact: Artifact, ttl: float = TTL, replace: bool = False) -> bool:
        size = len(artifact.data)
        with self._lock:
            if size > self._max_bytes:
                self._refused += 1
                return False
            there = self._items.get(key)
            if there is not None:
                if not replace:
                    return True
                self._bytes -= len(there[0].data)
            self._items[key] = (artifact, self._now() + ttl)
            self._bytes += size
            self._puts += 1
            while self._bytes > self._max_bytes:
                _, (gone, _) = self._items.popitem(last=False)
                self._bytes -= len(gone.data)
                self._evictions += 1
            return True


def contenders() -> dict[str, tuple[Get, Put]]:
    """Name -> get and put of a new, empty cache that holds `HELD` artifacts."""
    size = HELD * SIZE
    ours = Memory(max_bytes=size, ttl=TTL)
    without_ttl = Memory(max_bytes=size)
    recent = Recent(size)
    # What of the ratio is the clock: the same store with a clock that costs next to nothing to read.
    fixed_clock = Recent(size, now=functools.partial(float, 1.0))
    tools, tools_lock = (
        cachetools.TTLCache[Key, Artifact](size, TTL, getsizeof=lambda a: len(a.data)),
        threading.RLock(),
    )
    moka = moka_py.Moka[Key, Artifact](size, ttl=TTL, weigher=lambda _, a: len(a.data))
    box = cachebox.LRUCache[Key, Artifact](HELD)
    box_ttl = cachebox.TTLCache[Key, Artifact](HELD, TTL)
    tiny, hour = theine.Cache[Key, Artifact](HELD), datetime.timedelta(seconds=TTL)

    def tools_get(key: Key) -> Artifact | None:
        with tools_lock:
            return tools.get(key)

    def tools_put(key: Key, artifact: Artifact) -> None:
        with tools_lock:
            tools[key] = artifact

    made: dict[Key, Artifact] = {}

    @functools.lru_cache(HELD)
    def least_recently_used(key: Key) -> Artifact:
        return made[key]

    def fill(key: Key, artifact: Artifact) -> None:
        made[key] = artifact
        least_recently_used(key)

    return {
        "meshkiln Memory": (ours.get, ours.put),
        "meshkiln Memory, no TTL": (without_ttl.get, without_ttl.put),
        "OrderedDict+RLock": (recent.get, recent.put),
        "OrderedDict+RLock, free clock": (fixed_clock.get, fixed_clock.put),
        "cachetools TTLCache+RLock (bytes, TTL)": (tools_get, tools_put),
        "moka-py (bytes, TTL)": (moka.get, moka.set),
        "cachebox LRUCache (entries)": (box.get, box.insert),
        "cachebox TTLCache (entries, TTL)": (box_ttl.get, box_ttl.insert),
        "theine (entries, TTL)": (tiny.get, lambda key, artifact: tiny.set(key, artifact, hour)),
        "functools.lru_cache (entries)": (least_recently_used, fill),
    }


def artifacts(count: int, seed: int) -> list[tuple[Key, Artifact]]:
    """`count` artifacts of `SIZE` bytes whose costs spread over two orders of magnitude."""
    draw = random.Random(seed)
    return [
        (Key(digest(name)), Artifact(name * (SIZE // 16), digest(name), draw.lognormvariate(1.0, 1.0)))
        for name in (draw.randbytes(16) for _ in range(count))
    ]


def seconds_of_hits(get: Get, orders: Sequence[list[Key]]) -> float:
    """Seconds a hit takes with as many threads as there are orders in which to ask."""

    def ask(keys: list[Key]) -> None:
        start.wait()
        for key in keys:
            get(key)

    start = threading.Barrier(len(orders) + 1)
    if len(orders) == 1:
        begun = time.thread_time()
        for key in orders[0]:
            get(key)
        return (time.thread_time() - begun) / len(orders[0])
    threads = [threading.Thread(target=ask, args=(keys,)) for keys in orders]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    start.wait()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begun) / sum(map(len, orders))


def seconds_of_puts(put: Put, fresh: Iterable[tuple[Key, Artifact]]) -> float:
    """Seconds it takes to put one artifact where another must go for it."""
    begun, count = time.thread_time(), 0
    for key, artifact in fresh:
        put(key, artifact)
        count += 1
    return (time.thread_time() - begun) / count


def compare(rounds: int, measure: Callable[[str, int], float], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Per contender the median nanoseconds and the median of its ratios to the OrderedDict of the same round."""
    took: dict[str, list[float]] = {name: [] for name in names}
    draw = random.Random(7)
    for number in range(rounds):
        for name in draw.sample(names, len(names)):
            took[name].append(measure(name, number))
    return {
        name: {
            "ns": round(median(times) * 1e9, 1),
            "ratio": round(median(a / b for a, b in zip(times, took["OrderedDict+RLock"], strict=True)), 3),
        }
        for name, times in took.items()
    }


def hits(threads: int, rounds: int) -> dict[str, dict[str, float]]:
    caches = contenders()
    held = artifacts(HELD, seed=1)
    draw = random.Random(2)
    # moka and theine admit by frequency and evict in the background: ask only for what all of them have.
    for _, put in caches.values():
        for key, artifact in held[: HELD // 2]:
            put(key, artifact)
    keys = [key for key, _ in held[: HELD // 2]]
    orders = [draw.choices(keys, k=40_000 // threads) for _ in range(threads)]
    return compare(rounds, lambda name, _: seconds_of_hits(caches[name][0], orders), list(caches))


def puts(rounds: int, hits_between: int = 0) -> dict[str, dict[str, float]]:
    """Put where another must go; with `hits_between`, after that many hits at random (untimed) in each round."""
    caches = contenders()
    draw = random.Random(3)
    per_round = 2_000
    held = artifacts(HELD, seed=1)
    for _, put in caches.values():
        for key, artifact in held:
            put(key, artifact)
    fresh = [artifacts(per_round, seed=10 + number) for number in range(rounds)]
    came = [key for batch in [held, *fresh] for key, _ in batch]
    asked = [  # of the latest to come, which most of the caches still hold
        draw.choices(came[number * per_round : number * per_round + HELD], k=hits_between) for number in range(rounds)
    ]

    def measure(name: str, number: int) -> float:
        get, put = caches[name]
        for key in asked[number]:
            get(key)
        return seconds_of_puts(put, fresh[number])

    return compare(rounds, measure, list(caches))


def clock_reading(rounds: int) -> float:
    """Nanoseconds to read the monotonic clock, which is what the coarse clock saves each hit."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(10_000):
            time.monotonic()
        times.append((time.perf_counter() - begun) / 10_000 * 1e9)
    return round(median(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    results = Results(
        "memory_store",
        packages=["cachebox", "cachetools", "moka-py", "theine"],
        sources=[memory.__file__, policies.__file__, clock.__file__],
    )
    figures = {
        "hit_one_thread": results.item("hit, one thread", lambda: hits(1, rounds)),
        "hit_two_threads": results.item("hit, two threads", lambda: hits(2, rounds)),
        "set_and_evict": results.item("set and evict", lambda: puts(rounds)),
        "set_and_evict_among_hits": results.item("set and evict among hits", lambda: puts(rounds, hits_between=5_000)),
        "reading_the_clock_ns": results.item("clock", lambda: clock_reading(rounds)),
        "held": HELD,
        "artifact_bytes": SIZE,
    }
    for title in ("hit_one_thread", "hit_two_threads", "set_and_evict", "set_and_evict_among_hits"):
        print(f"\n{title.replace('_', ' ')}")
        for name, figure in sorted(figures[title].items(), key=lambda item: item[1]["ns"]):
            print(f"  {name:42}{figure['ns']:9.1f} ns{figure['ratio']:8.3f} x OrderedDict+RLock")
    print()
    ours = "meshkiln Memory"
    results.finish(
        figures,
        bars=[
            Bar("hit / OrderedDict+RLock, one thread", figures["hit_one_thread"][ours]["ratio"], 0.35),
            Bar("hit / OrderedDict+RLock, two threads", figures["hit_two_threads"][ours]["ratio"], 0.35),
            Bar("set+evict / OrderedDict+RLock", figures["set_and_evict"][ours]["ratio"], 2.0),
        ],
        notes=[
            "Every feature on: bytes, entries, TTL, statistics, cost-aware eviction. The loop is part of each time.",
            "OrderedDict+RLock has bytes, TTL and statistics, and reads the monotonic clock on each hit, as one would; "
            "'free clock' is the same store with a clock that costs only the call.",
            "Set and evict without hits is the best case of a list in order of recency: memory goes in the order "
            "in which it came. Among hits (untimed) it does not. The bar is on the former.",
            "Peers lack what their name does not say; none of them knows cost.",
        ],
    )


if __name__ == "__main__":
    main()
