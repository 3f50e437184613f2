"""Writing results: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from meshkiln.errors import BadOutput


def write_whole(path: Path, data: bytes) -> Path:
    """Write `data` to `path` through a temporary file beside it, so that a reader never sees half of it.

    Raises BadOutput, saying why, when the folder does not exist or cannot be written; nothing is left behind then.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only their owner reads; a result is an ordinary file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise BadOutput(f"{path} cannot be written: {error.strerror}") from None
    return path
