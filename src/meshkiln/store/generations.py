"""The format of a store's folder, and the generation of it that is in use.

    format          {"format": 1, "generation": NAME}
    lock            held while a process opens the store
    NAME/           everything else

A generation is never renamed or emptied while somebody may have it open; what cannot be used any more (an older
format, a broken index) is set aside by pointing `format` at a new one. Of those set aside the latest is kept for a
look, until the next one or until the store is cleared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from meshkiln.errors import StoreError
from meshkiln.folders import make_private, require_local
from meshkiln.store import rows
from meshkiln.store.faults import MEDIUM, Faults, reason
from meshkiln.store.files import Files
from meshkiln.store.index import Index

FORMAT = 1
"""Goes up with every change of the layout or the tables that an older version of this package could not use."""


def open_folder(folder: Path, max_bytes: int, faults: Faults) -> tuple[Path, Index, Files]:
    """The current generation of the store in `folder`, made when there is none, its index and its files.

    What dead processes left half written is removed. When the folder cannot be written the index is one that can only
    be read, or not even that; the reason is among the `faults`. Raises StoreError when the folder is on a network
    filesystem or was written by a newer version.
    """
    require_local(folder)
    try:
        make_private(folder)
        with opening(folder):
            before = current(folder)
            try:
                return _open(before or begin(folder), max_bytes)
            except sqlite3.DatabaseError as error:
                if before is None or reason(error) != "corrupt index":
                    raise
                faults.add("corrupt index", error, "it is set aside and the store begins anew")
                return _open(begin(folder), max_bytes)
    except MEDIUM as error:
        faults.add(reason(error), error, "nothing new is kept there")
        unusable = error
    generation = None
    with contextlib.suppress(OSError):
        generation = current(folder)
    if generation is None:
        return folder, Index(folder / "index.sqlite", unusable=unusable), Files(folder)
    return generation, Index(generation / "index.sqlite", read_only=True), Files(generation)


def _open(generation: Path, max_bytes: int) -> tuple[Path, Index, Files]:
    files = Files(generation)
    files.make()
    # The log counts as overshoot: some 2.5 % of the bound (half as much again as this), within what is sensible.
    index = Index(generation / "index.sqlite", wal_bytes=min(16 * 2**20, max_bytes // 64))
    try:
        index.create()
        with index.reading() as connection:
            files.sweep(lambda name: rows.names_file(connection, name))
    except BaseException:
        index.close()
        raise
    return generation, index, files


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Hold off other processes that open the store meanwhile. Raises OSError."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def current(folder: Path) -> Path | None:
    """The generation in use; None when there is none that can be used.

    Raises StoreError when a newer version of Meshkiln wrote it, and OSError.
    """
    try:
        written = json.loads((folder / "format").read_bytes())
        version, name = int(written["format"]), str(written["generation"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None
    if version > FORMAT:
        raise StoreError(
            f"the store in {folder} has format {version}, and this version of Meshkiln knows formats up to {FORMAT}; "
            "update Meshkiln, or set MESHKILN_CACHE_DIR to another folder"
        )
    generation = folder / name
    if version < FORMAT or generation.parent != folder or (generation / "broken").exists() or not generation.is_dir():
        return None
    return generation


def begin(folder: Path) -> Path:
    """A new generation, in use from now on. To be called while `opening`. Raises OSError."""
    previous = _named(folder)
    generation = folder / f"generation-{os.urandom(4).hex()}"
    generation.mkdir(mode=0o700)
    draft = folder / "format.new"
    draft.write_text(json.dumps({"format": FORMAT, "generation": generation.name}) + "\n")
    os.replace(draft, folder / "format")
    remove_aside(folder, keep={generation.name, previous})
    return generation


def mark_broken(generation: Path) -> None:
    """Have the next process that opens the store set this generation aside."""
    with contextlib.suppress(OSError):
        (generation / "broken").touch()


def remove_aside(folder: Path, keep: set[str] | None = None) -> None:
    """Remove generations that are not in use, but for those to `keep`."""
    kept = {_named(folder)} if keep is None else keep
    for old in folder.glob("generation-*"):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _named(folder: Path) -> str:
    try:
        return str(json.loads((folder / "format").read_bytes())["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
