"""What `/metrics` tells, in Prometheus' exposition format: counted here, or read from the parts when asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

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
        self.requests = Counter(
            "meshkiln_http_requests", "HTTP requests by route and status", ["route", "status"], registry=self.registry
        )
        self.answers = Counter(
            "meshkiln_generations", "Generations answered, by outcome", ["outcome"], registry=self.registry
        )
        self.stored_seconds = Histogram(
            "meshkiln_stored_answer_seconds", "Time to a stored answer", buckets=LATENCY, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "meshkiln_stage_seconds", "Compute seconds of stages", ["stage"], buckets=LATENCY, registry=self.registry
        )
        self.hits = Counter(
            "meshkiln_stage_hits", "Stage outputs found instead of computed", ["tier", "stage"], registry=self.registry
        )
        self.saved = Counter(
            "meshkiln_saved_seconds", "Compute seconds that answers did not need", registry=self.registry
        )
        self.registry.register(self)

    def exposition(self) -> bytes:
        """Everything, as text."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What the parts count themselves, read when asked."""
        service, pool = self.service, self.service.pool.stats()
        yield GaugeMetricFamily("meshkiln_queue_generations", "Distinct generations that wait", service.waiting)
        yield GaugeMetricFamily("meshkiln_active_generations", "Distinct generations in the kiln", service.active)
        yield GaugeMetricFamily(
            "meshkiln_queue_seconds", "Estimated compute seconds that wait or run", service.queued_seconds()
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
