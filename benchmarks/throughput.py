"""What serving costs: the gateway over HTTP against the bare loop over stages, in turn, on the same pictures.

    MESHKILN_DATA=… python benchmarks/throughput.py [queue|reference] [--short]

The bare loop is one process with all processors' threads that takes every picture through one stage after another, each
at its best batch size: what somebody would write who has all pictures in hand and nothing to serve. The gateway is a
real server with its worker processes, store and journal, which hashes, keeps and moves every intermediate result.

queue : the default recipe; all pictures of a round are posted at once, to one worker process for each processor. First
    the curve of the bare loop, items a second by stage for batches of 1 to 32
reference : the recipe `reference`, posted one after another, to one worker with all processors' threads

Rounds alternate; a ratio is taken within a round, on the very same files, and the median of the rounds is reported, so
that other load on the machine hits both. No picture comes twice: each is one of the data folder, cut by so many rows
that no two have the same pixels. A round lasts from the first post until the last answer, its running dry included.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image

from meshkiln import engines
from meshkiln.engines.base import PICTURE, Scalar, Stage, Work
from meshkiln.engines.vecset import ENGINE, runtime
from meshkiln.gateway import jobs, serve, service
from meshkiln.workers import batching, child, keeper, processes
from quality import picture_files
from results_file import Bar, Results, code_of, data_folder
from servers import Peer, get, meshkiln

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

PROCESSORS = len(os.sched_getaffinity(0))
SIZES = (1, 2, 4, 8, 16, 32)
PARTS = ("queue", "reference")
PATIENCE = 3600
"""Seconds a client waits for its answer: it holds its connection and does nothing meanwhile."""
TICKS = os.sysconf("SC_CLK_TCK")


def pictures(first: int, count: int) -> list[bytes]:
    """Pictures number `first` and on, as files; no two numbers have the same pixels."""
    names = picture_files()
    made = []
    for number in range(first, first + count):
        rows, which = divmod(number, len(names))
        with Image.open(data_folder() / "images" / names[which]) as whole:
            cut = whole.crop((0, 0, whole.width, whole.height - rows))
            file = io.BytesIO()
            cut.save(file, whole.format, **({"quality": 95} if whole.format == "JPEG" else {"compress_level": 1}))
        made.append(file.getvalue())
    return made


class BareLoop:
    """Pictures through one stage after another in this process."""

    def __init__(self, parameters: Mapping[str, Scalar]) -> None:
        self.parameters = ENGINE.canonical(parameters)
        self.batches = {stage.name: 1 for stage in ENGINE.stages}

    def run(self, files: Sequence[bytes]) -> tuple[dict[str, float], list[Value]]:
        """Seconds of each stage for all pictures, and the meshes' files."""
        made: dict[str, list[Value]] = {PICTURE: list(files)}
        seconds = {stage.name: self._stage(stage, made, self.batches[stage.name]) for stage in ENGINE.stages}
        return seconds, made[ENGINE.stages[-1].name]

    def curve(self, files: Sequence[bytes]) -> dict[str, dict[str, float]]:
        """Items per second by stage and batch size; `batches` becomes the best of each stage.

        A batch of n is timed on the first n pictures, and on eight at least.
        """
        made: dict[str, list[Value]] = {PICTURE: list(files)}
        curve = {}
        for stage in ENGINE.stages:
            given = dict(made)
            rates = {}
            for size in [size for size in SIZES if size <= len(files)]:
                count = min(len(files), max(size, 8))
                some = {name: values[:count] for name, values in given.items()}
                # Twice where that takes no time: what is quick is also what is easily disturbed.
                took = [self._stage(stage, some, size)]
                took += [self._stage(stage, some, size) for _ in range(2) if took[0] < 1]
                rates[size] = count / min(took)
                if count == len(files):
                    made[stage.name] = some[stage.name]
            if stage.name not in made:
                self._stage(stage, made, max(rates, key=rates.__getitem__))
            self.batches[stage.name] = max(rates, key=rates.__getitem__)
            curve[stage.name] = {str(size): round(rate, 3) for size, rate in rates.items()}
            print(stage.name, curve[stage.name], flush=True)
        return curve

    def _stage(self, stage: Stage, made: dict[str, list[Value]], size: int) -> float:
        compute = stage.load()
        parameters = stage.mattering(self.parameters)
        works = [Work(inputs, parameters) for inputs in zip(*(made[name] for name in stage.reads), strict=True)]
        started = time.perf_counter()
        made[stage.name] = [
            value for first in range(0, len(works), size) for value in compute(works[first : first + size])
        ]
        return time.perf_counter() - started


