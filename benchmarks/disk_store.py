"""The disk store: reads against the plain file, a million artifacts against a thousand, bounds under many processes.

    python benchmarks/disk_store.py

Bars: the first get of 1 MiB costs at most 1.5 times reading and hashing the plain file, later gets 1.5 times reading
it; a get among 10⁶ small artifacts costs at most 1.2 times one among 10³; the folder exceeds its bound by at most 5 %.
Reads are from the page cache, on both sides. Rounds of the things compared are interleaved, and a ratio is the median
of the rounds' ratios, so that other load on the machine falls on both. Takes some 0.7 GB under the temporary folder.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import meshkiln.store as store
from meshkiln.keys import Key, digest
from meshkiln.store.base import Artifact
from meshkiln.store.disk import INLINE, Disk
from meshkiln.store.index import Index, row_id
from meshkiln.store.rows import find
from results_file import Bar, Results

MIB = 2**20
PROVENANCE: dict[str, Any] = {"engine": "inflate", "stage": "decode", "source": "ab" * 32}
fork = multiprocessing.get_context("fork")
median = statistics.median


def key(name: object) -> Key:
    return Key(digest(str(name).encode()))


def artifact(size: int, rng: random.Random, cost: float = 1.0) -> Artifact:
    return Artifact.of(rng.randbytes(size), cost, "model/gltf-binary", PROVENANCE)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="meshkiln-benchmark-") as name:
        yield Path(name)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def plain_read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def large(rounds: int = 200) -> dict[str, float]:
    """Microseconds for 1 MiB: the plain file read, read and hashed; the first get of a process, and a later one."""
    taken: dict[str, list[float]] = {"read": [], "hash": [], "first": [], "later": []}
    with folder() as place:
        content = artifact(MIB, random.Random(1))
        writer = Disk(place / "store")
        for n in range(rounds):
            writer.put(key(n), content)
            (place / f"plain {n}").write_bytes(content.data)
        writer.close()
        disk = Disk(place / "store")  # has read nothing yet
        disk.get(key("nothing"))
        # Of each pair of reads the first finds the file where the kernel keeps it and the second in the processor's
        # cache, on both sides. Which side goes first takes turns.
        for n in range(rounds):
            path, name = place / f"plain {n}", key(n)
            sides = [
                (("hash", lambda p=path: digest(plain_read(p))), ("read", lambda p=path: plain_read(p))),
                (("first", lambda k=name: disk.get(k)), ("later", lambda k=name: disk.get(k))),
            ]
            for side in sides if n % 2 else reversed(sides):
                for what, call in side:
                    taken[what].append(seconds(call))
        assert disk.stats().hits == 2 * rounds
        disk.close()
    figures = {f"{name}_us": 1e6 * median(values) for name, values in taken.items()}
    ratio = lambda over, under: median(a / b for a, b in zip(taken[over], taken[under], strict=True))  # noqa: E731
    return {**figures, "first_ratio": ratio("first", "hash"), "later_ratio": ratio("later", "read")}


def many(large_count: int = 10**6, small_count: int = 10**3, rounds: int = 30, gets: int = 2000) -> dict[str, float]:
    """Microseconds for a get of 100 bytes at random, among many and among few."""
    with folder() as place:
        rng = random.Random(2)
        stores = {}
        for count in (small_count, large_count):
            disk = Disk(place / str(count), 100 * 2**30)
            # In the order of their rows, which makes a million take a minute rather than five. Then a twentieth is
            # replaced in no order, as it would be in life.
            order = sorted(range(count), key=lambda n: row_id(key(n)))
            for start in range(0, count, 20_000):
                disk.put_many((key(n), artifact(100, rng)) for n in order[start : start + 20_000])
            for n in rng.sample(range(count), count // 20):
                with contextlib.suppress(KeyError):
                    del disk[key(n)]
            disk.put_many((key(n), artifact(100, rng)) for n in range(count) if key(n) not in disk)
            assert len(disk) == count
            disk.close()
            stores[count] = Disk(place / str(count), 100 * 2**30)

        def cost(count: int) -> float:
            """The median get. Hits are recorded after each round, so that rounds begin as they do beside a writer."""
            disk, names = stores[count], [key(rng.randrange(count)) for _ in range(gets)]
            taken = [seconds(lambda name=name: disk.get(name)) for name in names]
            disk.flush()
            return median(taken)

        for count in stores:
            for _ in range(10 if count > 10**5 else 1):
                cost(count)  # page cache and SQLite's own
        pairs = [(cost(small_count), cost(large_count)) for _ in range(rounds)]
        size = sum(path.stat().st_size for path in (place / str(large_count)).glob("*/index.sqlite"))
        for disk in stores.values():
            disk.close()
    return {
        "few_us": 1e6 * median(few for few, _ in pairs),
        "many_us": 1e6 * median(lot for _, lot in pairs),
        "ratio": median(lot / few for few, lot in pairs),
        "index_bytes_per_artifact": size / large_count,
    }


def inline_or_file(size: int, rounds: int = 60) -> dict[str, float]:
    """Microseconds to put and to get (not the first time) `size` bytes in the index, and in a file."""
    taken: dict[str, list[float]] = {"put_inline": [], "put_file": [], "get_inline": [], "get_file": []}
    with folder() as place:
        rng = random.Random(3)
        disks = {"inline": Disk(place / "inline", inline=2**30), "file": Disk(place / "file", inline=0)}
        for n in range(rounds):
            content = artifact(size, rng)
            for kind, disk in disks.items():
                taken[f"put_{kind}"].append(seconds(lambda d=disk, n=n, c=content: d.put(key(n), c)))
        for n in range(rounds):
            for kind, disk in disks.items():
                disk.get(key(n))
                taken[f"get_{kind}"].append(seconds(lambda d=disk, n=n: d.get(key(n))))
        for disk in disks.values():
            disk.close()
    return {f"{name}_us": 1e6 * median(values) for name, values in taken.items()}


def connections(threads: int, seconds_: float = 1.5) -> dict[str, float]:
    """Reads per second of small rows by `threads` threads while one more thread writes, by how connections are held."""
    with folder() as place:
        disk = Disk(place / "store")
        disk.put_many((key(n), artifact(1000, random.Random(n))) for n in range(5000))
        path = next((place / "store").glob("*/index.sqlite"))
        disk.close()
        index = Index(path, wal_bytes=16 * MIB)
        local, shared, lock = threading.local(), connect(path), threading.Lock()

        def pooled(name: Key) -> None:
            with index.reading() as connection:
                assert find(connection, name)

        def own(name: Key) -> None:
            if not hasattr(local, "connection"):
                local.connection = connect(path)
            assert find(local.connection, name)

        def one(name: Key) -> None:
            with lock:
                assert find(shared, name)

        def write_pooled() -> None:
            with index.writing() as connection:
                connection.execute("UPDATE ranks SET last_hit = ? WHERE id = ?", (time.time(), row_id(key(1))))

        def write_shared() -> None:
            with lock:
                shared.execute("UPDATE ranks SET last_hit = ? WHERE id = ?", (time.time(), row_id(key(1))))

        rates: dict[str, list[float]] = {"pool": [], "connection_per_thread": [], "one_connection": []}
        for _ in range(3):
            rates["pool"].append(read_rate(pooled, write_pooled, threads, seconds_ / 3))
            rates["connection_per_thread"].append(read_rate(own, write_pooled, threads, seconds_ / 3))
            rates["one_connection"].append(read_rate(one, write_shared, threads, seconds_ / 3))
        index.close()
        shared.close()
    return {f"{name}_per_s": median(values) for name, values in rates.items()}


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def read_rate(read: Callable[[Key], None], write: Callable[[], None], threads: int, duration: float) -> float:
    stop = threading.Event()
    done: list[int] = []

    def reader(seed: int) -> None:
        rng, count = random.Random(seed), 0
        while not stop.is_set():
            read(key(rng.randrange(5000)))
            count += 1
        done.append(count)

    def writer() -> None:
        while not stop.is_set():
            write()

    running = [threading.Thread(target=reader, args=(n,)) for n in range(threads)] + [threading.Thread(target=writer)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    stop.wait(duration)
    stop.set()
    for thread in running:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


MIXES = {
    "records": [0, 32, 200],
    "records and latents": [32, 1200, 8000],
    "meshes": [100_000, 400_000, 1_500_000],
    "everything": [32, 1200, 8000, 40_000, 700_000],
}


def bound(mix: str, max_bytes: int = 48 * MIB, processes: int = 3) -> dict[str, float]:
    """The most and the last that the folder takes, relative to its bound, while processes write four times as much."""
    sizes = MIXES[mix]
    with folder() as place:
        disk = Disk(place / "store", max_bytes)

        def write(seed: int) -> None:
            rng, written = random.Random(seed), 0
            mine = Disk(place / "store", max_bytes)
            while written < 4 * max_bytes // processes:
                batch = [
                    (key((seed, written, n)), artifact(rng.choice(sizes), rng, rng.expovariate(1))) for n in range(20)
                ]
                mine.put_many(batch)
                written += sum(len(made.data) + 600 for _, made in batch)
            mine.close()
            os._exit(0)

        writers = [fork.Process(target=write, args=(seed,)) for seed in range(processes)]
        for writer in writers:
            writer.start()
        most = 0
        while any(writer.is_alive() for writer in writers):
            most = max(most, disk_taken(place / "store"))
            writers[0].join(0.05)
        assert all(writer.exitcode == 0 for writer in writers)
        held = disk.stats()
        disk.close()
        return {
            "most": most / max_bytes,
            "last": disk_taken(place / "store") / max_bytes,
            "artifacts": held.bytes / max_bytes,
        }


def disk_taken(place: Path) -> int:
    total = 0
    for parent, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def puts(count: int = 3000) -> dict[str, float]:
    """Small records put per second as the store does it, and if each commit paid an fsync."""
    rates: dict[str, float] = {}
    for name, level in (("put", "NORMAL"), ("put_with_fsync", "FULL")):
        with folder() as place:
            rng = random.Random(5)
            disk = Disk(place / "store")
            with disk._index.writing() as connection:
                assert connection is not None
            assert disk._index._writer is not None
            disk._index._writer.execute(f"PRAGMA synchronous={level}")
            made = [(key(n), artifact(32, rng)) for n in range(count if level == "NORMAL" else count // 10)]
            rates[f"{name}_per_s"] = len(made) / seconds(lambda d=disk, m=made: [d.put(*pair) for pair in m])
            disk.close()
    return rates


def main() -> int:
    here = Path(store.__file__).parent
    results = Results("disk_store", packages=["blake3"], sources=sorted(here.glob("*.py")))
    figures: dict[str, Any] = {"sqlite": sqlite3.sqlite_version, "inline_bytes": INLINE}
    figures["large"] = results.item("1 MiB", large)
    figures["many"] = results.item("a million", many)
    for size in (4, 16, 32, 64, 128, 256):
        figures[f"inline or file, {size} KiB"] = results.item(
            f"inline or file {size}", lambda size=size: inline_or_file(size * 1024)
        )
    for threads in (1, 4):
        figures[f"connections, {threads} readers"] = results.item(
            f"connections {threads}", lambda threads=threads: connections(threads)
        )
    for mix in MIXES:
        figures[f"bound, {mix}"] = results.item(f"bound {mix}", lambda mix=mix: bound(mix))
    figures["puts"] = results.item("puts", puts)
    for name, value in figures.items():
        print(f"{name}: {value}")
    met = results.finish(
        figures,
        [
            Bar(
                "disk: first get of 1 MiB against reading and hashing the plain file",
                figures["large"]["first_ratio"],
                1.5,
            ),
            Bar("disk: later get of 1 MiB against reading the plain file", figures["large"]["later_ratio"], 1.5),
            Bar("disk: get among 10⁶ small artifacts against among 10³", figures["many"]["ratio"], 1.2),
            Bar(
                "disk: most taken by the folder against its bound",
                max(figures[f"bound, {m}"]["most"] for m in MIXES),
                1.05,
            ),
        ],
        notes=[
            "Everything is read from the page cache. Small artifacts are 100 bytes with 95 bytes of provenance.",
            "The bound covers the index, its log and half written files; three processes write four times the bound.",
        ],
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
