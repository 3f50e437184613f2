"""The files of large artifacts: written aside, made durable, indexed, and only then moved to their place.

    incoming/NAME        being written, or indexed a moment ago; its size on the disk's books reserves room
    objects/NA/NAME      indexed
    quarantine/NAME      failed its digest; kept for a look, within a small bound

A name is used once, so a file never changes under a reader. Whoever writes `incoming/NAME` holds an exclusive flock on
it until it is indexed; the kernel drops the lock when the process dies, however it dies. So what lies in `incoming`
unlocked belongs to nobody: it is moved to its place if the index has it, and removed if not. A kill at any instant
leaves either that, or an indexed artifact.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_READ_LIMIT = 2**30  # one read(2) returns at most 2 GiB less a page on Linux


class Incoming:
    """A file being written in `incoming`, locked. `close` lets go of it and removes it unless it was published."""

    def __init__(self, path: Path, fd: int) -> None:
        self.name = path.name
        self._path, self._fd, self._kept = path, fd, False

    def write(self, data: bytes) -> None:
        """Write all of `data` and wait until the disk has it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fsync(self._fd)

    def publish(self, place: Path) -> None:
        """Move the file, which the index names by now, to `place`."""
        self._kept = True
        with contextlib.suppress(FileNotFoundError):  # discarded or evicted since it was indexed
            try:
                os.rename(self._path, place)
            except FileNotFoundError:
                place.parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(self._path, place)

    def close(self) -> None:
        if not self._kept:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)


class Files:
    """The folder of large artifacts. Stateless but for its path; safe to use from many threads and processes."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        self._quarantine = root / "quarantine"

    def make(self) -> None:
        """Create the folders that are missing."""
        for folder in (self._incoming, self._objects, self._quarantine):
            folder.mkdir(mode=0o700, exist_ok=True)

    def place(self, name: str) -> Path:
        return self._objects / name[:2] / name

    def _where(self, name: str) -> tuple[Path, ...]:
        """Where to look for a file: between two looks it may be moved from `incoming` to its place."""
        place = self.place(name)
        return place, self._incoming / name, place

    def reserve(self, prefix: str, size: int) -> Incoming:
        """A new, locked file in `incoming` whose apparent size is `size` bytes; nothing is allocated yet."""
        while True:
            path = self._incoming / f"{prefix}-{os.urandom(8).hex()}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink == 0:  # swept between creation and locking
                    os.close(fd)
                    continue
                os.ftruncate(fd, size)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(fd)
                raise
            return Incoming(path, fd)

    def reserved(self, besides: str = "") -> int:
        """Bytes that files in `incoming`, other than the one named, take or will take."""
        total = 0
        with os.scandir(self._incoming) as found:
            for entry in found:
                if entry.name != besides:
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat().st_size
        return total

    def read(self, name: str, size: int) -> bytes | None:
        """The bytes of a file that should have `size` of them; one more than that at most. None when there is none."""
        for path in self._where(name):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                # One byte more than expected shows a file that grew.
                data = os.read(fd, min(size + 1, _READ_LIMIT))
                if len(data) >= min(size, _READ_LIMIT) and size < _READ_LIMIT:
                    return data
                return _read_rest(fd, data, size + 1)
            finally:
                os.close(fd)
        return None

    def link(self, name: str, size: int, other: Files) -> bool:
        """Have a file of another folder on this filesystem here too; False when that has none of `size` bytes."""
        place = self.place(name)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        for path in other._where(name):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size != size:
                    return False
                os.link(path, place)
                return True
        return False

    def remove(self, name: str) -> None:
        """Remove a file wherever it is; nothing when it is gone already."""
        for path in self._where(name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                return

    def quarantine(self, name: str, data: bytes | None, limit: int) -> None:
        """Put a file (or `data`, when it was never one) aside; the oldest go when the folder exceeds `limit` bytes."""
        aside = self._quarantine / name
        if data is None:
            for path in (self.place(name), self._incoming / name):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, aside)
        else:
            aside.write_bytes(data)
        kept = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(aside.parent))
        excess = sum(size for _, size, _ in kept) - limit
        for _, size, path_ in kept:
            if excess <= 0:
                break
            os.unlink(path_)
            excess -= size

    def empty_quarantine(self) -> None:
        """Remove what was put aside."""
        for entry in os.scandir(self._quarantine):
            os.unlink(entry.path)

    def sweep(self, indexed: Callable[[str], bool]) -> int:
        """Settle what dead writers left in `incoming`; returns how many files were removed."""
        removed = 0
        for name in os.listdir(self._incoming):
            with _unlocked(self._incoming / name) as free:
                if not free:
                    continue
                if indexed(name):
                    Incoming(self._incoming / name, -1).publish(self.place(name))
                else:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._incoming / name)
                        removed += 1
        return removed

    def sweep_objects(self, indexed: Callable[[str], bool]) -> int:
        """Remove files in their places that the index does not name; returns how many. Looks at every file."""
        removed = 0
        for shard in os.listdir(self._objects):
            for name in os.listdir(self._objects / shard):
                if not indexed(name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._objects / shard / name)
                        removed += 1
        return removed


def _read_rest(fd: int, data: bytes, limit: int) -> bytes:
    parts = [data]
    while (missing := limit - sum(map(len, parts))) > 0:
        part = os.read(fd, min(missing, _READ_LIMIT))
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether no living process holds the lock on `path`; while inside, we hold it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
