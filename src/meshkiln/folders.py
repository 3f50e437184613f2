"""Where Meshkiln keeps things on this machine: one folder, the user's own, on a local filesystem."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from meshkiln.errors import StoreError

VARIABLE = "MESHKILN_CACHE_DIR"

# Filesystems that other machines can write at the same time. SQLite's write-ahead log needs memory shared by all its
# readers and writers, which ends at the machine's edge (https://www.sqlite.org/wal.html, section 1).
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs"}
    | {"fuse.ceph", "fuse.curlftpfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys"}
    | {"fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)


def cache_folder() -> Path:
    """The folder for everything that can be made again: `MESHKILN_CACHE_DIR`, else the user's cache folder.

    It need not exist yet. A leading `~` is expanded.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("meshkiln", appauthor=False)


def make_private(folder: Path) -> None:
    """Make `folder` (and its parents) exist and be closed to other users (mode 0700).

    A folder that was there, holds other people's things (anything at all, while `format` is missing) keeps its mode:
    `MESHKILN_CACHE_DIR=/tmp` must not lock everybody out of /tmp. What the store makes inside it is private anyway.
    Raises OSError when it cannot be made.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode != 0o700 and ((folder / "format").exists() or not any(folder.iterdir())):
        folder.chmod(0o700)


def require_local(folder: Path, mountinfo: str | None = None) -> None:
    """Raise StoreError when `folder` is on a network filesystem, naming the filesystem and what to do.

    mountinfo : text in the format of /proc/self/mountinfo (proc(5)); read from there when None. Where there is no
        such file (not Linux), every folder is taken to be local.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return
    mount, kind = _filesystem(os.path.realpath(folder), mountinfo)
    # A *root* on 9p is how some sandboxes reach their own local disk, not a share.
    if kind in _NETWORK and not (kind == "9p" and mount == "/"):
        raise StoreError(
            f"{folder} is on a network filesystem ({kind}, mounted at {mount}), where the store's index could be "
            f"damaged by two machines writing at once; set {VARIABLE} to a folder on a local disk"
        )


def _filesystem(path: str, mountinfo: str) -> tuple[str, str]:
    """Mount point and type of the filesystem that `path` (absolute, resolved; it need not exist) is on."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, separator, rest = line.partition(" - ")
        if not separator:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        inside = mount == "/" or path == mount or path.startswith(mount + "/")
        # Of two filesystems mounted at one point the later one is seen.
        if inside and len(mount) >= len(best):
            best, kind = mount, rest.split(" ")[0]
    return best, kind
