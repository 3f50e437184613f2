"""Writing results: whole or not at all, and knowing beforehand that they can be."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
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


def check_writable(path: Path) -> None:
    """Raise BadOutput, saying why, when `path` could not be written; leaves nothing behind.

    Folders that do not exist yet are judged by the nearest one that does: it is where they would be made.
    """
    if path.is_dir():
        raise BadOutput(f"{path} is a folder; name a file in it")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # Trying is the only test that holds for every file system, for root and under quotas.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror}") from None


def write_unzipped(path: Path, archive: bytes) -> Path:
    """Write an exported OBJ as `path` with its material and texture beside it, named after it.

    archive : a zip of mesh.obj, mesh.mtl and a texture, as `export` makes it
    Raises BadOutput when one of them cannot be written.
    """
    # OBJ and MTL end a file's name at white space.
    stem = "_".join(path.stem.split())
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        names = {name: name.replace("mesh", stem, 1) for name in files.namelist()}
        for name, renamed in names.items():
            data = files.read(name)
            if not name.endswith((".obj", ".mtl")):
                write_whole(path.with_name(renamed), data)
                continue
            for old, new in names.items():
                data = data.replace(old.encode(), new.encode(), 1)
            write_whole(path if name.endswith(".obj") else path.with_name(renamed), data)
    return path
