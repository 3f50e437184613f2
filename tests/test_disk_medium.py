"""A medium that does not take what the disk store writes: nothing is kept, and nobody fails."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import LARGE, check_books, in_a_child
from meshkiln.store.disk import Disk
from store_contract import artifact, key


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
