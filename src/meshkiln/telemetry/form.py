"""The form of a sample: which counts and levels there are, and how each is nested. What a file gives back is held to it.

A later version may know other ones, or count in other buckets; a damaged disk gives back anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from meshkiln.telemetry.sample import Sample
from meshkiln.telemetry.tally import BUCKETS

GROWN = {
    **{"requests": 2, "hits": 2, "saved": 1, "errors": 1, "batches": 1, "busy": 1, "restarts": 1},
    **{"evicted": 3, "faults": 2, "generations": "tallies", "answers": "tallies", "stages": "tallies"},
}
LEVELS = {
    **{"waiting": 0, "active": 0, "queue_seconds": 0, "wait_seconds": 0, "tasks": 0},
    **{"memory": 1, "bytes": 1},
}
"""Name -> how many objects of names are around each number; or objects of counts by bucket and their seconds."""


def sample_of(at: Any, seconds: Any, grown: Any, levels: Any) -> Sample:
    """These as a sample, without names that are not known here. Raises ValueError when it would be none."""
    if not (_fits(at, 0) and _fits(seconds, 0) and seconds > 0):
        raise ValueError("a sample has a time and a length")
    return Sample(at, seconds, _known(grown, GROWN), _known(levels, LEVELS))


def _known(values: Any, forms: Mapping[str, int | str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("counts and levels have names")
    known = {name: value for name, value in values.items() if name in forms}
    for name, value in known.items():
        if not _fits(value, forms[name]):
            raise ValueError(f"{name} is of another form")
    return known


def _fits(value: Any, form: int | str) -> bool:
    if form == 0:
        return isinstance(value, int | float) and math.isfinite(value)
    if not isinstance(value, dict):
        return False
    if isinstance(form, int):
        return all(_fits(item, form - 1) for item in value.values())
    return all(map(_is_tally, value.values()))


def _is_tally(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"counts", "seconds"}:
        return False
    counts = value.get("counts", [0] * (len(BUCKETS) + 1))
    whole = isinstance(counts, list) and len(counts) == len(BUCKETS) + 1 and all(_fits(count, 0) for count in counts)
    return whole and _fits(value.get("seconds", 0.0), 0)
