"""The form of a sample: which counts and levels there are, how each is nested. What a file gives back is held to it.

A later version may know other ones, or count in other buckets; a damaged disk gives back anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from meshkiln.telemetry.sample import Sample
from meshkiln.telemetry.tally import BUCKETS

NUMBERS = {"requests": 2, "hits": 2, "saved": 1, "errors": 1, "batches": 1, "busy": 1, "restarts": 1, "faults": 2}
NUMBERS["evicted"] = 3
TALLIES = {"generations": 1, "answers": 1, "stages": 1}
LEVELS = {"waiting": 0, "active": 0, "queue_seconds": 0, "wait_seconds": 0, "tasks": 0, "memory": 1, "bytes": 1}
"""Name -> how many objects of names are around each number, or around each tally (counts by bucket, and seconds)."""


def sample_of(at: Any, seconds: Any, grown: Any, levels: Any) -> Sample:
    """These as a sample, without names that are not known here. Raises ValueError when they are none."""
    if not (_is_number(at) and _is_number(seconds) and seconds > 0):
        raise ValueError("a sample has a time and a length")
    known = {**_known(grown, NUMBERS, _is_number), **_known(grown, TALLIES, _is_tally)}
    return Sample(at, seconds, known, _known(levels, LEVELS, _is_number))


def _known(values: Any, depths: Mapping[str, int], is_leaf: Callable[[Any], bool]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("counts and levels have names")
    known = {name: value for name, value in values.items() if name in depths}
    for name, value in known.items():
        if not _fits(value, depths[name], is_leaf):
            raise ValueError(f"{name} is of another form")
    return known


def _fits(value: Any, depth: int, is_leaf: Callable[[Any], bool]) -> bool:
    if depth == 0:
        return is_leaf(value)
    return isinstance(value, dict) and all(_fits(item, depth - 1, is_leaf) for item in value.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_tally(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"counts", "seconds"}:
        return False
    counts = value.get("counts", [0] * (len(BUCKETS) + 1))
    whole = isinstance(counts, list) and len(counts) == len(BUCKETS) + 1 and all(map(_is_number, counts))
    return whole and _is_number(value.get("seconds", 0.0))
