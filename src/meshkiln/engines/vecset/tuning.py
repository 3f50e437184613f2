"""How many threads and items a call suit this machine: measured once, in a second or two, and kept in the cache.

Neither is in a key: they change seconds, and results only by rounding. The numeric class is, so it is not chosen here.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from meshkiln.engines.vecset.manifest import manifest
from meshkiln.folders import cache_folder, make_private

BATCHES = (1, 2, 4, 8, 16)
WORTH = 0.95
"""A larger number must take less than this share of the smaller one's time: a tie is noise, and fewer threads are free
for others."""
ROUNDS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found quickest. milliseconds : of one evaluation of the network with both; date : ISO 8601"""

    threads: int
    batch: int
    milliseconds: float
    date: str


def file() -> Path:
    """Where findings are kept."""
    return cache_folder() / "tuning.json"


@cache
def stored(available: int) -> Tuning | None:
    """What was found for so many threads, these weights and this runtime; None when it never was."""
    try:
        found = Tuning(**json.loads(file().read_text())[_name(available)])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    possible = all(type(number) is int and number > 0 for number in (found.threads, found.batch))
    return found if possible and isinstance(found.milliseconds, int | float) else None


def measure(available: int, opened: Callable[[str, int], Any]) -> Tuning:
    """Time the flow on one and on all of the threads, then in batches, and keep what was best where that can be.

    opened : a session of a graph, given its name and threads
    """
    threads, session = 1, opened("flow.onnx", 1)
    quickest = _seconds(session, 1)
    if available > 1:
        every = opened("flow.onnx", available)
        if _seconds(every, 1) < WORTH * quickest:
            threads, session = available, every
    batch, best = 1, _seconds(session, 1)
    for size in BATCHES[1:]:
        each = _seconds(session, size) / size
        if each < WORTH * best:
            batch, best = size, each
    found = Tuning(threads, batch, round(best * 1e3, 3), datetime.now(UTC).date().isoformat())
    try:
        _keep(available, found)
    except OSError as error:
        _log.warning("threads and items a call are measured anew next time: %s cannot be written: %s", file(), error)
    return found


def _seconds(session: Any, size: int) -> float:
    """The shortest of a few calls with `size` items."""
    sizes, draw = manifest(), np.random.default_rng(0)
    given = {
        "x": draw.normal(size=(size, sizes.latents, sizes.latent_dim)).astype(np.float32),
        "t": np.full(size, 0.5, np.float32),
        "tokens": draw.normal(size=(size, sizes.tokens, sizes.token_dim)).astype(np.float32),
    }
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        session.run(None, given)
        took.append(time.perf_counter() - started)
    return min(took)


def _keep(available: int, found: Tuning) -> None:
    try:
        known = json.loads(file().read_text())
    except (OSError, ValueError):
        known = None
    known = {**(known if isinstance(known, dict) else {}), _name(available): asdict(found)}
    make_private(file().parent)
    # Of this process alone: workers that start together measure together.
    beside = file().with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        beside.write_text(json.dumps(known, indent=2) + "\n")
        beside.replace(file())
    finally:
        beside.unlink(missing_ok=True)
    stored.cache_clear()


def _name(available: int) -> str:
    """What a finding depends on, but for the machine, whose cache folder is its own."""
    import onnxruntime

    names = [name for name in ("flow.onnx", "student.onnx") if name in manifest().files]
    return f"{available} threads, onnxruntime {onnxruntime.__version__}, {manifest().digest(*names)}"
