"""What can go wrong with a medium, in a few words: each reason is counted always and logged once."""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator

from meshkiln.errors import StoreError

log = logging.getLogger("meshkiln.store")

_ERRNO = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EFBIG: "disk full",  # a file size limit is a full disk to whoever runs into it
    errno.EROFS: "read only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "missing folder",
    errno.ENOTDIR: "missing folder",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}
# Primary result codes (https://www.sqlite.org/rescode.html): the low byte of an extended one.
_SQLITE = {
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_READONLY: "read only",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_CANTOPEN: "cannot open",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CORRUPT: "corrupt index",
    sqlite3.SQLITE_NOTADB: "corrupt index",
}

MEDIUM = (OSError, sqlite3.Error)
"""What a medium that fails raises."""


def reason(error: Exception) -> str:
    """The reason under which `error` is counted: "disk full", "read only", "permission denied", "busy", ...

    That of an error of ours is what the medium raised before it was.
    """
    if not isinstance(error, MEDIUM) and isinstance(error.__context__, MEDIUM):
        error = error.__context__
    if isinstance(error, OSError):
        return _ERRNO.get(error.errno or 0, "input/output error")
    code = getattr(error, "sqlite_errorcode", None)  # absent when the sqlite3 module itself raised
    if code is None:
        return "index error" if isinstance(error, sqlite3.Error) else "input/output error"
    return _SQLITE.get(code & 0xFF, "input/output error")


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Have what the medium raises meanwhile be a StoreError that says `what`, and to callers no more than why."""
    try:
        yield
    except MEDIUM as error:
        raise StoreError(f"{what}: {error}", f"{what}: {reason(error)}") from error


class Faults:
    """Counts of what went wrong without failing anybody. Safe to use from many threads."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, reason: str, detail: object, consequence: str = "generation goes on without it") -> None:
        """Count one fault; the first of each reason is logged as a warning."""
        with self._lock:
            self._counts[reason] += 1
            first = self._counts[reason] == 1
        if first:
            log.warning("%s: %s (%s); %s, and this is said once", self._what, reason, detail, consequence)

    def counts(self) -> dict[str, int]:
        """Reason -> how often, so far."""
        with self._lock:
            return dict(self._counts)

    def renew_lock(self) -> None:
        """To be called in the child of a fork: the parent's other threads may have held the lock."""
        self._lock = threading.Lock()
