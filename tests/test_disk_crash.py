"""Writers killed at any instant leave neither a half artifact nor a broken index."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import meshkiln.store.files
from meshkiln.store.base import Artifact
from meshkiln.store.disk import INLINE, Disk
from store_contract import artifact, key

fork = multiprocessing.get_context("fork")
BOUND = 6 * 2**20
SIZES = (60, 5000, INLINE, 2 * INLINE, 300_000)


def made(name: int, version: int) -> Artifact:
    """The artifact that a writer puts under `name`: anybody can tell whether it is whole."""
    return artifact(f"{name} {version}", SIZES[(name + version) % len(SIZES)], cost=1.0 + name % 7)


def write_for_ever(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    disk = Disk(folder, BOUND)
    while True:
        name, version = rng.randrange(60), rng.randrange(3)
        deed = rng.random()
        if deed < 0.5:
            disk.put(key(name), made(name, version))
        elif deed < 0.7:
            disk.put(key(name), made(name, version), replace=True)
        elif deed < 0.8:
            with contextlib.suppress(KeyError):
                del disk[key(name)]
        elif deed < 0.85:
            disk.put_many((key(n), made(n, version)) for n in range(name, name + 5))
        elif deed < 0.9:
            disk.acquire(key(name), str(seed), 1.0)
        else:
            disk.get(key(name))


def check(folder: Path) -> Disk:
    """Open the store as the next process would, and see that it is whole; returned open."""
    disk = Disk(folder, BOUND)
    for name in range(65):
        found = disk.get(key(name))
        assert found is None or found in [made(name, version) for version in range(3)]
    # A row whose file was removed before the kill is a miss; anything else would be damage.
    assert set(disk.stats().faults) <= {"missing"}, disk.stats().faults
    with contextlib.closing(sqlite3.connect(next(folder.glob("generation-*/index.sqlite")))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("BEGIN")  # both sums of one moment: the other writers go on
        sums = "SELECT count(*), total(size), total(charge) FROM artifacts JOIN ranks USING (id)"
        held = connection.execute("SELECT entries, bytes, charge FROM totals").fetchone()
        assert connection.execute(sums).fetchone() == held
        assert held[2] <= BOUND
    return disk


def kill(writer: Any) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()


def kill_writers(folder: Path, kills: int, seed: int, at_once: int = 2) -> None:
    rng = random.Random(seed)
    Disk(folder, BOUND).close()
    long_lived = Disk(folder, BOUND)
    writers: list[Any] = []

    def start(seed: int) -> None:
        writers.append(fork.Process(target=write_for_ever, args=(folder, seed)))
        writers[-1].start()

    try:
        for n in range(at_once):
            start(seed + n)
        for n in range(kills):
            time.sleep(rng.expovariate(1 / 0.04))  # the random point; nothing waits for it
            victim = writers.pop(rng.randrange(at_once))
            assert victim.is_alive(), "a writer must die of nothing but us"
            kill(victim)
            if n % 5 == 0:
                check(folder).close()
                for name in range(60):
                    found = long_lived.get(key(name))
                    assert found is None or found in [made(name, version) for version in range(3)]
            start(1000 * seed + n)
    finally:
        for writer in writers:
            kill(writer)
    assert "corrupt" not in long_lived.stats().faults
    long_lived.close()
    disk = check(folder)
    found = disk.verify()
    assert (found.corrupt, found.missing) == (0, 0)
    assert disk.verify().strays == 0
    assert disk.put(key("afterwards"), artifact("afterwards", 300_000))
    disk.close()
    assert not list(folder.glob("generation-*/incoming/*"))
    assert not list(folder.glob("generation-*/quarantine/*"))


def test_killed_writers_leave_a_whole_store(tmp_path: Path) -> None:
    kill_writers(tmp_path / "store", kills=25, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("at_once", [1, 4])
def test_two_hundred_killed_writers_leave_a_whole_store(tmp_path: Path, at_once: int) -> None:
    kill_writers(tmp_path / "store", kills=200, seed=2, at_once=at_once)


# Every step, rather than random ones.


class Dying:
    """Stands in for the `os` module of the store's files: the process dies before its n-th effect on the folder."""

    EFFECTS = frozenset({"open", "write", "fsync", "ftruncate", "rename", "unlink"})

    def __init__(self, after: int) -> None:
        self._left = after

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        if name not in self.EFFECTS:
            return value

        def effect(*args: Any, **kwargs: Any) -> Any:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            if name == "write":  # half of it, so that death finds a half written file
                return value(args[0], args[1][: max(1, len(args[1]) // 2)])
            return value(*args, **kwargs)

        return effect


DEEDS = {
    "put": lambda disk: disk.put(key("new"), artifact("new", 300_000)),
    "put that evicts": lambda disk: disk.put(key("new"), artifact("new", 5_000_000)),
    "replace": lambda disk: disk.put(key(0), artifact("new", 300_000), replace=True),
    "replace by a small one": lambda disk: disk.put(key(0), artifact("new", 30), replace=True),
    "delete": lambda disk: disk.__delitem__(key(0)),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_death_before_any_effect_on_the_folder_leaves_a_whole_store(
    tmp_path: Path, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(100):
        folder = tmp_path / str(step)
        disk = Disk(folder, BOUND)
        for n in range(10):
            disk.put(key(n), artifact(n, 400_000))
        disk.close()

        def die(folder: Path = folder, step: int = step) -> None:
            disk = Disk(folder, BOUND)
            monkeypatch.setattr(meshkiln.store.files, "os", Dying(step))
            DEEDS[deed](disk)
            os._exit(0)

        child = fork.Process(target=die)
        child.start()
        child.join()
        disk = Disk(folder, BOUND)
        for name, sizes in {**dict.fromkeys(range(10), (400000,)), "new": (300_000, 5_000_000)}.items():
            found = disk.get(key(name))
            allowed = [artifact(name, size) for size in sizes]
            if name == 0 and deed.startswith("replace"):
                allowed += [artifact("new", 300_000), artifact("new", 30)]
            assert found is None or found in allowed
        assert set(disk.stats().faults) <= {"missing"}
        strays = disk.verify().strays
        assert strays == 0 or deed.startswith("replace"), "only what was replaced may be left behind uncounted"
        assert disk.verify().strays == 0
        disk.close()
        assert not list(folder.glob("generation-*/incoming/*"))
        if child.exitcode == 0:
            assert step >= 1
            return
        assert child.exitcode == -signal.SIGKILL
    pytest.fail("the deed has more steps than were tried")
