"""What worker processes cost, and how busy they are kept: a full queue against the bare loop over stages.

    MESHKILN_DATA=… python benchmarks/throughput.py [--engine inflate] [--recipe reference] [--pictures 24] [--rounds 5]

The bare loop is one process with all processors' threads that takes every picture through one stage after another, each
at its best batch size: what somebody would write who has all pictures in hand and nothing to serve. The pool has one
process per processor and is asked for all pictures at once, through the kiln, with an empty memory store, so it also
hashes, stores and moves every intermediate result between processes. Both run in turn, round after round; a ratio is
taken within a round and its median reported, so that other load on the machine hits both.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from meshkiln.engines.base import PICTURE, Engine, Scalar, Stage, Work, engine
from meshkiln.kiln import Kiln
from meshkiln.store.memory import Memory
from meshkiln.workers import batching, fair, keeper, processes, wire
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Payload, Task
from results_file import Bar, Results, data_folder

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

PROCESSORS = len(os.sched_getaffinity(0))
SIZES = (1, 2, 4, 8, 16, 32)
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
    stage = Stage("nothing", "benchmark.nothing", 1, "throughput:nothing", (PICTURE,), media_type=BYTES)
    many = Stage("many", "benchmark.many", 1, "throughput:nothing", (PICTURE,), media_type=BYTES, batch=8)
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
        program = f"import throughput; throughput.echo({theirs.fileno()}, throughput.{way.__name__})"
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
        descriptor, sent = os.memfd_create("throughput"), 0
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


class BareLoop:
    """All pictures through one stage after another in this process."""

    def __init__(self, of: Engine, parameters: Mapping[str, Scalar], pictures: Sequence[bytes]) -> None:
        self.engine, self.parameters, self.pictures = of, parameters, pictures
        self.batches = {stage.name: 1 for stage in of.stages}

    def run(self) -> tuple[dict[str, float], list[Value]]:
        """Compute seconds of each stage for all pictures, and the files."""
        made: dict[str, list[Value]] = {PICTURE: list(self.pictures)}
        seconds = {stage.name: self._stage(stage, made) for stage in self.engine.stages}
        return seconds, made[self.engine.stages[-1].name]

    def curve(self) -> dict[str, dict[str, float]]:
        """Items per second by stage and batch size; sets `batches` to the best of those that the stage allows."""
        made: dict[str, list[Value]] = {PICTURE: list(self.pictures)}
        curve = {}
        for stage in self.engine.stages:
            self._stage(stage, made)  # loads what it needs
            rates = {}
            for size in SIZES:
                self.batches[stage.name] = size
                rates[size] = len(self.pictures) / min(self._stage(stage, made) for _ in range(2))
            fit = [size for size in rates if size <= max(1, stage.batch)]
            self.batches[stage.name] = max(fit, key=rates.__getitem__)
            curve[stage.name] = {str(size): rate for size, rate in rates.items()}
        return curve

    def _stage(self, stage: Stage, made: dict[str, list[Value]]) -> float:
        compute = stage.load()
        parameters = {name: self.parameters[name] for name in stage.parameters}
        works = [Work(inputs, parameters) for inputs in zip(*(made[name] for name in stage.reads), strict=True)]
        size = self.batches[stage.name]
        started = time.perf_counter()
        made[stage.name] = [
            value for first in range(0, len(works), size) for value in compute(works[first : first + size])
        ]
        return time.perf_counter() - started


def through_the_pool(
    pool: Pool, of: Engine, parameters: Mapping[str, Scalar], pictures: Sequence[bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    """Seconds for all pictures at once and how busy that kept the workers; and the files."""
    kiln = Kiln(of, Memory(max_bytes=2**31), runner=pool.run)
    before, cpu = pool.stats(), _cpu(pool)
    opened = time.perf_counter()
    with ThreadPoolExecutor(len(pictures)) as callers:
        asked = [callers.submit(kiln.generate, picture, **parameters) for picture in pictures]
        files = [made.result().data for made in asked]
    seconds = time.perf_counter() - opened
    after = pool.stats()
    batches = {
        size: count - before.batches.get(size, 0)
        for size, count in after.batches.items()
        if count > before.batches.get(size, 0)
    }
    return {
        "seconds": seconds,
        "workers_cpu_seconds": _cpu(pool) - cpu,
        "workers_busy_seconds": sum(worker.busy_seconds for worker in after.workers)
        - sum(worker.busy_seconds for worker in before.workers),
        "batches": batches,
    }, files


def one_by_one(pool: Pool, of: Engine, parameters: Mapping[str, Scalar], pictures: Sequence[bytes]) -> Any:
    """The same, asked for one after another."""
    kiln = Kiln(of, Memory(max_bytes=2**31), runner=pool.run)
    cpu, opened = _cpu(pool), time.perf_counter()
    for picture in pictures:
        kiln.generate(picture, **parameters)
    return {"seconds": time.perf_counter() - opened, "workers_cpu_seconds": _cpu(pool) - cpu}


def _cpu(pool: Pool) -> float:
    """Processor seconds that the pool's workers have used."""
    ticks = 0
    for worker in pool.stats().workers:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(of: Engine, parameters: Mapping[str, Scalar], pictures: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """The bare loop and the pool in turn, and what the medians of their ratios are."""
    loop = BareLoop(of, parameters, pictures)
    curve = loop.curve()
    print("batch sizes:", loop.batches, flush=True)
    runs = []
    # As urgent as the bare loop, which other load on the machine would otherwise hit less.
    with Pool(PROCESSORS, preload=of.stages, max_queue_seconds=1e9, nice=0) as pool:
        pool.wait_ready(120)
        through_the_pool(pool, of, parameters, pictures)  # every worker loads what it needs
        for number in range(rounds):
            started = time.process_time()
            bare, wanted = loop.run()
            bare_cpu = time.process_time() - started
            queued, files = through_the_pool(pool, of, parameters, pictures)
            same = sum(one == other for one, other in zip(wanted, files, strict=True))
            print(f"{same} of {len(files)} files are equal byte for byte", flush=True)
            runs.append({"bare": bare, "bare_cpu_seconds": bare_cpu, "pool": queued, "equal_files": same})
            print(f"round {number}: bare {sum(bare.values()):.2f} s, pool {queued['seconds']:.2f} s", flush=True)
        served_singly = one_by_one(pool, of, parameters, pictures)
    of_cores = [run["pool"]["seconds"] * PROCESSORS for run in runs]
    return {
        "pictures": len(pictures),
        "items_per_second_by_batch": curve,
        "bare_per_second": median(len(pictures) / sum(run["bare"].values()) for run in runs),
        "pool_per_second": median(len(pictures) / run["pool"]["seconds"] for run in runs),
        "pool_to_bare": median(sum(run["bare"].values()) / run["pool"]["seconds"] for run in runs),
        "cpu_bare_to_pool": median(run["bare_cpu_seconds"] / run["pool"]["workers_cpu_seconds"] for run in runs),
        "workers_busy": median(
            run["pool"]["workers_busy_seconds"] / cores for run, cores in zip(runs, of_cores, strict=True)
        ),
        "workers_cpu": median(
            run["pool"]["workers_cpu_seconds"] / cores for run, cores in zip(runs, of_cores, strict=True)
        ),
        "one_by_one_per_second": len(pictures) / served_singly["seconds"],
        "one_by_one_workers_cpu": served_singly["workers_cpu_seconds"] / (served_singly["seconds"] * PROCESSORS),
        "rounds": runs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="inflate")
    parser.add_argument("--recipe", help="a recipe of the engine; its own defaults without")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a look, not a result: few pictures, nothing written")
    arguments = parser.parse_args()
    # Before a stage loads a numeric library: the bare loop has the whole machine.
    os.environ["MESHKILN_THREADS"] = str(PROCESSORS)
    of = engine(arguments.engine)
    parameters = dict(of.recipes[arguments.recipe]) if arguments.recipe else {}
    full = of.canonical(parameters)
    files = sorted(path for path in (data_folder() / "images").iterdir() if path.suffix in (".png", ".jpg"))
    pictures = [path.read_bytes() for path in files[: 6 if arguments.quick else arguments.pictures]]

    def measured() -> dict[str, Any]:
        return compare(of, full, pictures, 2 if arguments.quick else arguments.rounds)

    if arguments.quick:
        print(transports())
        print(overhead(200))
        print({name: value for name, value in measured().items() if name != "rounds"})
        return 0
    sources = [module.__file__ for module in (batching, fair, keeper, processes, wire)]
    results = Results("throughput", packages=["numpy", "onnxruntime"], sources=[path for path in sources if path])
    name = arguments.engine + (f", {arguments.recipe}" if arguments.recipe else "")
    figures = {
        "transports": results.item("transports", transports),
        "overhead": results.item("overhead", lambda: overhead(1000)),
        name: results.item(name, measured),
    }
    mine = figures[name]
    bars = [
        Bar(f"a full queue against the bare stage loop ({name})", mine["pool_to_bare"], 0.85, ">="),
        Bar(f"workers' processor time of both cores' wall time ({name})", mine["workers_cpu"], 0.85, ">="),
    ]
    return 0 if results.finish(figures, bars, notes=NOTES) else 1


NOTES = [
    "A full queue: all pictures asked for at once, through kiln and pool, with an empty memory store.",
    "workers_busy is the share of the wall time in which workers had a batch in hand; workers_cpu is what the system "
    "gave them of it, which other load on the machine lowers.",
]

if __name__ == "__main__":
    sys.exit(main())
