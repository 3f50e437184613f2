"""The disk store: the shared contract, and what only a disk can do wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from store_contract import StoreContract


class TestDisk(StoreContract):
    overshoot = 1.05
    fill = 0.5

    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Store:
        return Disk(folder, max_bytes, clock=clock or time.time)
