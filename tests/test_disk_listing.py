"""What is newest and what is dearest in a disk store: found by an index, in a store of an earlier version too."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

from disks import index_of
from meshkiln.store.base import Artifact
from meshkiln.store.disk import Disk
from meshkiln.store.rows import Entry
from store_contract import Clock, artifact, key

MESH, OTHER = "model/stl", "image/png"


def thing(n: int, media_type: str = MESH, cost: float = 1.0, size: int = 100) -> Artifact:
    return replace(artifact(n, size), media_type=media_type, cost=cost, provenance={"n": n})


def numbers(entries: list[Entry]) -> list[object]:
    return [entry.provenance["n"] for entry in entries]


def every(entry: Entry) -> bool:
    return True


def test_the_newest_that_fit_come_first(tmp_path: Path) -> None:
    clock = Clock()
    disk = Disk(tmp_path / "store", clock=clock)
    for n in range(20):
        clock.now += 1
        disk.put(key(n), thing(n, (MESH, OTHER, "text/plain")[n % 3]), ttl=5 if n == 15 else None)
    clock.now += 6
    assert numbers(disk.newest([MESH], 3, float("inf"), every)) == [18, 12, 9], "and 15 is past its time"
    assert numbers(disk.newest([MESH, OTHER], 4, float("inf"), every)) == [19, 18, 16, 13]
    page = disk.newest([MESH, OTHER], 2, float("inf"), lambda entry: entry.provenance["n"] != 19)
    assert numbers(page) == [18, 16]
    assert numbers(disk.newest([MESH, OTHER], 2, page[-1].created, every)) == [13, 12]
    assert disk.newest(["none/such"], 2, float("inf"), every) == []
    disk.close()


def test_the_dearest_are_those_with_the_most_cost_per_byte(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("record"), thing(0, OTHER, 100.0, 1))
    for n, (cost, size) in enumerate([(1.0, 1000), (5.0, 100), (5.0, 50), (9.0, 100_000)], 1):
        disk.put(key(n), thing(n, MESH, cost, size))
    assert numbers(disk.dearest(3, besides=OTHER)) == [3, 2, 1]
    disk.close()


def test_a_store_of_an_earlier_version_gets_the_index_that_finds_them(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key(1), thing(1))
    disk.close()
    with contextlib.closing(sqlite3.connect(index_of(disk))) as rows:
        rows.execute("DROP INDEX by_age")
    disk = Disk(tmp_path / "store")
    assert numbers(disk.newest([MESH], 9, float("inf"), every)) == [1]
    with contextlib.closing(sqlite3.connect(index_of(disk))) as rows:
        plan = rows.execute("EXPLAIN QUERY PLAN SELECT id FROM artifacts WHERE media_type = '' ORDER BY created DESC")
        assert [step[3] for step in plan] == ["SEARCH artifacts USING COVERING INDEX by_age (media_type=?)"]
    disk.close()


def test_an_index_that_breaks_lists_nothing_and_fails_nobody(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key(1), thing(1))
    with contextlib.closing(sqlite3.connect(index_of(disk))) as rows:
        rows.execute("DROP TABLE artifacts")
    assert disk.newest([MESH], 9, float("inf"), every) == disk.dearest(9, besides="") == []
    assert sum(disk.stats().faults.values()) >= 2
    disk.close()
