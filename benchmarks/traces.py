"""Request traces to measure stores on: two real ones from `MESHKILN_DATA` and one that is generated.

A trace is a list of requests and a request a tuple of steps, first stage to last: what a store may hold of it. Where a
trace lacks sizes or costs they are drawn once per key, by a hash of the key, so that they are the same in every run and
for every policy. Which parts are real and which are drawn is said in each reader, and in `Trace.notes`.
"""

from __future__ import annotations

import csv
import lzma
import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from blake3 import blake3


class Step(NamedTuple):
    """One stage's artifact: its key, bytes, and the seconds it takes to make from the one before."""

    key: bytes
    size: int
    cost: float


Request = tuple[Step, ...]


@dataclass(frozen=True)
class Trace:
    """Requests in the order they came; `notes` says what is real in them."""

    name: str
    requests: list[Request]
    notes: str

    @property
    def footprint(self) -> int:
        """Bytes of all artifacts that the trace's requests could leave."""
        return sum({step.key: step.size for request in self.requests for step in request}.values())

    @property
    def seconds(self) -> float:
        """Seconds to make every request from nothing."""
        return sum(step.cost for request in self.requests for step in request)


def gentd26(data: Path) -> Trace:
    """Production image generation: real arrivals and execution times, one artifact per request.

    The trace has no prompts and no pictures, so the identity is user and whole configuration: repeats are an upper
    bound. The cost of a key is the execution time of its first request. Sizes are drawn: log-normal, median 1 MiB,
    sigma 1, as mesh files spread with their face counts.
    """
    requests = [
        (Step(key, round(2**20 * _log_normal(key, "size", 1.0)), seconds),) for key, seconds in _generations(data)
    ]
    return Trace(
        "gentd26",
        requests,
        "real arrivals and execution times; identity is user and configuration (repeats are an upper bound); "
        "sizes drawn, log-normal, median 1 MiB, sigma 1",
    )


def gentd26_chain(data: Path) -> Trace:
    """The same requests as a chain of two stages: latents (8 KiB) that take all but a second, and the mesh from them.

    The mesh takes 0.3 s per MiB, at most half of the request's time.
    """
    requests: list[Request] = []
    for key, seconds in _generations(data):
        size = round(2**20 * _log_normal(key, "size", 1.0))
        decode = min(0.3 * size / 2**20, seconds / 2)
        requests.append((Step(b"latents" + key, 8192, seconds - decode), Step(key, size, decode)))
    return Trace(
        "gentd26 as a chain",
        requests,
        "as gentd26, each request leaving 8 KiB of latents and a mesh made from them at 0.3 s per MiB",
    )


def cdn(data: Path) -> Trace:
    """A content network's requests: real identities and sizes. Costs are drawn: what a function of such objects takes.

    A name keeps the size it first came with. The cost is (0.1 s + 1 s per MB) times a log-normal factor (median 1,
    sigma 1) that belongs to the key.
    """
    requests: list[Request] = []
    sizes: dict[str, int] = {}
    with lzma.open(data / "traces/caffeine/request.trace.xz", "rt") as lines:
        for line in lines:
            _, name, size = line.split()
            key = blake3(f"cdn {name}".encode()).digest()
            first = sizes.setdefault(name, int(size))
            requests.append((Step(key, first, (0.1 + first / 1e6) * _log_normal(key, "cost", 1.0)),))
    return Trace(
        "cdn",
        requests,
        "real identities and sizes; costs drawn, (0.1 s + 1 s per MB) x log-normal with sigma 1",
    )


def drift(requests: int = 60_000, seed: int = 26) -> Trace:
    """Generated: what is popular drifts, and scans of things asked for once (or twice, in order) pass through.

    Zipf 0.9 over 10,000 names, of which a tenth are replaced by new ones every 5,000 requests; every 6,000 requests a
    scan of 1,200 names, every other scan repeating the one before. Costs log-normal (median 10 s), sizes log-normal
    (median 1 MiB), both sigma 1 and independent.
    """
    draw = random.Random(seed)
    names: list[Hashable] = list(range(10_000))
    weights = [1 / rank**0.9 for rank in range(1, len(names) + 1)]
    made: list[Hashable] = []
    scans = 0
    while len(made) < requests:
        made.extend(draw.choices(names, weights, k=1000))
        if len(made) // 5000 != (len(made) - 1000) // 5000:
            for place in draw.sample(range(len(names)), len(names) // 10):
                names[place] = ("new", len(made), place)
        if len(made) // 6000 != (len(made) - 1000) // 6000:
            made.extend(("scan", scans // 2, n) for n in range(1200))
            scans += 1
    keys = [blake3(f"drift {name}".encode()).digest() for name in made[:requests]]
    return Trace(
        "drift and scans",
        [(Step(k, round(2**20 * _log_normal(k, "size", 1.0)), 10 * _log_normal(k, "cost", 1.0)),) for k in keys],
        "generated: Zipf 0.9 with replacement of names, and scans; costs and sizes log-normal with sigma 1",
    )


def all_of(data: Path) -> list[Callable[[], Trace]]:
    """The traces by which policies are compared."""
    return [lambda: gentd26(data), lambda: gentd26_chain(data), lambda: cdn(data), drift]


def _generations(data: Path) -> list[tuple[bytes, float]]:
    """(key, seconds) of each request that succeeded, in the order they came."""
    seconds: dict[bytes, float] = {}
    made: list[bytes] = []
    with (data / "traces/gentd26/lora_request_trace.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            took = float(row["exec_time_seconds"])
            if row["predict_status"] != "SUCCEED" or took <= 0:  # what failed leaves no artifact
                continue
            identity = [row[name] for name in row if name not in ("gmt_create", "predict_status", "exec_time_seconds")]
            key = blake3("\x1f".join(identity).encode()).digest()
            seconds.setdefault(key, took)
            made.append(key)
    return [(key, seconds[key]) for key in made]


def _log_normal(key: bytes, of: str, sigma: float) -> float:
    """A log-normal factor of median 1 that belongs to `key`."""
    uniform = (int.from_bytes(blake3(key + of.encode()).digest(8)) + 0.5) / 2**64
    return math.exp(sigma * NormalDist().inv_cdf(uniform))
