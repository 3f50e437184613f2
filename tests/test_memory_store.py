"""The memory store beyond the shared contract: its bounds, its counts, its threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from store_contract import StoreContract

from meshkiln.store.memory import Memory


class TestMemory(StoreContract):
    def open(self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None) -> Memory:
        return Memory(max_bytes=max_bytes, clock=clock)
