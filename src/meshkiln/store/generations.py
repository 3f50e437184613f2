"""The format of a store's folder, and the generation of it that is in use.

    format          {"format": 1, "generation": NAME}
    lock            held while a process opens the store
    NAME/           everything else

A generation is never renamed or emptied while somebody may have it open; what cannot be used any more (an older
format, a broken index) is set aside by pointing `format` at a new one, which takes over what a broken index can still
tell (`rescue.py`). Of those set aside the latest is kept for a look, until the next one or until the store is cleared.
Where `format` is missing, cannot be read or names none that is there, the generation that was written to last is in
use.

A new generation takes the place of a broken one only when it has all that could still be told; what is left of one that
did not come so far is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from meshkiln.errors import StoreError
from meshkiln.folders import make_private, require_local
from meshkiln.store import rescue, rows
from meshkiln.store.faults import MEDIUM, Faults, reason
from meshkiln.store.files import Files
from meshkiln.store.index import Index

log = logging.getLogger(__name__)

_BROKEN = "broken"
"""Name of the file that says so of its generation."""
_UNFINISHED = "unfinished"
"""Likewise, of one to which what a broken one can still tell is being carried."""
_NAME = re.compile(r"generation-[0-9a-z]{1,64}\Z")

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
            before, named = current(folder)
            if before is None:
                return _anew(folder, named, max_bytes, faults)
            if before.name != named:
                _use(folder, before)
            try:
                return _open(before, max_bytes)
            except sqlite3.DatabaseError as error:
                if reason(error) != "corrupt index":
                    raise
                faults.add("corrupt index", error, "it is set aside, and what it can still tell goes on in a new one")
                mark_broken(before)
                return _anew(folder, before.name, max_bytes, faults)
    except MEDIUM as error:
        faults.add(reason(error), error, "nothing new is kept there")
        unusable = error
    generation = None
    with contextlib.suppress(OSError):
        generation, _ = current(folder)
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


def _anew(folder: Path, named: str, max_bytes: int, faults: Faults) -> tuple[Path, Index, Files]:
    """A new generation, in use once it has what one that broke can still tell. To be called while `opening`.

    named : the former one, see `current`; where it is not there, the latest of those that broke
    """
    former = folder / named if named and (folder / named).is_dir() else _latest(folder, broken=True)
    for left in folder.glob(f"generation-*/{_UNFINISHED}"):
        shutil.rmtree(left.parent, ignore_errors=True)
    generation = folder / f"generation-{os.urandom(4).hex()}"
    generation.mkdir(mode=0o700)
    (generation / _UNFINISHED).touch()
    _, index, files = _open(generation, max_bytes)
    try:
        if former is not None and (former / _BROKEN).exists():
            _carry(former, folder, index, files, faults)
        (generation / _UNFINISHED).unlink()
        _use(folder, generation)
    except BaseException:
        index.close()
        raise
    if former is not None:  # else nobody knows which of them was in use
        mark_broken(former)  # where it was only of an older format, it is not to be found as `_latest` later
        remove_aside(folder, former.name)
    return generation, index, files


def _carry(former: Path, folder: Path, index: Index, files: Files, faults: Faults) -> None:
    try:
        carried = rescue.carry(former, index, files)
    except MEDIUM as error:
        faults.add(reason(error), error, "what the broken index could still tell is not all taken over")
    else:
        log.warning("disk store %s: artifacts that went on from the broken index: %d", folder, carried)


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Hold off other processes that open the store meanwhile. Raises OSError."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def current(folder: Path) -> tuple[Path | None, str]:
    """The generation in use, None when there is none that can be used; and the one that `format` names, there or not.

    Raises StoreError when a newer version of Meshkiln wrote it, and OSError.
    """
    version, named = _written(folder)
    if version > FORMAT:
        raise StoreError(
            f"the store in {folder} has format {version}, and this version of Meshkiln knows formats up to {FORMAT}; "
            "update Meshkiln, or set MESHKILN_CACHE_DIR to another folder"
        )
    generation = folder / named
    if not named or not generation.is_dir():
        return _latest(folder), named
    return None if version < FORMAT or (generation / _BROKEN).exists() else generation, named


def _use(folder: Path, generation: Path) -> None:
    """Have `format` name a generation. Raises OSError."""
    draft = folder / "format.new"
    with draft.open("w") as file:
        file.write(json.dumps({"format": FORMAT, "generation": generation.name}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / "format")


def _latest(folder: Path, broken: bool = False) -> Path | None:
    """The generation that was written to last, of those that did not break, or that did."""
    found: dict[Path, int] = {}
    for index in folder.glob("generation-*/index.sqlite*"):
        with contextlib.suppress(FileNotFoundError):
            if (index.parent / _BROKEN).exists() is broken and not (index.parent / _UNFINISHED).exists():
                found[index.parent] = max(found.get(index.parent, 0), index.stat().st_mtime_ns)
    return max(found, key=found.__getitem__, default=None)


def mark_broken(generation: Path) -> None:
    """Have the next process that opens the store set this generation aside."""
    with contextlib.suppress(OSError):
        (generation / _BROKEN).touch()


def remove_aside(folder: Path, keep: str) -> None:
    """Remove generations, but for the one that `format` names and the one to `keep`."""
    kept = {keep}
    with contextlib.suppress(OSError):
        kept.add(_written(folder)[1])
    for old in folder.glob("generation-*"):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _written(folder: Path) -> tuple[int, str]:
    """The format and the generation that `format` names, empty when it names none. Raises OSError."""
    try:
        written = json.loads((folder / "format").read_bytes())
        version, named = int(written["format"]), str(written["generation"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return FORMAT, ""
    return version, named if _NAME.match(named) else ""
