"""How much machine there is to share out."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory this machine has, or the container we are in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return physical
