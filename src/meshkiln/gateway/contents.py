"""Contents: files named by the digest of what is in them, one for each content however many jobs name it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from meshkiln.keys import digest
from meshkiln.output import write_whole

FRESH = 600.0
"""Seconds a file is left alone that nobody names: who is going to name it may be on the way."""


class Contents:
    """One folder of them. Safe to use from many threads; names are digests in hexadecimal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the folder. Raises OSError."""
        self.folder.mkdir(exist_ok=True)

    def put(self, name: str, data: bytes, durable: bool = False) -> None:
        """Keep `data`, and have its file be fresh if it is there. Raises OSError or BadOutput.

        durable : also through to the medium
        """
        path = self.folder / name
        if not _touched(path):
            write_whole(path, data)
        if durable:
            # Also when it was there: whoever wrote it may not have come to this yet.
            _sync(path)
            _sync(self.folder)

    def get(self, name: str) -> bytes:
        """The bytes of a file, as they are. Raises OSError."""
        return (self.folder / name).read_bytes()

    def verified(self, name: str) -> bytes | None:
        """The bytes of a file, or None when it is not there or is not what its name says."""
        try:
            data = self.get(name)
        except OSError:
            return None
        return data if digest(data).hex() == name else None

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).exists()

    def __iter__(self) -> Iterator[str]:
        """All names there are now."""
        return iter(os.listdir(self.folder))

    def remove(self, name: str, spare_fresh: bool) -> bool:
        """Remove a file, but a fresh one only if it is not to be spared. Raises OSError. Whether it was removed."""
        path = self.folder / name
        if spare_fresh and path.stat().st_mtime > time.time() - FRESH:
            return False
        path.unlink()
        return True


def _touched(path: Path) -> bool:
    """Whether `path` is there; its time is then now, so that it is not taken for old."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
