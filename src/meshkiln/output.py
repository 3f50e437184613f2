"""Writing results: whole or not at all, and knowing beforehand that they can be."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshkiln.errors import BadOutput


def write_whole(path: Path, data: bytes) -> Path:
    """Write `data` to `path` through a temporary file beside it, so that a reader never sees half of it.

    Raises BadOutput, saying why, when the folder does not exist or cannot be written; nothing is left behind then.
    """
    write_together({path: data})
    return path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files of one folder that want one another: all of them, or none when one cannot be. As `write_whole`."""
    drafts: dict[str, Path] = {}
    try:
        for path, data in files.items():
            _require_replaceable(path)
            with _telling(path):
                _draft(path, data, drafts)
        for temporary, path in drafts.items():
            with _telling(path):
                os.replace(temporary, path)
    except BaseException:  # an interruption too leaves nothing behind
        for temporary in drafts:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents exist. Raises BadOutput."""
    with _telling(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _draft(path: Path, data: bytes, drafts: dict[str, Path]) -> None:
    """Write `data` to a temporary file beside `path`, which is among the `drafts` as soon as it exists."""
    handle, temporary = tempfile.mkstemp(prefix=".meshkiln-", dir=path.parent)
    drafts[temporary] = path
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    # mkstemp makes files that only their owner reads; a result is an ordinary file.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Raise BadOutput, saying why, when `path` could not be written; leaves nothing behind.

    Folders that do not exist yet are judged by the nearest one that does: it is where they would be made.
    """
    _require_replaceable(path)
    with _telling(path):
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        # Trying is the only test that holds for every file system, for root and under quotas.
        tempfile.TemporaryFile(dir=folder).close()


def _require_replaceable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise BadOutput(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        # Replacing a device or a pipe by a file would break whatever else uses it.
        raise BadOutput(f"{path} is not a regular file; name another")


def write_unzipped(path: Path, archive: bytes) -> Path:
    """Write an exported OBJ as `path` with its material and texture beside it, named after it.

    archive : a zip of mesh.obj, mesh.mtl and a texture, as `export` makes it
    Raises BadOutput when one of them cannot be written; then none is.
    """
    written: dict[Path, bytes] = {}
    # OBJ and MTL end a file's name at white space: `unzipped_name` has none.
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        names = {name: unzipped_name(path, name) for name in files.namelist()}
        for name, target in names.items():
            data = files.read(name)
            if name.endswith((".obj", ".mtl")):
                # In one pass: a new name may contain an old one.
                pattern = re.compile(b"|".join(re.escape(os.fsencode(old)) for old in names))
                data = pattern.sub(lambda found: os.fsencode(names[os.fsdecode(found[0])].name), data)
            written[target] = data
    write_together(written)
    return path


def unzipped_name(path: Path, name: str) -> Path:
    """Where `write_unzipped` puts the archive's file `name` for an OBJ at `path`.

    The texture's name says what it is, as `chair.jpg` may well be the picture that `chair.obj` is made of.
    """
    if name.endswith(".obj"):
        return path
    stem = "_".join(path.stem.split())
    return path.with_name(stem + (".mtl" if name.endswith(".mtl") else f".texture{Path(name).suffix}"))
