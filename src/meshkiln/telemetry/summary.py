"""What samples say: figures over all of them, and series to draw. Pure; names of counts are those of the samples."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from meshkiln.telemetry.sample import Sample, together
from meshkiln.telemetry.tally import quantile

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
POINTS = 300
"""Points of a series at most."""
AWAY = 3.0
"""Seconds between two samples from which on the server was away. Looks at the counts are as far apart."""


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Figures over all of `samples`: how often, how fast, saved, computed, let go, gone wrong."""
    if not samples:
        return {"seconds": 0.0, "outcomes": {}, "saved": {}, "stages": {}, "routes": {}, "errors": {}} | _NOTHING
    whole = together(samples)
    grown = whole.grown
    hits: dict[str, dict[str, int]] = {}
    for tier, found in grown.get("hits", {}).items():
        for stage, count in found.items():
            hits.setdefault(stage, {})[tier] = count
    stages = grown.get("stages", {})
    return {
        "seconds": whole.seconds,
        "outcomes": {name: _timed(counted, whole.seconds) for name, counted in grown.get("generations", {}).items()},
        "saved": grown.get("saved", {}),
        "stages": {
            stage: {**_timed(stages.get(stage, {}), whole.seconds), "hits": hits.get(stage, {})}
            for stage in {**stages, **hits}
        },
        "routes": {name: _timed(counted, whole.seconds) for name, counted in grown.get("answers", {}).items()},
        "errors": grown.get("errors", {}),
        "batches": grown.get("batches", {}),
        "evicted": grown.get("evicted", {}),
        "faults": grown.get("faults", {}),
        "restarts": grown.get("restarts", {}),
        "busy": {name: min(1.0, busy / whole.seconds) for name, busy in grown.get("busy", {}).items()},
    }


_NOTHING: dict[str, Any] = {
    "batches": {},
    "evicted": {},
    "faults": {},
    "restarts": {},
    "busy": {},
}


def _timed(counted: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Count, rate a second, sum and quantiles of a tally's growth."""
    counts = counted.get("counts", [])
    told: dict[str, Any] = {"count": sum(counts), "per_second": sum(counts) / seconds}
    told["seconds"] = counted.get("seconds", 0.0)
    return told | {name: quantile(counts, share) for name, share in QUANTILES.items()}


class Away(Sample):
    """The time between two samples in which the server was away."""


def series(samples: Sequence[Sample], points: int = POINTS) -> dict[str, Any]:
    """Columns to draw, at most `points` long; a value that there is not is None.

    Samples are joined where there are more of them. A time that the server was away is a point without values, so that
    no line goes across it; of very many such times the longest are.
    """
    joined = _joined(samples, points)

    def known(values: Iterable[Any]) -> list[Any]:
        return [None if isinstance(s, Away) else value for s, value in zip(joined, values, strict=True)]

    timed = [s.grown.get("generations", {}) for s in joined]
    outcomes = sorted({name for row in timed for name in row})
    # By number; a file may hold names that are none.
    workers = sorted({name for s in joined for name in s.levels.get("memory", {})}, key=lambda name: (len(name), name))
    rates, quantiles = dict[str, Any](), dict[str, Any]()
    for name in outcomes:
        columns = [_timed(row.get(name, {}), s.seconds) for row, s in zip(timed, joined, strict=True)]
        rates[name] = known(column["per_second"] for column in columns)
        quantiles[name] = {q: [column[q] for column in columns] for q in QUANTILES}
    return {
        "at": [s.at for s in joined],
        "seconds": [s.seconds for s in joined],
        "per_second": rates,
        "latency": quantiles,
        "saved_seconds": known(sum(s.grown.get("saved", {}).values()) for s in joined),
        "errors": known(sum(s.grown.get("errors", {}).values()) for s in joined),
        "waiting": [s.levels.get("waiting") for s in joined],
        "active": [s.levels.get("active") for s in joined],
        "wait_seconds": [s.levels.get("wait_seconds") for s in joined],
        "busy": {
            name: known(min(1.0, s.grown.get("busy", {}).get(name, 0.0) / s.seconds) for s in joined)
            for name in workers
        },
        "bytes": {
            tier: [s.levels.get("bytes", {}).get(tier) for s in joined]
            for tier in sorted({name for s in joined for name in s.levels.get("bytes", {})})
        },
    }


def _joined(samples: Sequence[Sample], points: int) -> list[Sample]:
    """Samples as no more than `points`, with the times between them in which the server was away."""
    away = {}
    for at, (before, after) in enumerate(pairwise(samples), 1):
        begun = after.at - after.seconds
        if begun - before.at > AWAY:
            away[at] = Away(begun, begun - before.at, {}, {})
    kept = sorted(heapq.nlargest(points // 4, away, key=lambda at: away[at].seconds))
    # Each time away is a point, and may leave one more point beside it that is not full.
    width = -(-len(samples) // (points - 2 * len(kept))) or 1
    joined: list[Sample] = []
    for start, end in pairwise([0, *kept, len(samples)]):
        if start:
            joined.append(away[start])
        joined += [together(samples[at : min(at + width, end)]) for at in range(start, end, width)]
    return joined
