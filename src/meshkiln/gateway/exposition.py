"""What `/metrics` tells, in Prometheus' exposition format. Names and units follow its conventions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from meshkiln import __version__
from meshkiln.store.tiers import Tiers
from meshkiln.telemetry.tally import BUCKETS, Tally
from meshkiln.workers.stats import STATES, PoolStats

if TYPE_CHECKING:
    from meshkiln.gateway.gateway import Gateway

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BATCHES = (1, 2, 4, 8, 16, 32)
"""Upper bounds of the histogram of batch sizes."""


class Exposition(Collector):
    """The gateway's metrics as text: what it counts itself, and what its parts tell when asked."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Everything."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Called for each exposition."""
        yield InfoMetricFamily("meshkiln_build", "Which Meshkiln this is", {"version": __version__})
        yield from self._answers()
        yield from self._queue()
        yield from _pool(self.gateway.service.pool.stats())
        yield from self._store()

    def _answers(self) -> Iterator[Metric]:
        metrics = self.gateway.metrics.totals()
        yield _counts("meshkiln_http_requests", "HTTP requests", ("route", "status"), metrics.requests)
        yield _tallies("meshkiln_http_request_seconds", "Seconds to the end of an answer", "route", metrics.answers)
        yield _tallies(
            "meshkiln_generation_seconds", "Seconds from a request to its result", "outcome", metrics.generations
        )
        yield _tallies("meshkiln_stage_seconds", "Compute seconds of stages", "stage", metrics.stages)
        yield _counts("meshkiln_stage_hits", "Stage outputs found, not computed", ("tier", "stage"), metrics.hits)
        yield _counts(
            "meshkiln_saved_seconds", "Compute seconds that answers did not need", ("outcome",), metrics.saved
        )
        yield _counts("meshkiln_errors", "Problems told to callers", ("type",), metrics.errors)
        price = self.gateway.settings.gpu_hour_price
        yield GaugeMetricFamily("meshkiln_gpu_hour_price", "The setting: what an hour of computing costs", price)

    def _queue(self) -> Iterator[Metric]:
        service = self.gateway.service
        seconds, runs = service.runs.seconds(), service.runs
        yield GaugeMetricFamily("meshkiln_queue_generations", "Distinct generations that wait", runs.waiting)
        yield GaugeMetricFamily("meshkiln_active_generations", "Distinct generations in the kiln", len(runs.active))
        yield GaugeMetricFamily("meshkiln_queue_seconds", "Estimated compute seconds that wait or run", seconds)
        yield GaugeMetricFamily(
            "meshkiln_queue_wait_seconds", "Estimated wait of what is asked for now", seconds / service.workers
        )
        yield GaugeMetricFamily("meshkiln_intake_paused", "1 while nothing new is accepted", service.paused)
        kilns = service.kilns.values()
        joined = sum(flights.joined for flights in {id(kiln.flights): kiln.flights for kiln in kilns}.values())
        yield CounterMetricFamily("meshkiln_flights_joined", "Callers who joined a computation in the air", joined)
        replaced = sum(kiln.records_replaced for kiln in kilns)
        yield CounterMetricFamily("meshkiln_records_replaced", "Records that a recomputation refuted", replaced)

    def _store(self) -> Iterator[Metric]:
        store = self.gateway.store
        tiers = [store.memory, store.disk] if isinstance(store, Tiers) else [store]
        held = GaugeMetricFamily("meshkiln_store_bytes", "Bytes held", labels=["tier"])
        entries = GaugeMetricFamily("meshkiln_store_entries", "Artifacts held", labels=["tier"])
        hits = CounterMetricFamily("meshkiln_store_hits", "Look-ups that found", labels=["tier"])
        misses = CounterMetricFamily("meshkiln_store_misses", "Look-ups that did not find", labels=["tier"])
        evictions = CounterMetricFamily(
            "meshkiln_store_evictions", "Artifacts let go", labels=["tier", "reason", "stage"]
        )
        faults = CounterMetricFamily("meshkiln_store_faults", "What went wrong", labels=["tier", "reason"])
        for tier in tiers:
            stats = tier.stats()
            held.add_metric([tier.name], stats.bytes)
            entries.add_metric([tier.name], stats.entries)
            hits.add_metric([tier.name], stats.hits)
            misses.add_metric([tier.name], stats.misses)
            for reason, stages in stats.evicted.items():
                for stage, count in stages.items():
                    evictions.add_metric([tier.name, reason, stage], count)
            for reason, count in stats.faults.items():
                faults.add_metric([tier.name, reason], count)
        yield from (held, entries, hits, misses, evictions, faults)


def _pool(pool: PoolStats) -> Iterator[Metric]:
    yield GaugeMetricFamily("meshkiln_queue_tasks", "Stage tasks that wait for a worker", pool.queued)
    yield _counts("meshkiln_worker_tasks", "Stage tasks by outcome", ("outcome",), pool.tasks)
    yield _counts("meshkiln_worker_restarts", "Workers replaced, by reason", ("reason",), pool.restarts)
    yield CounterMetricFamily("meshkiln_worker_retries", "Tasks queued again, their worker lost", pool.retried)
    yield _sizes(pool.batches)
    busy = CounterMetricFamily("meshkiln_worker_busy_seconds", "Time spent on batches", labels=["worker"])
    share = GaugeMetricFamily("meshkiln_worker_busy_ratio", "Share of its life a worker was busy", labels=["worker"])
    memory = GaugeMetricFamily("meshkiln_worker_memory_bytes", "Resident bytes of a worker", labels=["worker"])
    state = GaugeMetricFamily("meshkiln_worker_state", "1 for the state a worker is in", labels=["worker", "state"])
    for index, worker in enumerate(pool.workers):
        busy.add_metric([str(index)], worker.busy_seconds)
        share.add_metric([str(index)], worker.busy)
        memory.add_metric([str(index)], worker.memory)
        for name in STATES:
            state.add_metric([str(index), name], worker.state == name)
    yield from (busy, share, memory, state)


def _counts(name: str, help: str, labels: tuple[str, ...], counts: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, help, labels=labels)
    # A copy at once: the event loop goes on counting.
    for values, count in list(counts.items()):
        family.add_metric([values] if isinstance(values, str) else list(values), count)
    return family


def _tallies(name: str, help: str, label: str, tallies: Mapping[str, Tally]) -> Metric:
    family = HistogramMetricFamily(name, help, labels=[label])
    for value, tally in list(tallies.items()):
        bounds = (*map(str, BUCKETS), "+Inf")
        counts = accumulate(list(tally.counts))
        family.add_metric([value], [(b, float(c)) for b, c in zip(bounds, counts, strict=True)], tally.seconds)
    return family


def _sizes(counts: Mapping[int, int]) -> Metric:
    family = HistogramMetricFamily("meshkiln_batch_size", "Items per batch")
    buckets = [(str(float(bound)), float(sum(n for size, n in counts.items() if size <= bound))) for bound in BATCHES]
    buckets.append(("+Inf", float(sum(counts.values()))))
    family.add_metric([], buckets, sum(size * count for size, count in counts.items()))
    return family
