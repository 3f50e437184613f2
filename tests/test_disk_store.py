"""The disk store: the shared contract, what processes share and what time does, and what can be told of it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from disks import LARGE, check_books, fork, in_a_child, taken
from meshkiln.keys import Key, digest
from meshkiln.store.base import Artifact, Store
from meshkiln.store.disk import Disk
from meshkiln.store.index import row_id
from store_contract import Clock, StoreContract, artifact, key


class TestDisk(StoreContract):
    overshoot = 1.05
    fill = 0.5

    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Store:
        return Disk(folder, max_bytes, clock=clock or time.time)


# Over processes and time.


@pytest.mark.parametrize("size", [100, LARGE])
def test_what_was_put_is_there_for_the_next_process(tmp_path: Path, size: int) -> None:
    kept = artifact("kept", size)
    first = Disk(tmp_path / "store")
    first.put(key("kept"), kept)
    first.close()
    second = Disk(tmp_path / "store")
    assert second.get(key("kept")) == kept
    assert (second.stats().entries, second.stats().puts) == (1, 0)
    second.close()


@pytest.mark.parametrize("size", [100, LARGE])
def test_two_processes_see_what_the_other_puts_replaces_and_deletes(tmp_path: Path, size: int) -> None:
    one, other = Disk(tmp_path / "store"), Disk(tmp_path / "store")
    one.put(key("k"), artifact("first", size))
    assert other[key("k")].data == artifact("first", size).data
    one.put(key("k"), artifact("second", size), replace=True)
    assert other[key("k")].data == artifact("second", size).data
    del one[key("k")]
    assert other.get(key("k")) is None
    assert not other.stats().faults
    check_books(one)
    one.close()
    other.close()


def test_hits_in_one_process_keep_an_artifact_from_being_evicted_by_another(tmp_path: Path) -> None:
    reader, writer = Disk(tmp_path / "store", 200_000), Disk(tmp_path / "store", 200_000)
    for n in range(10):
        reader.put(key(f"wanted {n}"), artifact(n, 1000))
        for _ in range(50):
            reader.get(key(f"wanted {n}"))
    reader.flush()
    for n in range(500):
        writer.put(key(f"once {n}"), artifact(n, 1000))
    assert all(key(f"wanted {n}") in writer for n in range(10))
    reader.close()
    writer.close()


def test_many_hits_are_recorded_without_waiting_for_the_end(tmp_path: Path) -> None:
    reader, other = Disk(tmp_path / "store"), Disk(tmp_path / "store")
    reader.put(key("k"), artifact("k"))
    for _ in range(5000):
        reader.get(key("k"))
    deadline = time.monotonic() + 10
    while not next(other.entries()).hits:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    reader.close()
    other.close()


def test_stays_within_its_bytes_of_disk_while_many_processes_write(tmp_path: Path) -> None:
    bound = 32 * 2**20
    disk = Disk(tmp_path / "store", bound)

    def write(seed: int) -> None:
        rng = random.Random(seed)
        mine = Disk(tmp_path / "store", bound)
        for n in range(400):
            size = rng.choice([50, 3000, 20_000, 200_000, 700_000])
            assert mine.put(key(f"{seed} {n}"), artifact(n, size, rng.expovariate(1.0)))
        mine.close()
        os._exit(0)

    writers = [fork.Process(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    most = 0
    while any(writer.is_alive() for writer in writers):
        most = max(most, taken(disk.folder))
        writers[0].join(0.02)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert most <= 1.05 * bound
    assert taken(disk.folder) >= 0.8 * bound
    assert disk.verify().corrupt == disk.verify().missing == 0
    disk.close()
    check_books(disk)


def test_a_store_may_be_forked_while_it_is_being_written(disk: Disk) -> None:
    stop = threading.Event()

    def write(name: str) -> None:
        n = 0
        while not stop.is_set():
            assert disk.put(key(f"{name} {n}"), artifact(n, 100 if n % 3 else LARGE))
            n += 1

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()

    def child(name: str) -> None:
        for n in range(20):
            assert disk.put(key(f"{name} {n}"), artifact(n, 100))
            assert disk.get(key(f"{name} {n}")) == artifact(n, 100)

    for n in range(8):
        in_a_child(lambda name=f"child {n}": child(name))  # type: ignore[misc]
    stop.set()
    for writer in writers:
        writer.join()
    assert all(key(f"child {n} 19") in disk for n in range(8))
    assert not disk.stats().faults
    check_books(disk)


# What is in it.


def test_all_that_was_derived_from_one_picture_can_be_found(disk: Disk) -> None:
    sources = [digest(b"one").hex(), digest(b"another").hex()]
    for n in range(10):
        made = Artifact.of(bytes(LARGE if n % 4 == 0 else 10), 1.0, provenance={"source": sources[n % 2]})
        disk.put(key(n), made)
    disk.put(key("no source"), artifact("no source"))
    disk.put(key("odd source"), Artifact.of(b"", 1.0, provenance={"source": "a name"}))
    assert sorted(disk.keys_where(source=sources[0])) == sorted(key(n) for n in range(0, 10, 2))
    assert disk.keys_where(source=digest(b"none").hex()) == []


def test_entries_tell_what_is_kept_without_reading_it(tmp_path: Path) -> None:
    clock = Clock()
    disk = Disk(tmp_path / "store", clock=clock)
    disk.put(key("k"), artifact("k", LARGE, cost=3.5), ttl=1e6)
    clock.now += 100
    disk.get(key("k"))
    disk.get(key("k"))
    disk.flush()
    (entry,) = disk.entries()
    assert (entry.key, entry.size, entry.cost, entry.media_type) == (key("k"), LARGE, 3.5, "model/gltf-binary")
    assert dict(entry.provenance) == {"stage": "export", "n": 1}
    assert (entry.created, entry.last_hit, entry.hits, entry.expires) == (1e6, 1e6 + 100, 2, 2e6)
    disk.close()


def test_entries_go_through_more_than_one_page(disk: Disk) -> None:
    disk.put_many((key(n), artifact(n, 10)) for n in range(1234))
    assert sorted(entry.key for entry in disk.entries()) == sorted(key(n) for n in range(1234))


def test_many_are_put_at_once_and_still_bounded(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store", 2**20)
    disk.put(key(3), artifact("first"))
    assert disk.put_many((key(n), artifact(n, 20_000 if n % 10 else LARGE)) for n in range(200)) == 200
    assert disk[key(3)].data == artifact("first").data
    assert disk.put_many([(key("huge"), artifact("huge", 2**21))]) == 0
    assert 2**19 < disk.stats().bytes <= 2**20
    check_books(disk)
    disk.close()


def test_what_is_past_its_time_goes_first(tmp_path: Path) -> None:
    clock = Clock()
    disk = Disk(tmp_path / "store", 20 * LARGE, clock=clock)
    for n in range(5):
        disk.put(key(f"brief {n}"), artifact(n, LARGE, cost=1000.0), ttl=60)
    for n in range(13):
        disk.put(key(n), artifact(n, LARGE, cost=0.1))
    clock.now += 61
    for n in range(13, 17):
        disk.put(key(n), artifact(n, LARGE, cost=0.1))
    assert disk.stats().evictions == {"expired": 5}
    assert all(key(n) in disk for n in range(17))
    disk.close()


def test_two_keys_that_meet_in_one_row_never_answer_for_each_other(disk: Disk) -> None:
    prime = 2**63 - 25
    one = Key((12345).to_bytes(32, "big"))
    other = Key((12345 + prime).to_bytes(32, "big"))
    assert row_id(one) == row_id(other)
    assert disk.put(one, artifact("one"))
    assert disk.get(other) is None
    assert other not in disk
    assert disk.put(other, artifact("other")) is False
    assert disk.stats().faults == {"collision": 1}
    with pytest.raises(KeyError):
        del disk[other]
    assert disk[one] == artifact("one")