def ask(server: Peer, picture: bytes, query: str) -> dict[str, Any]:
    """The document of a generation that has ended. Exits when it did not succeed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        where = f"/v1/generations?engine={ENGINE.name}&wait={PATIENCE}&{query}"
        connection.request("POST", where, picture, {"Content-Type": "application/octet-stream"})
        document: dict[str, Any] = json.loads(connection.getresponse().read())
    if document.get("state") != "succeeded":
        raise SystemExit(f"a generation did not succeed: {document}")
    return document


def cpu(pid: int) -> float:
    """Processor seconds that a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid: int) -> list[int]:
    """The processes that a process started: a server's workers."""
    return [int(one) for task in Path(f"/proc/{pid}/task").glob("*/children") for one in task.read_text().split()]


def round_of(
    loop: BareLoop, server: Peer, files: Sequence[bytes], query: str, clients: ThreadPoolExecutor, bare_first: bool
) -> dict[str, Any]:
    """The bare loop and the gateway on the same files: seconds, processor seconds, and whether they made the same."""
    told: dict[str, Any] = {"pictures": len(files)}
    wanted: list[Value] = []
    documents: list[dict[str, Any]] = []

    def bare() -> None:
        spent, started = time.process_time(), time.perf_counter()
        told["bare_stages_s"], wanted[:] = loop.run(files)
        told["bare_s"], told["bare_cpu_s"] = time.perf_counter() - started, time.process_time() - spent

    def gateway() -> None:
        workers = children(server.process.pid)
        before = [cpu(server.process.pid), *map(cpu, workers)]
        spent, started = time.process_time(), time.perf_counter()
        documents[:] = clients.map(lambda picture: ask(server, picture, query), files)
        told["gateway_s"], told["client_cpu_s"] = time.perf_counter() - started, time.process_time() - spent
        after = [cpu(server.process.pid), *map(cpu, workers)]
        told["gateway_cpu_s"] = after[0] - before[0]
        told["workers_cpu_s"] = sum(after[1:]) - sum(before[1:])

    for turn in (bare, gateway) if bare_first else (gateway, bare):
        turn()
    if any(stage["source"] != "computed" for document in documents for stage in document["stages"]):
        raise SystemExit("the gateway had something in its store: these pictures were not new to it")
    served = [get(server.port, document["links"]["artifact"])[2] for document in documents]
    told["equal_files"] = sum(one == other for one, other in zip(wanted, served, strict=True))
    told["ratio"] = told["bare_s"] / told["gateway_s"]
    told["workers_cpu"] = told["workers_cpu_s"] / (PROCESSORS * told["gateway_s"])
    print({name: round(value, 3) for name, value in told.items() if isinstance(value, int | float)}, flush=True)
    return told


@contextlib.contextmanager
def serving(workers: int, query: str) -> Iterator[Peer]:
    """A gateway whose workers have loaded their graphs, by generations on small grids that are not measured."""
    settings = {
        "MESHKILN_ENGINE": ENGINE.name,
        "MESHKILN_WAIT_SECONDS": str(PATIENCE),
        "MESHKILN_STAGE_SECONDS": "3000",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        meshkiln(Path(folder), MESHKILN_WORKERS=str(workers), **settings) as server,
    ):
        (picture,) = pictures(0, 1)
        with ThreadPoolExecutor(4 * workers) as clients:
            small = f"{query}&steps=1&octree_resolution=32&decoder=sparse"
            list(clients.map(lambda seed: ask(server, picture, f"{small}&seed={seed}"), range(1, 4 * workers + 1)))
        yield server


