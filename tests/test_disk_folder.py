"""The folder of the disk store: whose it is, where it may be, which format it has."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from disks import LARGE
from meshkiln.errors import StoreError
from meshkiln.folders import cache_folder, require_local
from meshkiln.store.disk import Disk
from store_contract import artifact, key


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


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "\0\0",
        '{"generation": 7}',
        '{"format": 1, "generation": "generation-0000000"}',
        '{"format": 1, "generation": ".."}',
        '{"format": 1, "generation": "."}',
        '{"format": Infinity, "generation": "generation-00000000"}',
        f'{{"format": 1, "generation": "generation-{"0" * 300}"}}',
        "[" * 100_000,
        None,
    ],
)
def test_what_a_damaged_or_missing_format_does_not_name_any_more_is_found_all_the_same(
    tmp_path: Path, damaged: str | None
) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("set aside"), artifact("set aside", LARGE))
    (former,) = disk.folder.glob("generation-*")
    disk.close()
    (former / "broken").touch()
    disk = Disk(tmp_path / "store")
    disk.put(key("k"), artifact("k", LARGE))
    disk.close()
    named = (disk.folder / "format").read_text()
    assert former.name not in named
    if damaged is None:
        (disk.folder / "format").unlink()
    else:
        (disk.folder / "format").write_text(damaged)
    for _ in range(2):
        again = Disk(tmp_path / "store")
        assert again[key("k")] == artifact("k", LARGE)
        again.close()
        assert (disk.folder / "format").read_text() == named


def test_what_is_of_an_older_format_is_not_used_for_being_written_to_last(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("old"), artifact("old"))
    (former,) = disk.folder.glob("generation-*")
    disk.close()
    (disk.folder / "format").write_text(json.dumps({"format": 0, "generation": former.name}))
    disk = Disk(tmp_path / "store")
    disk.put(key("k"), artifact("k"))
    disk.close()
    # Somebody looks at what is set aside, and `format` is lost.
    os.utime(former / "index.sqlite", (2e9, 2e9))
    (disk.folder / "format").unlink()
    again = Disk(tmp_path / "store")
    assert again[key("k")] == artifact("k")
    assert key("old") not in again
    again.close()


def test_clearing_keeps_the_generation_in_use_when_format_is_missing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    disk.put(key("k"), artifact("k", LARGE))
    (disk.folder / "format").unlink()
    disk.clear()
    assert disk.get(key("k")) is None
    assert disk.put(key("k"), artifact("k", LARGE))
    disk.close()
    again = Disk(tmp_path / "store")
    assert again[key("k")] == artifact("k", LARGE)
    again.close()


def test_a_folder_removed_under_an_open_store_fails_nobody(disk: Disk) -> None:
    disk.put(key("k"), artifact("k", LARGE))
    shutil.rmtree(disk.folder)
    assert disk.get(key("k")) is None
    assert disk.put(key("other"), artifact("other", LARGE)) is False
    assert disk.stats().faults
