"""Memory over disk: the shared contract, and what the two are to each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers
from store_contract import StoreContract


class TestTiers(StoreContract):
    overshoot = 1.05
    fill = 0.5
    counts_all = False

    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Store:
        return Tiers(Memory(max_bytes // 4, clock=clock), Disk(folder, max_bytes, clock=clock or time.time))