def compared(results: Results, loop: BareLoop, rounds: int, count: int, workers: int, query: str) -> dict[str, Any]:
    """Rounds of bare loop and gateway, each on new pictures; those that warm up are of the first lot, uncut."""
    runs = []
    with contextlib.ExitStack() as stack:
        started: list[tuple[Peer, ThreadPoolExecutor]] = []

        def one(number: int) -> dict[str, Any]:
            if not started:
                loop.run(pictures(0, 1))  # loads graphs
                server = stack.enter_context(serving(workers, query))
                # As many clients as there are pictures fill the queue; one asks for one after another.
                clients = stack.enter_context(ThreadPoolExecutor(count if workers > 1 else 1))
                started.append((server, clients))
            files = pictures(len(picture_files()) + number * count, count)
            return round_of(loop, started[0][0], files, query, started[0][1], number % 2 == 0)

        runs += [results.item(f"round {number}", lambda n=number: one(n)) for number in range(rounds)]
    return {
        "ratio": median(run["ratio"] for run in runs),
        "workers_cpu": median(run["workers_cpu"] for run in runs),
        "gateway_per_second": median(run["pictures"] / run["gateway_s"] for run in runs),
        "bare_per_second": median(run["pictures"] / run["bare_s"] for run in runs),
        "gateway_cpu_s_each": median(run["gateway_cpu_s"] / run["pictures"] for run in runs),
        "rounds": runs,
    }


def queue(results: Results, short: bool) -> tuple[dict[str, Any], list[Bar]]:
    """The default recipe with a full queue."""
    rounds, count = (1, 8) if short else (3, 48)
    its = {"octree_resolution": 64} if short else {}
    query = "recipe=fast" + "&octree_resolution=64" * short
    loop = BareLoop({**ENGINE.recipes["fast"], **its})
    curve = results.item("curve", lambda: _curve(loop, 2 if short else 32))
    loop.batches = curve["best"]
    figures = compared(results, loop, rounds, count, PROCESSORS, query)
    bars = [
        Bar("a full queue over HTTP against the bare stage loop", figures["ratio"], 0.85, ">="),
        Bar(
            "a full queue over HTTP: workers' processor time of both cores' wall time",
            figures["workers_cpu"],
            0.85,
            ">=",
        ),
    ]
    return {"curve": curve, **figures}, bars


def _curve(loop: BareLoop, count: int) -> dict[str, Any]:
    loop.run(pictures(0, 1))  # loads graphs
    rates = loop.curve(pictures(len(picture_files()), count))
    return {"items_per_second": rates, "best": loop.batches, "threads": runtime.threads()}


def reference(results: Results, short: bool) -> tuple[dict[str, Any], list[Bar]]:
    """The recipe `reference`, one generation after another."""
    rounds, count = (1, 1) if short else (2, 2)
    query = "recipe=reference" + "&octree_resolution=64" * short
    parameters = {**ENGINE.recipes["reference"], **({"octree_resolution": 64} if short else {})}
    figures = compared(results, BareLoop(parameters), rounds, count, 1, query)
    name = "the reference recipe over HTTP, one by one"
    bars = [
        Bar(f"{name}, against the bare stage loop", figures["ratio"], 0.85, ">="),
        Bar(f"{name}: its worker's processor time of both cores' wall time", figures["workers_cpu"], 0.85, ">="),
    ]
    return figures, bars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="queue, reference; both without")
    parser.add_argument("--short", action="store_true", help="a look, not a result: few pictures")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    # Before a stage loads a numeric library: the bare loop has the whole machine.
    os.environ["MESHKILN_THREADS"] = str(PROCESSORS)
    modules = (jobs, serve, service, batching, child, keeper, processes)
    sources = [*code_of(engines), *(module.__file__ for module in modules)]
    met = True
    for part in given.parts or PARTS:
        packages = ["numpy", "onnxruntime", "uvicorn"]
        results = Results(f"throughput_{part}", packages, sources, trial=given.short)
        figures, bars = (queue if part == "queue" else reference)(results, given.short)
        met &= results.finish(figures, bars, NOTES)
    return 0 if met else 1


NOTES = [
    "seconds are wall time; cpu_s is what the system gave of it: to this process for the bare loop, to the gateway's "
    "process, to its workers; client_cpu_s is the posting process",
    "the curve is the bare loop's: one process, all processors' threads",
]

if __name__ == "__main__":
    sys.exit(main())
