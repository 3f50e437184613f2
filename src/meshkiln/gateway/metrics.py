"""What `/metrics` tells, in Prometheus' exposition format: counted here, or read from the parts when asked."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from meshkiln.result import Result
from meshkiln.store.base import Store
from meshkiln.store.tiers import Tiers

if TYPE_CHECKING:
    from meshkiln.gateway.service import Service

LATENCY = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 0.1, 0.5, 1, 5, 30, 120, 300)
"""Buckets in seconds that fit a stored answer and a long generation alike."""
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The gateway's metrics. Names and units follow Prometheus' conventions."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service = service
        self.store = store
        self.registry = CollectorRegistry()
        # Counted on the event loop only and some 50,000 times a second, so without the locks of a Counter.
        self.requests = Counts[tuple[str, str]]()
        self._again, self._again_saved = 0, 0.0
        self._latencies, self._latency = [0] * (len(LATENCY) + 1), 0.0
        self.answers = Counter(
            "meshkiln_generations", "Generations answered, by outcome", ["outcome"], registry=self.registry
        )
        self.stage_seconds = Histogram(
            "meshkiln_stage_seconds", "Compute seconds of stages", ["stage"], buckets=LATENCY, registry=self.registry
        )
        self.hits = Counter(
            "meshkiln_stage_hits", "Stage outputs found instead of computed", ["tier", "stage"], registry=self.registry
        )
        self.joined = Counter(
            "meshkiln_generations_joined", "Jobs that hung on another's generation", registry=self.registry
        )
        self.saved = Counter(
            "meshkiln_saved_seconds", "Compute seconds that answers did not need", registry=self.registry
        )
        self.registry.register(self)
        service.ended = self.ended

    def stored(self, result: Result, seconds: float) -> None:
        """Count an answer that was stored whole, `seconds` after it was asked for."""
        last = result.stages[-1]
        self.answers.labels("stored").inc()
        self._observe(seconds)
        self.hits.labels(str(last.source), last.stage).inc()
        self.saved.inc(result.saved)

    def stored_again(self, saved: float, seconds: float) -> None:
        """Count an answer that the hot path gave."""
        self._again += 1
        self._again_saved += saved
        self._observe(seconds)

    def _observe(self, seconds: float) -> None:
        self._latencies[bisect_left(LATENCY, seconds)] += 1
        self._latency += seconds

    def ended(self, outcome: str, jobs: int, result: Result | None) -> None:
        """Count what `jobs` jobs came to that hung on one run."""
        self.answers.labels(outcome).inc(jobs)
        if result is None:
            return
        for stage in result.stages:
            if stage.source == "computed":
                if not stage.joined:
                    self.stage_seconds.labels(stage.stage).observe(stage.seconds)
            elif stage.source is not None:
                self.hits.labels(stage.source, stage.stage).inc()
        self.joined.inc(max(0, jobs - 1))
        # Only one of the jobs paid for it.
        self.saved.inc(result.saved + (jobs - 1) * result.cost)

    def exposition(self) -> bytes:
        """Everything, as text."""
        again, saved, self._again, self._again_saved = self._again, self._again_saved, 0, 0.0
        self.answers.labels("stored").inc(again)
        self.saved.inc(saved)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What the parts count themselves, read when asked."""
        service, pool = self.service, self.service.pool.stats()
        requests = CounterMetricFamily(
            "meshkiln_http_requests", "HTTP requests by route and status", labels=["route", "status"]
        )
        for labels, count in list(self.requests.items()):
            requests.add_metric(labels, count)
        yield requests
        yield self._stored_seconds()
        yield GaugeMetricFamily("meshkiln_queue_generations", "Distinct generations that wait", service.runs.waiting)
        yield GaugeMetricFamily(
            "meshkiln_active_generations", "Distinct generations in the kiln", len(service.runs.active)
        )
        yield GaugeMetricFamily(
            "meshkiln_queue_seconds", "Estimated compute seconds that wait or run", service.runs.seconds()
        )
        yield GaugeMetricFamily("meshkiln_queue_tasks", "Stage tasks that wait for a worker", pool.queued)
        joined = sum(flights.joined for flights in {id(k.flights): k.flights for k in service.kilns.values()}.values())
        yield CounterMetricFamily("meshkiln_flights_joined", "Callers who joined a computation in the air", joined)
        yield _by("meshkiln_worker_tasks", "Stage tasks by outcome", "outcome", pool.tasks)
        yield _by("meshkiln_worker_restarts", "Workers replaced, by reason", "reason", pool.restarts)
        yield _batches(pool.batches)
        busy = GaugeMetricFamily("meshkiln_worker_busy_ratio", "Share of its life a worker was busy", labels=["worker"])
        memory = GaugeMetricFamily("meshkiln_worker_memory_bytes", "Resident bytes of a worker", labels=["worker"])
        for index, worker in enumerate(pool.workers):
            busy.add_metric([str(index)], worker.busy)
            memory.add_metric([str(index)], worker.memory)
        yield busy
        yield memory
        yield from self._store()

    def _stored_seconds(self) -> Metric:
        buckets, total = list[tuple[str, float]](), 0
        for bound, count in zip((*map(str, LATENCY), "+Inf"), self._latencies, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily("meshkiln_stored_answer_seconds", "Time to a stored answer, its body received")
        family.add_metric([], buckets, self._latency)
        return family

    def _store(self) -> Iterator[Metric]:
        tiers = [self.store.memory, self.store.disk] if isinstance(self.store, Tiers) else [self.store]
        held = GaugeMetricFamily("meshkiln_store_bytes", "Bytes held", labels=["tier"])
        entries = GaugeMetricFamily("meshkiln_store_entries", "Artifacts held", labels=["tier"])
        hits = CounterMetricFamily("meshkiln_store_hits", "Look-ups that found", labels=["tier"])
        misses = CounterMetricFamily("meshkiln_store_misses", "Look-ups that did not find", labels=["tier"])
        evictions = CounterMetricFamily("meshkiln_store_evictions", "Artifacts let go", labels=["tier", "reason"])
        faults = CounterMetricFamily("meshkiln_store_faults", "What went wrong", labels=["tier", "reason"])
        for tier in tiers:
            stats = tier.stats()
            held.add_metric([tier.name], stats.bytes)
            entries.add_metric([tier.name], stats.entries)
            hits.add_metric([tier.name], stats.hits)
            misses.add_metric([tier.name], stats.misses)
            for reason, count in stats.evictions.items():
                evictions.add_metric([tier.name, reason], count)
            for reason, count in stats.faults.items():
                faults.add_metric([tier.name, reason], count)
        yield from (held, entries, hits, misses, evictions, faults)


def _by(name: str, help: str, label: str, counts: object) -> Metric:
    family = CounterMetricFamily(name, help, labels=[label])
    assert hasattr(counts, "items")
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _batches(counts: object) -> Metric:
    assert hasattr(counts, "items")
    sizes = dict(counts.items())
    family = HistogramMetricFamily("meshkiln_batch_size", "Items per batch")
    buckets, total = [], 0
    for bound in (1, 2, 4, 8, 16, 32):
        total = sum(count for size, count in sizes.items() if size <= bound)
        buckets.append((str(float(bound)), float(total)))
    everything = float(sum(sizes.values()))
    buckets.append(("+Inf", everything))
    family.add_metric([], buckets, sum(size * count for size, count in sizes.items()))
    return family
