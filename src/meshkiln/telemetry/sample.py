"""A sample: what happened between two looks at the counts, and how things stood at the second.

    counts, counts, counts …  ─ between ─  samples  ─ together ─  one coarser sample

Values are JSON: objects of numbers, lists of counts, nested as they come. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Counts = Mapping[str, Any]
"""What only grows: name -> number, list of counts, or an object of these."""
Levels = Mapping[str, Any]
"""What goes up and down: name -> number, or an object of these."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in `seconds` up to `at` (since the epoch).

    grown : by how much each count grew; what did not is left out
    levels : as they stood; of several samples the highest
    """

    at: float
    seconds: float
    grown: Counts
    levels: Levels


def between(before: Counts, after: Counts) -> dict[str, Any]:
    """By how much counts grew. A count that fell was set back in between, and has grown from nothing."""
    grown = {name: _grown(before.get(name), value) for name, value in after.items()}
    return {name: value for name, value in grown.items() if value}


def _grown(before: Any, after: Any) -> Any:
    if isinstance(after, Mapping):
        return between(before if isinstance(before, Mapping) else {}, after)
    if isinstance(after, Sequence):
        differences = [a - b for a, b in zip(after, before or [0] * len(after), strict=True)]
        return differences if any(differences) else []
    before = before or 0
    return after - before if after >= before else after


def together(samples: Sequence[Sample]) -> Sample:
    """Several samples in a row as one. At least one is wanted."""
    grown: dict[str, Any] = {}
    levels: dict[str, Any] = {}
    for sample in samples:
        grown = _merged(grown, sample.grown, lambda a, b: a + b)
        levels = _merged(levels, sample.levels, max)
    return Sample(samples[-1].at, sum(sample.seconds for sample in samples), grown, levels)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any], join: Any) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        if name not in merged:
            merged[name] = value
        elif isinstance(value, Mapping):
            merged[name] = _merged(merged[name], value, join)
        elif isinstance(value, Sequence):
            merged[name] = [join(a, b) for a, b in zip(merged[name], value, strict=True)]
        else:
            merged[name] = join(merged[name], value)
    return merged
