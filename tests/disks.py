"""What tests of the disk store look at: its files, its index, the disk it takes; and processes beside it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from meshkiln.store.disk import INLINE, Disk

LARGE = 3 * INLINE
fork = multiprocessing.get_context("fork")


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
