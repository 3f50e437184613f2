"""What it costs to hand a task to a worker process and take back what it made, by the size of what is handed over.

    python benchmarks/workers.py [--short]

overhead : through the pool, whose stage here gives back what it gets, so that all the time is the pool's
transports : round trips to an idle process through a socket, which is what the pool uses, and through shared memory
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from meshkiln.engines.base import PICTURE, Stage, Work
from meshkiln.workers import batching, fair, keeper, processes, wire
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Payload, Task
from results_file import Results

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

PROCESSORS = len(os.sched_getaffinity(0))
BYTES = "application/octet-stream"


def nothing(batch: Sequence[Work]) -> list[Value]:
    """A stage that gives back what it gets: all its time is the pool's."""
    return [work.inputs[0] for work in batch]


class Anybody:
    """Who waits for ever, and is nobody in particular."""

    deadline = None
    priority = 0
    cancelled = False


def overhead(calls: int) -> dict[str, float]:
    """What handing a task to a worker and back costs, by the size of what is handed over."""
    stage = Stage("nothing", "benchmark.nothing", 1, "workers:nothing", (PICTURE,), media_type=BYTES)
    many = Stage("many", "benchmark.many", 1, "workers:nothing", (PICTURE,), media_type=BYTES, batch=8)
    with Pool(PROCESSORS, preload=[stage], max_queue_seconds=1e9) as pool:
        pool.wait_ready(60)

        def seconds(of: Stage, size: int, count: int) -> float:
            data = os.urandom(size)
            started = time.perf_counter()
            for future in [pool.submit(_task(of, data)) for _ in range(count)]:
                future.result()
            return (time.perf_counter() - started) / count

        def one(of: Stage, size: int, count: int) -> float:
            return median(seconds(of, size, 1) for _ in range(count))

        seconds(stage, 10, 100)
        return {
            "queued_us": median(seconds(stage, 10, calls) for _ in range(5)) * 1e6,
            "queued_in_batches_us": median(seconds(many, 10, calls) for _ in range(5)) * 1e6,
            "alone_us": one(stage, 10, calls) * 1e6,
            "alone_1mb_ms": one(stage, 10**6, 50) * 1e3,
            "alone_4mb_ms": one(stage, 4 * 10**6, 30) * 1e3,
            "alone_64mb_ms": one(stage, 64 * 10**6, 5) * 1e3,
        }


def transports() -> dict[str, float]:
    """Round trips to an idle process and back in milliseconds: through a socket, and through shared memory (memfd)."""
    took: dict[str, list[float]] = {}
    ends = {}
    for way in (_by_socket, _by_memory):
        ours, theirs = wire.pair()
        program = f"import workers; workers.echo({theirs.fileno()}, workers.{way.__name__})"
        process = subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=(theirs.fileno(),), cwd=Path(__file__).parent
        )
        theirs.close()
        ends[way] = ours, process
    for size, count in ((10**4, 50), (10**6, 30), (4 * 10**6, 20), (64 * 10**6, 5)):
        data = os.urandom(size)
        for _ in range(count):
            for way, (ours, _) in ends.items():
                started = time.perf_counter()
                assert way(ours, data) == data
                took.setdefault(f"{way.__name__[1:]}_{size // 1000}kb_ms", []).append(time.perf_counter() - started)
    for ours, process in ends.values():
        ours.close()
        process.wait()
    return {name: median(seconds) * 1e3 for name, seconds in took.items()}


def echo(descriptor: int, way: Callable[[socket.socket, bytes | None], bytes]) -> None:
    """Give back whatever comes, until nothing does."""
    connection = socket.socket(fileno=descriptor)
    with contextlib.suppress(EOFError):
        data = way(connection, None)
        while True:
            data = way(connection, data)


def _by_socket(connection: socket.socket, data: bytes | None) -> bytes:
    if data is not None:
        wire.send(connection, {}, [data])
    return wire.receive(connection)[1][0]


def _by_memory(connection: socket.socket, data: bytes | None) -> bytes:
    if data is not None:
        descriptor, sent = os.memfd_create("workers"), 0
        while sent < len(data):
            sent += os.write(descriptor, memoryview(data)[sent:])
        socket.send_fds(connection, [len(data).to_bytes(8, "big")], [descriptor])
        os.close(descriptor)
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 1)
    if not size:
        raise EOFError
    with mmap.mmap(descriptors[0], int.from_bytes(size, "big"), prot=mmap.PROT_READ) as memory:
        os.close(descriptors[0])
        return memory[:]


def _task(stage: Stage, data: bytes) -> Task:
    return Task(stage, (Payload(data, BYTES),), {}, Anybody(), lambda step, steps: None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a look, not a result: few calls, nothing written")
    if parser.parse_args().short:
        print(transports())
        print(overhead(200))
        return 0
    sources = [module.__file__ for module in (batching, fair, keeper, processes, wire)]
    results = Results("workers", sources=[path for path in sources if path])
    figures = {
        "transports": results.item("transports", transports),
        "overhead": results.item("overhead", lambda: overhead(1000)),
    }
    print(figures)
    return 0 if results.finish(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
