"""What `/metrics` tells of upstreams, read from them when asked."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshkiln.engines.upstream.upstreams import Upstreams


class UpstreamMetrics(Collector):
    """The metrics of some upstreams, by address."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        """Called for each exposition."""
        serving = GaugeMetricFamily("meshkiln_upstream_serving", "1 while it is in service", labels=["upstream"])
        busy = GaugeMetricFamily("meshkiln_upstream_busy", "Pictures it is at", labels=["upstream"])
        answers = CounterMetricFamily(
            "meshkiln_upstream_answers", "Times it was asked, by outcome", labels=["upstream", "outcome"]
        )
        ejected = CounterMetricFamily(
            "meshkiln_upstream_ejections", "Times it was put out of service", labels=["upstream"]
        )
        for one in self.upstreams.stats():
            serving.add_metric([one.url], float(one.serving))
            busy.add_metric([one.url], one.busy)
            answers.add_metric([one.url, "done"], one.done)
            answers.add_metric([one.url, "failed"], one.failed)
            ejected.add_metric([one.url], one.ejected)
        yield from (serving, busy, answers, ejected)
