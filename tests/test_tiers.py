"""Memory over disk: the shared contract, and what the two are to each other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshkiln.store.base import Artifact, Store
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.readcost import ReadCost
from meshkiln.store.tiers import Tiers
from store_contract import Clock, StoreContract, artifact, key


class TestTiers(StoreContract):
    overshoot = 1.05
    fill = 0.5
    counts_all = False

    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Store:
        return Tiers(Memory(max_bytes // 4, clock=clock), Disk(folder, max_bytes, clock=clock or time.time))


class SlowDisk(Disk):
    """A disk whose writes wait until the test lets them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gate = threading.Event()
        self.writing = threading.Event()

    def put(self, *arguments: Any, **options: Any) -> bool:
        self.writing.set()
        assert self.gate.wait(30)
        return super().put(*arguments, **options)


class BrokenDisk(Disk):
    """A disk that breaks the contract: it raises."""

    def put(self, *arguments: Any, **options: Any) -> bool:
        raise OSError(5, "the cable fell out")

    def lookup(self, *arguments: Any) -> Any:
        raise RuntimeError("nor was it ever plugged in")


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    tiers = Tiers(Memory(), Disk(tmp_path / "store"))
    yield tiers
    tiers.close()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Tiers, SlowDisk]]:
    disk = SlowDisk(tmp_path / "store")
    tiers = Tiers(Memory(), disk, behind_bytes=100_000)
    yield tiers, disk
    disk.gate.set()
    tiers.close()


def test_each_hit_says_which_tier_it_came_from_and_a_disk_hit_is_promoted(tmp_path: Path) -> None:
    first = Tiers(Memory(), Disk(tmp_path / "store"))
    first.put(key("k"), artifact("k"))
    assert first.get_tier(key("k")) == (artifact("k"), "memory")
    first.close()
    second = Tiers(Memory(), Disk(tmp_path / "store"))
    assert second.get_tier(key("k")) == (artifact("k"), "disk")
    assert second.get_tier(key("k")) == (artifact("k"), "memory")
    assert second.get_tier(key("nothing")) is None
    assert (second.stats().hits, second.stats().misses, second.stats().puts) == (2, 1, 0)
    second.close()


def test_a_finished_result_is_on_the_disk_when_put_returns(tiers: Tiers) -> None:
    assert tiers.put(key("result"), artifact("result"))
    assert key("result") in tiers.disk


