"""The disk store: the shared contract, and what only a disk can do wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshkiln.errors import StoreError
from meshkiln.folders import cache_folder, require_local
from meshkiln.keys import Key, digest
from meshkiln.store import leases
from meshkiln.store.base import Artifact, Store
from meshkiln.store.disk import INLINE, Disk
from meshkiln.store.index import row_id
from store_contract import Clock, StoreContract, artifact, key

LARGE = 3 * INLINE
fork = multiprocessing.get_context("fork")


class TestDisk(StoreContract):
    overshoot = 1.05
    fill = 0.5

    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Store:
        return Disk(folder, max_bytes, clock=clock or time.time)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "store")
    yield disk
    disk.close()


def files(disk: Disk, kind: str = "objects") -> list[Path]:
    """The store's files of one kind."""
    return [path for path in disk.folder.glob(f"generation-*/{kind}/**/*") if path.is_file()]


def index_of(disk: Disk) -> Path:
    return next(disk.folder.glob("generation-*/index.sqlite"))


def taken(folder: Path) -> int:
    """Bytes of disk that everything under `folder` takes."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def check_books(disk: Disk) -> None:
    """The index is whole, its totals are the sums of its rows, and files and rows name one another."""
    with contextlib.closing(sqlite3.connect(index_of(disk))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = connection.execute(
            "SELECT count(*), total(size), total(charge) FROM artifacts JOIN ranks USING (id)"
        ).fetchone()
        assert kept == connection.execute("SELECT entries, bytes, charge FROM totals").fetchone()
        assert connection.execute("SELECT count(*) FROM artifacts").fetchone() == kept[:1]
        assert connection.execute("SELECT count(*) FROM ranks").fetchone() == kept[:1]
        named = {name for (name,) in connection.execute("SELECT file FROM artifacts WHERE file IS NOT NULL")}
    assert {path.name for path in files(disk)} == named
    assert not files(disk, "incoming")


def in_a_child(run: Callable[[], object]) -> None:
    """Run in a forked process; fail when it fails."""

    def main() -> None:
        run()
        os._exit(0)

    child = fork.Process(target=main)
    child.start()
    child.join(60)
    assert child.exitcode == 0


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


# Damage.


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


# A medium that does not take it.


def run_as_user(script: str, *arguments: str, wrap: tuple[str, ...] = ()) -> None:
    """Run a script in a process of its own, as an ordinary user if we are root."""
    source = "\n".join(
        [
            "import os, sys, logging",
            f"sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}",
            "from store_contract import artifact, key",
            "from meshkiln.store.disk import Disk",
            "from meshkiln.store.memory import Memory",
            "from meshkiln.store.tiers import Tiers",
            "said = []",
            "logging.getLogger('meshkiln').addFilter(lambda r: True)",
            "handler = logging.Handler(); handler.emit = lambda r: said.append(r.getMessage())",
            "logging.getLogger('meshkiln').addHandler(handler)",
            textwrap.dedent(script),
        ]
    )
    done = subprocess.run(
        [*wrap, sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that an ordinary user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


NOT_ROOT = "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


def test_without_permission_nothing_is_kept_and_nobody_fails(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir()
    closed.chmod(0o000)
    try:
        run_as_user(
            NOT_ROOT
            + """
            for folder in (sys.argv[1], sys.argv[1] + "/deeper"):
                said.clear()
                disk = Disk(folder)
                assert disk.get(key("k")) is None
                assert disk.put(key("k"), artifact("k")) is False
                assert disk.put(key("k"), artifact("k", 100_000)) is False
                assert disk.stats().faults["permission denied"] >= 3, disk.stats()
                assert set(disk.stats().faults) == {"permission denied"}, disk.stats()
                assert len(said) == 1 and "ermission denied" in said[0], said
                assert list(disk) == [] and len(disk) == 0
                disk.close()
            """.replace("\n            ", "\n"),
            str(closed),
        )
    finally:
        closed.chmod(0o700)


def test_a_folder_that_can_only_be_read_is_read(reachable: Path) -> None:
    disk = Disk(reachable / "store")
    disk.put(key("small"), artifact("small"))
    disk.put(key("large"), artifact("large", LARGE))
    disk.close()
    for place, folders, names in os.walk(reachable / "store"):
        for name in [*folders, *names]:
            path = Path(place, name)
            path.chmod(0o555 if path.is_dir() else 0o444)
    (reachable / "store").chmod(0o555)
    try:
        run_as_user(
            NOT_ROOT
            + """
            disk = Disk(sys.argv[1])
            assert disk.get(key("small")) == artifact("small")
            assert disk.get(key("large")) == artifact("large", int(sys.argv[2]))
            assert disk.put(key("new"), artifact("new")) is False
            assert disk.put(key("new"), artifact("new", 100_000)) is False
            assert len(disk) == 2 and disk.get(key("new")) is None
            for _ in range(2000): disk.get(key("small"))
            assert set(disk.stats().faults) <= {"permission denied", "read only"}, disk.stats()
            assert len(said) <= 2, said
            disk.close()
            """.replace("\n            ", "\n"),
            str(reachable / "store"),
            str(LARGE),
        )
    finally:
        for place, _, _ in os.walk(reachable / "store"):
            os.chmod(place, 0o700)


IN_A_FULL_FILESYSTEM = """
    import subprocess
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", sys.argv[1]], check=True)
    disk = Disk(sys.argv[1] + "/store")
    kept = [n for n in range(60) if disk.put(key(n), artifact(n, 100_000))]
    assert 5 <= len(kept) < 60, kept
    assert disk.stats().faults.get("disk full", 0) + disk.stats().faults.get("input/output error", 0) == 60 - len(kept)
    assert all(disk.get(key(n)) == artifact(n, 100_000) for n in kept)
    assert len(said) == len(disk.stats().faults), said
    assert not all(disk.put(key(f"small {n}"), artifact(n, 1000)) for n in range(20_000)), "even the index is full"
    assert all(disk.get(key(n)) == artifact(n, 100_000) for n in kept)
    tiers = Tiers(Memory(), disk)
    assert tiers.put(key("result"), artifact("result", 100_000)), "memory keeps it"
    assert tiers.put(key("latents"), artifact("latents", 100_000), durable=False)
    tiers.flush()
    assert tiers.get(key("result")) == artifact("result", 100_000)
    for n in kept: del disk[key(n)]
    assert disk.put(key("again"), artifact("again", 100_000)), "and when there is room again, it goes on"
    assert disk.verify().corrupt == 0
    disk.close()
    """.replace("\n    ", "\n")

READ_ONLY_MOUNT = """
    import subprocess
    disk = Disk(sys.argv[1] + "/store")
    disk.put(key("k"), artifact("k")); disk.put(key("large"), artifact("large", 100_000))
    disk.close()
    subprocess.run(["mount", "--bind", sys.argv[1], sys.argv[1]], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", sys.argv[1]], check=True)
    disk = Disk(sys.argv[1] + "/store")
    assert disk.get(key("k")) == artifact("k") and disk.get(key("large")) == artifact("large", 100_000)
    assert disk.put(key("new"), artifact("new")) is False
    assert disk.put(key("new"), artifact("new", 100_000)) is False
    assert set(disk.stats().faults) == {"read only"}, disk.stats()
    assert len(said) == 1, said
    disk.close()
    disk = Disk(sys.argv[1] + "/another")
    assert disk.put(key("new"), artifact("new")) is False and disk.get(key("new")) is None
    assert set(disk.stats().faults) == {"read only"}, disk.stats()
    """.replace("\n    ", "\n")


@pytest.mark.parametrize("script", [IN_A_FULL_FILESYSTEM, READ_ONLY_MOUNT], ids=["disk full", "read only"])
def test_a_real_filesystem_that_takes_no_more_fails_nobody(tmp_path: Path, script: str) -> None:
    wrap = ("unshare", "--mount", "--map-root-user") if os.getuid() else ("unshare", "--mount")
    try:
        subprocess.run([*wrap, "mount", "-t", "tmpfs", "none", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets us mount nothing of our own")
    run_as_user(script, str(tmp_path), wrap=wrap)


def test_a_file_size_limit_fails_nobody(disk: Disk) -> None:
    assert disk.put(key("before"), artifact("before", 2 * LARGE))

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE, LARGE))
        assert disk.put(key("k"), artifact("k", 2 * LARGE)) is False
        assert disk.stats().faults == {"disk full": 1}
        assert disk.get(key("before")) == artifact("before", 2 * LARGE)

    in_a_child(child)
    check_books(disk)


# The folder.


def test_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    Disk(tmp_path / "a" / "store").close()
    (tmp_path / "empty").mkdir(mode=0o755)
    Disk(tmp_path / "empty").close()
    for folder in (tmp_path / "a" / "store", tmp_path / "empty"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_full_of_other_things_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "letter.txt").write_text("dear all")
    disk = Disk(folder)
    disk.put(key("k"), artifact("k", LARGE))
    disk.close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(next(folder.glob("generation-*")).stat().st_mode) == 0o700


def test_the_cache_folder_is_the_users_unless_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESHKILN_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    disk = Disk()
    assert disk.folder == tmp_path / "elsewhere"
    disk.close()
    monkeypatch.delenv("MESHKILN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "meshkiln"


MOUNTS = """\
21 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
35 21 0:30 / /home rw shared:1 - nfs4 server:/home rw,vers=4.2
36 35 0:31 / /home/me/.cache rw - xfs /dev/vdb rw
37 21 0:32 / /mnt/a\\040share rw - fuse.sshfs me@there: rw
38 21 0:33 / /homely rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("folder", "refused"),
    [
        ("/var/cache/meshkiln", ""),
        ("/home/you/.cache/meshkiln", "nfs4"),
        ("/home", "nfs4"),
        ("/home/me/.cache/meshkiln", ""),
        ("/mnt/a share/x", "fuse.sshfs"),
        ("/homely/x", ""),
    ],
)
def test_network_filesystems_are_refused_with_a_reason(folder: str, refused: str) -> None:
    if refused:
        with pytest.raises(StoreError, match=rf"network filesystem \({refused}.*MESHKILN_CACHE_DIR"):
            require_local(Path(folder), MOUNTS)
    else:
        require_local(Path(folder), MOUNTS)


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("k"), artifact("k", LARGE))
    disk.close()
    before = (disk.folder / "format").read_text()
    (disk.folder / "format").write_text(json.dumps({"format": 2, "generation": "somewhere", "more": True}))
    with pytest.raises(StoreError, match=r"has format 2.*up to 1.*update"):
        Disk(tmp_path / "store")
    (disk.folder / "format").write_text(before)
    again = Disk(tmp_path / "store")
    assert again[key("k")] == artifact("k", LARGE)
    again.close()


@pytest.mark.parametrize("older", ['{"format": 0, "generation": "generation-0"}', "", "\0\0", '{"generation": 7}'])
def test_an_older_or_illegible_format_is_set_aside(tmp_path: Path, older: str) -> None:
    (tmp_path / "store" / "generation-0").mkdir(parents=True)
    (tmp_path / "store" / "format").write_text(older)
    disk = Disk(tmp_path / "store")
    assert disk.put(key("k"), artifact("k"))
    assert disk[key("k")] == artifact("k")
    disk.close()


def test_a_folder_removed_under_an_open_store_fails_nobody(disk: Disk) -> None:
    disk.put(key("k"), artifact("k", LARGE))
    shutil.rmtree(disk.folder)
    assert disk.get(key("k")) is None
    assert disk.put(key("other"), artifact("other", LARGE)) is False
    assert disk.stats().faults


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


# Leases.


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
