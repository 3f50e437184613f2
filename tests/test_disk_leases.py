"""Leases of the disk store, over processes that are killed and clocks that begin anew."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from disks import fork
from meshkiln.errors import StoreError
from meshkiln.store import leases
from meshkiln.store.disk import Disk
from store_contract import Clock, key


def test_a_lease_keeps_others_out_until_it_is_released(disk: Disk) -> None:
    assert disk.acquire(key("k"), "one", 60)
    assert not disk.acquire(key("k"), "other", 60)
    assert disk.acquire(key("k"), "one", 60), "its owner may take it again"
    assert disk.acquire(key("another"), "other", 60)
    disk.release(key("k"), "other")
    assert not disk.acquire(key("k"), "other", 60), "not the other's to release"
    disk.release(key("k"), "one")
    assert disk.acquire(key("k"), "other", 60)


def test_an_expired_lease_is_taken_over_and_cannot_be_renewed(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(leases, "now", clock)
    assert disk.acquire(key("k"), "one", 15)
    clock.now += 10
    assert disk.renew(key("k"), "one", 15)
    clock.now += 10
    assert not disk.acquire(key("k"), "other", 15)
    clock.now += 6
    assert disk.acquire(key("k"), "other", 15)
    assert not disk.renew(key("k"), "one", 15)
    disk.release(key("k"), "one")
    assert not disk.acquire(key("k"), "third", 15)


def test_a_lease_from_before_a_reboot_has_expired(disk: Disk) -> None:
    index = disk._index
    assert leases.acquire(index, key("k"), "one", 1e6, boot="the boot before")
    assert not leases.renew(index, key("k"), "one", 60, boot="this boot")
    assert leases.acquire(index, key("k"), "other", 60, boot="this boot")


def test_of_many_processes_one_gets_the_lease_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    Disk(tmp_path / "store").close()
    taken = fork.SimpleQueue()

    def ask(seconds: float) -> None:
        disk = Disk(tmp_path / "store")
        if disk.acquire(key("k"), f"process {os.getpid()}", seconds):
            taken.put(os.getpid())
        signal.pause()

    processes = [fork.Process(target=ask, args=(0.5,)) for _ in range(6)]
    for process in processes:
        process.start()
    winner = taken.get()
    disk = Disk(tmp_path / "store")
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert winner in {process.pid for process in processes}
    deadline = time.monotonic() + 10
    while not disk.acquire(key("k"), "heir", 60):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    disk.close()


def test_without_an_index_to_write_a_lease_is_an_error(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.close()
    with pytest.raises(StoreError, match="lease cannot be written"):
        disk.acquire(key("k"), "one", 1)