def test_an_intermediate_result_is_written_behind(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    assert tiers.put(key("latents"), artifact("latents"), durable=False)
    assert disk.writing.wait(30)
    assert key("latents") not in disk
    assert tiers.get_tier(key("latents")) == (artifact("latents"), "memory")
    assert (tiers.stats().entries, tiers.stats().bytes, tiers.stats().puts) == (1, 100, 1)
    disk.gate.set()
    assert tiers.flush() is True
    assert disk.get(key("latents")) == artifact("latents")


def test_what_waits_to_be_written_is_found_though_memory_let_go_of_it(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, _ = slow
    tiers.put(key("latents"), artifact("latents"), durable=False)
    del tiers.memory[key("latents")]
    assert tiers.get(key("latents")) == artifact("latents")
    assert key("latents") in tiers
    assert list(tiers) == [key("latents")]


def test_flush_gives_up_when_told_to(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, _ = slow
    tiers.put(key("latents"), artifact("latents"), durable=False)
    assert tiers.flush(timeout=0.05) is False


def test_when_too_much_waits_a_put_writes_at_once(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    tiers.put(key(0), artifact(0, 60_000), durable=False)
    returned = threading.Event()

    def put() -> None:
        tiers.put(key(1), artifact(1, 60_000), durable=False)
        returned.set()

    putter = threading.Thread(target=put)
    putter.start()
    assert not returned.wait(0.1), "100,000 bytes may wait, not 120,000"
    disk.gate.set()
    putter.join(30)
    assert key(1) in disk


def test_deleting_what_waits_to_be_written_deletes_it_for_good(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    for name in ("being written", "waiting"):
        tiers.put(key(name), artifact(name), durable=False)
    assert disk.writing.wait(30)
    del tiers[key("waiting")]
    threading.Timer(0.05, disk.gate.set).start()
    del tiers[key("being written")]  # only once the write that is going on has ended
    tiers.flush()
    assert len(disk) == len(tiers) == 0
    assert tiers.get(key("waiting")) is tiers.get(key("being written")) is None


def test_a_durable_put_passes_what_waits_under_its_key(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    tiers.put(key("other"), artifact("other"), durable=False)
    assert disk.writing.wait(30)
    tiers.put(key("k"), artifact("first"), durable=False, replace=True)
    threading.Timer(0.05, disk.gate.set).start()
    tiers.put(key("k"), artifact("second"), replace=True)
    tiers.flush()
    assert disk[key("k")] == tiers[key("k")] == artifact("second")


def test_clearing_forgets_what_waits(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    for n in range(5):
        tiers.put(key(n), artifact(n), durable=False)
    threading.Timer(0.05, disk.gate.set).start()
    tiers.clear()
    tiers.flush()
    assert len(disk) == len(tiers) == 0


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    tiers = Tiers(Memory(), Disk(tmp_path / "store"))
    for n in range(100):
        tiers.put(key(n), artifact(n, 10_000), durable=False)
    tiers.close()
    disk = Disk(tmp_path / "store")
    assert len(disk) == 100
    disk.close()


def test_an_interpreter_that_ends_writes_what_waits(tmp_path: Path) -> None:
    def run() -> None:
        import subprocess
        import sys

        script = (
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
            "from store_contract import artifact, key\n"
            "from meshkiln.store.disk import Disk; from meshkiln.store.memory import Memory\n"
            "from meshkiln.store.tiers import Tiers\n"
            f"tiers = Tiers(Memory(), Disk({str(tmp_path / 'store')!r}))\n"
            "for n in range(50): tiers.put(key(n), artifact(n, 10_000), durable=False)\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

    run()
    disk = Disk(tmp_path / "store")
    assert len(disk) == 50
    disk.close()


@pytest.mark.parametrize("durable", [True, False])
def test_a_tier_that_raises_fails_nobody(tmp_path: Path, durable: bool) -> None:
    tiers = Tiers(Memory(), BrokenDisk(tmp_path / "store"))
    assert tiers.get(key("k")) is None
    assert tiers.put(key("k"), artifact("k"), durable=durable)
    tiers.flush()
    assert tiers.get_tier(key("k")) == (artifact("k"), "memory")
    assert tiers.stats().faults == {"get failed": 1, "put failed": 1}
    tiers.close()


def test_what_neither_tier_keeps_is_not_kept(tmp_path: Path) -> None:
    tiers = Tiers(Memory(1000), Disk(tmp_path / "store", 10_000))
    assert tiers.put(key("huge"), artifact("huge", 20_000)) is False
    assert tiers.stats().refused == 1
    assert tiers.put(key("too large for memory"), artifact("large", 5000)) is True
    assert tiers.get_tier(key("too large for memory")) == (artifact("large", 5000), "disk")
    tiers.close()


def test_to_memory_a_loss_costs_a_read_while_the_disk_keeps_it(tmp_path: Path) -> None:
    # 100 bytes that took an hour and 100 bytes that took a second are equally quick to bring back from the disk.
    tiers = Tiers(Memory(max_entries=10), Disk(tmp_path / "store"))
    for n in range(10):
        tiers.put(key(f"an hour {n}"), artifact(n, 100, cost=3600.0))
    for n in range(10):
        tiers.put(key(f"a second {n}"), artifact(n, 100, cost=1.0))
    assert sum(key(f"an hour {n}") in tiers.memory for n in range(10)) <= 2
    assert all(key(f"an hour {n}") in tiers for n in range(10))
    tiers.close()


def test_to_memory_a_loss_costs_making_it_again_when_the_disk_does_not_keep_it(tmp_path: Path) -> None:
    tiers = Tiers(Memory(max_entries=15), BrokenDisk(tmp_path / "store"))
    for n in range(10):
        tiers.put(key(f"an hour {n}"), artifact(n, 100, cost=3600.0))
    for n in range(30):
        tiers.put(key(f"a second {n}"), artifact(n, 100, cost=1.0))
    assert all(key(f"an hour {n}") in tiers.memory for n in range(10))
    tiers.close()


def test_what_memory_answers_counts_on_the_disk(tmp_path: Path) -> None:
    tiers = Tiers(Memory(), Disk(tmp_path / "store", 100_000))
    for n in range(10):
        tiers.put(key(f"wanted {n}"), artifact(n, 1000))
        for _ in range(50):
            assert tiers.get_tier(key(f"wanted {n}")) == (artifact(n, 1000), "memory")
    for n in range(200):
        tiers.put(key(f"once {n}"), artifact(n, 1000))
    assert all(key(f"wanted {n}") in tiers.disk for n in range(10))
    assert tiers.stats().hits == 500
    tiers.close()


def test_the_disk_weighs_by_what_an_artifact_cost_to_make(tmp_path: Path) -> None:
    tiers = Tiers(Memory(), Disk(tmp_path / "store", 200_000))
    for n in range(10):
        tiers.put(key(f"dear {n}"), artifact(n, 1000, cost=60.0), durable=False)
    tiers.flush()
    for n in range(300):
        tiers.put(key(f"cheap {n}"), artifact(n, 1000, cost=0.1))
    assert all(key(f"dear {n}") in tiers.disk for n in range(10))
    tiers.close()


def test_promotion_keeps_the_time_to_live(tmp_path: Path) -> None:
    clock = Clock()
    tiers = Tiers(Memory(clock=clock), Disk(tmp_path / "store", clock=clock))
    tiers.put(key("brief"), artifact("brief"), ttl=60.0)
    del tiers.memory[key("brief")]
    clock.now += 50
    assert tiers.get_tier(key("brief")) == (artifact("brief"), "disk")
    assert tiers.get_tier(key("brief")) == (artifact("brief"), "memory")
    clock.now += 11
    assert tiers.get(key("brief")) is None
    tiers.close()


def test_the_cost_of_a_read_follows_what_reads_take() -> None:
    cost = ReadCost()
    for _ in range(100):
        cost.observe(100, 0.001)
        cost.observe(1_000_000, 0.011)
    assert cost.of(0) == pytest.approx(0.001, rel=0.01)
    assert cost.of(2_000_000) == pytest.approx(0.021, rel=0.01)
    for _ in range(100):
        cost.observe(100, 0.0001)
    assert cost.of(0) == pytest.approx(0.0001, rel=0.01)


def test_a_lease_is_let_go_of_only_when_the_disk_has_what_was_put_before(tiers: Tiers, tmp_path: Path) -> None:
    """Else another process could take it, find nothing, and compute the same a second time."""
    writing, let_write = threading.Event(), threading.Event()
    put = tiers.disk.put

    def slow(*args: Any, **kwargs: Any) -> bool:
        writing.set()
        assert let_write.wait(30)
        return put(*args, **kwargs)

    tiers.disk.put = slow  # type: ignore[method-assign]
    assert tiers.leases.acquire(key("k"), "one", 60)
    tiers.put(key("k"), Artifact.of(b"x", 1.0), durable=False)
    assert writing.wait(30)
    tiers.leases.release(key("k"), "one")
    assert not tiers.disk.acquire(key("k"), "two", 60), "it is still held: the disk does not have it"
    let_write.set()
    assert tiers.flush(timeout=30)
    assert tiers.disk.acquire(key("k"), "two", 60)
    assert tiers.disk.get(key("k")) is not None


def test_leases_are_the_disks(tiers: Tiers) -> None:
    assert tiers.leases.acquire(key("k"), "one", 60)
    assert not tiers.disk.acquire(key("k"), "other", 60)


def test_a_child_leaves_what_waits_to_its_parent_and_writes_its_own(slow: tuple[Tiers, SlowDisk]) -> None:
    tiers, disk = slow
    tiers.put(key("parent's"), artifact("parent's"), durable=False)
    assert disk.writing.wait(30)

    def child() -> None:
        disk.gate = threading.Event()
        disk.gate.set()
        assert tiers.put(key("child's"), artifact("child's"), durable=False)
        assert tiers.flush(timeout=30)
        assert len(disk) == 1
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    disk.gate.set()
    assert tiers.flush(timeout=30)
    assert sorted(disk) == sorted([key("parent's"), key("child's")])


def test_many_threads_put_and_delete_while_it_is_written_behind(tmp_path: Path) -> None:
    tiers = Tiers(Memory(20_000), Disk(tmp_path / "store"), behind_bytes=20_000)
    wrong: list[object] = []

    def ask(seed: int) -> None:
        try:
            for n in range(150):
                name = (n * 7 + seed) % 40
                mine: Artifact = artifact(name, 1000)
                found = tiers.get(key(name))
                if found is None:
                    tiers.put(key(name), mine, durable=n % 2 == 0)
                elif found != mine:
                    wrong.append(name)
                if n % 11 == 0:
                    with contextlib.suppress(KeyError):  # somebody else may have been first
                        del tiers[key(name)]
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert tiers.flush(timeout=30)
    assert not tiers.stats().faults
    assert all(tiers.disk[held] == tiers[held] for held in tiers)
    tiers.close()


def test_a_store_closed_under_a_computation_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiers = Tiers(Memory(), Disk(tmp_path / "store"))
    tiers.close()
    tiers.leases.release(key(0), "who outlived it")
    assert (tiers.stats().faults, caplog.text) == ({}, "")
