"""A tally: a histogram of seconds that one thread writes without a lock, and quantiles of what it holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BUCKETS = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Upper bounds in seconds. They fit a stored answer (some 50 µs) and a long generation (some 5 min) alike."""


class Tally:
    """Counts by bucket, the last one for what is beyond all bounds; and the sum of what was observed.

    One thread observes; others may read, and see a count that is at most an observation behind its sum.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add(self, other: Tally, times: int = 1) -> None:
        """Take in what `other` holds, each observation counted `times` times."""
        self.counts = [ours + times * theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += times * other.seconds


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The seconds that `share` of the observations do not exceed, evenly spread within buckets; None of no observation.

    What is beyond all bounds counts as the last bound, as Prometheus has it.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = share * total, 0, 0.0
    for bound, count in zip(BUCKETS, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - below) / count
        below, lower = below + count, bound
    return BUCKETS[-1]
