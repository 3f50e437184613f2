"""A disk store that was damaged: a miss, counted and put aside, and never a wrong answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from disks import LARGE, check_books, files, in_a_child, index_of
from meshkiln.store.disk import Disk
from meshkiln.store.files import Files
from meshkiln.store.index import row_id
from store_contract import artifact, key


def damage_truncate(path: Path) -> None:
    os.truncate(path, 1000)


def damage_empty(path: Path) -> None:
    os.truncate(path, 0)


def damage_flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))


def damage_append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_flip, damage_append])
def test_a_damaged_file_is_a_miss_is_counted_and_put_aside(
    disk: Disk, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    disk.put(key("k"), artifact("k", LARGE))
    damage(files(disk)[0])
    with caplog.at_level(logging.WARNING, "meshkiln"):
        assert disk.get(key("k")) is None
        assert disk.get(key("k")) is None
    assert disk.stats().faults == {"corrupt": 1}
    assert (disk.stats().misses, disk.stats().hits) == (2, 0)
    assert len(caplog.records) == 1
    assert len(files(disk, "quarantine")) == 1
    check_books(disk)
    assert disk.put(key("k"), artifact("k", LARGE))
    assert disk[key("k")] == artifact("k", LARGE)


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_append])
def test_a_file_whose_length_changed_since_it_was_read_is_a_miss(disk: Disk, damage: Callable[[Path], None]) -> None:
    disk.put(key("k"), artifact("k", LARGE))
    assert disk.get(key("k")) is not None
    damage(files(disk)[0])
    assert disk.get(key("k")) is None
    assert disk.stats().faults == {"corrupt": 1}


def test_damage_inside_the_index_is_a_miss_is_counted_and_put_aside(disk: Disk) -> None:
    disk.put(key("k"), artifact("k", 100))
    with contextlib.closing(sqlite3.connect(index_of(disk), isolation_level=None)) as connection:
        connection.execute("UPDATE artifacts SET data = ?", (b"\0" + artifact("k", 100).data[1:],))
    assert disk.get(key("k")) is None
    assert disk.stats().faults == {"corrupt": 1}
    assert len(files(disk, "quarantine")) == 1
    check_books(disk)


def test_a_file_that_somebody_removed_is_a_miss(disk: Disk) -> None:
    disk.put(key("k"), artifact("k", LARGE))
    files(disk)[0].unlink()
    assert disk.get(key("k")) is None
    assert disk.stats().faults == {"missing": 1}
    check_books(disk)


def test_quarantine_stays_small(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store", 100 * LARGE)
    for n in range(6):
        disk.put(key(n), artifact(n, LARGE))
    for path in files(disk):
        damage_flip(path)
    assert disk.verify().corrupt == 6
    assert sum(path.stat().st_size for path in files(disk, "quarantine")) <= disk.max_bytes // 100
    disk.close()


def test_verify_finds_what_is_damaged_or_missing_and_removes_strays(disk: Disk) -> None:
    for n in range(6):
        disk.put(key(n), artifact(n, LARGE))
        disk.put(key(f"small {n}"), artifact(n, 10))
        assert disk.get(key(n)) is not None  # known to be right, as far as this process is concerned
    first, second, third = files(disk)[:3]
    damage_flip(first)
    damage_truncate(second)
    third.unlink()
    (third.parent / "0000000000000001-0123456789abcdef").write_bytes(b"nobody's")
    found = disk.verify()
    assert (found.checked, found.corrupt, found.missing, found.strays) == (12, 2, 1, 1)
    again = disk.verify()
    assert (again.checked, again.corrupt, again.missing, again.strays) == (9, 0, 0, 0)
    check_books(disk)


@pytest.mark.parametrize("damage", [b"this is not a database", b"", bytes(4096)])
def test_a_broken_index_is_set_aside_and_the_store_begins_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("k"), artifact("k", LARGE))
    disk.close()
    index_of(disk).write_bytes(damage)
    disk = Disk(tmp_path / "store")
    assert disk.get(key("k")) is None
    assert disk.put(key("k"), artifact("k", LARGE))
    assert disk[key("k")] == artifact("k", LARGE)
    disk.clear()
    assert len(list(disk.folder.glob("generation-*"))) == 1, "what was set aside goes when the store is cleared"
    disk.close()


def test_an_index_that_breaks_while_it_is_open_fails_nobody_and_is_set_aside_next_time(disk: Disk) -> None:
    for n in range(2000):
        disk.put(key(n), artifact(n, 300))
    disk.close()
    disk = Disk(disk.folder)
    with index_of(disk).open("r+b") as file:  # every page but the first
        file.seek(4096)
        file.write(os.urandom(index_of(disk).stat().st_size - 4096))
    assert disk.get(key(1)) is None
    assert disk.put(key("new"), artifact("new")) is False
    assert disk.stats().faults["corrupt index"] >= 2
    disk.close()
    again = Disk(disk.folder)
    assert again.put(key("new"), artifact("new"))
    assert again[key("new")] == artifact("new")
    again.close()


def test_what_a_broken_index_can_still_tell_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(tmp_path / "store")
    small, large = [f"small {n}" for n in range(400)], [f"large {n}" for n in range(4)]
    for name in small:
        disk.put(key(name), artifact(name, 300))
    for name in large:
        disk.put(key(name), artifact(name, LARGE))
    index = index_of(disk)
    disk.close()
    pages = index.stat().st_size // 4096
    with index.open("r+b") as file:
        for page in range(pages // 4, pages, 8):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    disk = Disk(tmp_path / "store")
    for name in small + large:
        disk.get(key(name))
    assert disk.stats().faults["corrupt index"]
    disk.close()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "meshkiln"):
        disk = Disk(tmp_path / "store")
    carried = [name for name in small + large if key(name) in disk]
    assert f"went on from the broken index: {len(carried)}" in caplog.text
    assert len(carried) > len(small) // 2
    assert set(large) & set(carried)
    for name in carried:
        assert disk[key(name)] == artifact(name, LARGE if name in large else 300)
    found = disk.verify()
    assert (found.checked, found.corrupt, found.missing) == (len(carried), 0, 0)
    assert disk.stats().entries == len(carried)
    disk.close()


def broken_with(names: list[str], folder: Path) -> Path:
    """A store that has to be begun anew; the generation that broke."""
    disk = Disk(folder)
    for name in names:
        disk.put(key(name), artifact(name, LARGE))
    disk.close()
    former = index_of(disk).parent
    (former / "broken").touch()
    return former


@pytest.mark.parametrize("format_is_lost", [False, True])
def test_being_killed_while_it_is_carried_on_loses_nothing(tmp_path: Path, format_is_lost: bool) -> None:
    names = [f"large {n}" for n in range(8)]
    former = broken_with(names, tmp_path / "store")
    link, linked = Files.link, list[str]()

    def killed(self: Files, name: str, size: int, other: Files) -> bool:
        if len(linked) == len(names) // 2:
            os._exit(0)
        linked.append(name)
        return link(self, name, size, other)

    def child() -> None:
        Files.link = killed  # type: ignore[method-assign]
        Disk(tmp_path / "store")
        pytest.fail("it was not killed")

    in_a_child(child)
    assert len(list(former.parent.glob("generation-*"))) == 2
    if format_is_lost:
        (former.parent / "format").unlink()
    disk = Disk(tmp_path / "store")
    assert set(disk) == {key(name) for name in names}
    assert disk.verify().corrupt == disk.stats().faults.get("missing", 0) == 0
    assert len(list(former.parent.glob("generation-*"))) == 2, "nothing is left of the one that did not come so far"
    disk.close()
    again = Disk(tmp_path / "store")
    assert len(again) == len(names)
    again.close()


def test_what_broke_last_is_carried_on_when_format_is_missing_too(tmp_path: Path) -> None:
    former = broken_with(["k"], tmp_path / "store")
    (former.parent / "format").unlink()
    disk = Disk(tmp_path / "store")
    assert disk[key("k")] == artifact("k", LARGE)
    disk.close()


@pytest.mark.parametrize("provenance", [b"{bad", b"[" * 100_000, b"7", b"", b"{\xff"])
def test_a_row_whose_provenance_is_damaged_is_found_and_listed_without_it(tmp_path: Path, provenance: bytes) -> None:
    disk = Disk(tmp_path / "store")
    for name in ("damaged", "whole"):
        disk.put(key(name), artifact(name))
    with contextlib.closing(sqlite3.connect(index_of(disk), isolation_level=None)) as connection:
        damage = "UPDATE artifacts SET provenance = CAST(? AS TEXT) WHERE id = ?"
        connection.execute(damage, (provenance, row_id(key("damaged"))))
    former = index_of(disk).parent
    for carried in (False, True):
        if carried:
            disk.close()
            (former / "broken").touch()
            disk = Disk(tmp_path / "store")
        assert disk[key("damaged")] == replace(artifact("damaged"), provenance={})
        told = {entry.key: entry.provenance for entry in disk.entries()}
        assert told == {key("damaged"): {}, key("whole"): artifact("whole").provenance}
        kind = artifact("whole").media_type
        assert len(disk.newest([kind], 9, float("inf"), lambda entry: True)) == len(disk.dearest(9, besides="")) == 2
    with contextlib.closing(sqlite3.connect(former.parent / _named(disk) / "index.sqlite")) as connection:
        rows = connection.execute("SELECT provenance FROM artifacts WHERE id = ?", (row_id(key("damaged")),)).fetchall()
    assert rows == [("{}",)]
    disk.close()


def _named(disk: Disk) -> str:
    return str(json.loads((disk.folder / "format").read_bytes())["generation"])


def test_a_row_of_a_broken_index_that_lies_does_not_go_on(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    lies = {
        "digest": ("UPDATE artifacts SET data = zeroblob(size) WHERE id = ?", 100),
        "size": ("UPDATE artifacts SET size = size + 1 WHERE id = ?", 100),
        "kind": ("UPDATE artifacts SET cost = 'dear' WHERE id = ?", 100),
        "place": ("UPDATE artifacts SET file = '../' || file WHERE id = ?", LARGE),
        "owner": ("UPDATE artifacts SET key = zeroblob(32) WHERE id = ?", LARGE),
        "length": ("UPDATE artifacts SET size = size - 1 WHERE id = ?", LARGE),
    }
    for name, (_, size) in lies.items():
        disk.put(key(name), artifact(name, size))
    disk.put(key("true"), artifact("true", LARGE))
    with contextlib.closing(sqlite3.connect(index_of(disk), isolation_level=None)) as connection:
        for name, (lie, _) in lies.items():
            connection.execute(lie, (row_id(key(name)),))
    (index_of(disk).parent / "broken").touch()
    disk.close()
    disk = Disk(tmp_path / "store")
    assert list(disk) == [key("true")]
    assert disk[key("true")] == artifact("true", LARGE)
    disk.close()
