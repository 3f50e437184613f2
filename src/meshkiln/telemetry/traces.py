"""Traces for OpenTelemetry: where the time of each request went, stage by stage.

    request (a server's span) ─ generation ─┬─ stage read          found: a span of no length
                                            ├─ stage sample        computed: with what it waited for a worker
                                            └─ stage decode        joined: linked to the span that computes
    request of somebody who joins ─ generation, linked to the one that leads

Contexts come and go as W3C `traceparent` texts, so whoever passes them on needs nothing of OpenTelemetry.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from opentelemetry import context as contexts
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C = TraceContextTextMapPropagator()
_KEPT = 10_000
"""Accepted generations whose callers' contexts are remembered."""

log = logging.getLogger(__name__)


class Traces:
    """The traces of one server. `close` sends what has not been sent.

    exporter : where spans go; share : of the traces that begin here, how many are kept (0 to 1)
    """

    def __init__(self, exporter: SpanExporter, share: float = 1.0) -> None:
        ours = version("meshkiln")
        resource = Resource.create({"service.name": "meshkiln", "service.version": ours})
        # Whoever made it closes it: at the interpreter's exit nobody would bound that.
        sampler = ParentBased(TraceIdRatioBased(share))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("meshkiln", ours)
        self._callers: dict[str, Context] = {}

    @contextlib.contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[api.Span]:
        """The span of an HTTP request, current within. headers : lower-case; `traceparent` and `tracestate` are read"""
        span = self._tracer.start_span(method, _W3C.extract(headers), SpanKind.SERVER, {"http.request.method": method})
        # Not `start_as_current_span`: cancellation is no error of this server's.
        token = contexts.attach(api.set_span_in_context(span))
        try:
            yield span
        finally:
            with contextlib.suppress(ValueError):
                contexts.detach(token)
            span.end()

    def names(self, span: api.Span) -> dict[str, str]:
        """The header that names a span to whoever asked: `traceresponse` of W3C Trace Context, level 2."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, api.set_span_in_context(span, Context()))
        return {"traceresponse": carrier["traceparent"]} if carrier else {}

    def accepted(self, generation: str) -> None:
        """Remember who asked for a generation: it begins later, in nobody's context."""
        self._callers[generation] = contexts.get_current()
        while len(self._callers) > _KEPT:
            del self._callers[next(iter(self._callers))]

    def generation(self, ids: list[str], attributes: Mapping[str, str]) -> Generation:
        """The trace of a generation that begins, asked for by the first of `ids`; the others join it."""
        caller = self._callers.pop(ids[0], Context())
        span = self._tracer.start_span("generation", caller, attributes={**attributes, "meshkiln.generation": ids[0]})
        generation = Generation(self._tracer, span)
        for id in ids[1:]:
            self.joined(generation, id)
        return generation

    def joined(self, generation: Generation, id: str) -> None:
        """A job hangs on a generation that somebody else leads."""
        caller = self._callers.pop(id, Context())
        link = Link(generation.span.get_span_context(), {"meshkiln.link": "leader"})
        attributes = {"meshkiln.generation": id, "meshkiln.outcome": "joined"}
        generation.others.append(self._tracer.start_span("generation", caller, attributes=attributes, links=[link]))

    def close(self, seconds: float = 30.0) -> None:
        """Send what has not been sent, as far as the collector takes it in so many seconds."""
        # The provider's own patience goes by the exporter's tries; a thread that nobody waits for at the end does not.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            log.warning("the collector of traces did not take the last of them in %.1f s: they are lost", seconds)


class Generation:
    """One generation's trace; a `meshkiln.generation.Trace`. others : spans of those who joined it"""

    def __init__(self, tracer: api.Tracer, span: api.Span) -> None:
        self._tracer = tracer
        self.span = span
        self.others: list[api.Span] = []
        self._context = api.set_span_in_context(span, Context())

    def stage(self, name: str, key: str) -> Stage:
        """The span of a stage that is about to be computed or waited for."""
        return Stage(self._tracer.start_span(f"stage {name}", self._context, attributes={"meshkiln.key": key}))

    def found(self, name: str, key: str, source: str) -> None:
        """A stage's output was in the store."""
        attributes = {"meshkiln.key": key, "meshkiln.source": source}
        self._tracer.start_span(f"stage {name}", self._context, attributes=attributes).end()

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """It has ended, for all who waited."""
        self.span.set_attribute("meshkiln.outcome", outcome)
        for span in (self.span, *self.others):
            _end(span, error)


class Stage:
    """One stage's span. name : its context, as a traceparent"""

    def __init__(self, span: api.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, api.set_span_in_context(span, Context()))
        self.name = carrier.get("traceparent", "")

    def end(self, source: str, seconds: float = 0.0, leader: str = "", error: BaseException | None = None) -> None:
        """It is in hand, or will not be. leader : the context of the span that computed it, when that was another's"""
        self._span.set_attributes({"meshkiln.source": source, "meshkiln.compute_seconds": seconds})
        if leader:
            context = api.get_current_span(_W3C.extract({"traceparent": leader}, Context())).get_span_context()
            self._span.add_link(context, {"meshkiln.link": "leader"})
        _end(self._span, error)


def _end(span: api.Span, error: BaseException | None) -> None:
    # Cancellation is none, and of all exceptions alone no `Exception`.
    if isinstance(error, Exception):
        # The kind alone: what an error says may quote what the caller sent.
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end()


def to_collector(endpoint: str, share: float) -> Traces:
    """Traces sent to a collector by OTLP over HTTP. endpoint : such as http://localhost:4318"""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    path = "" if endpoint.rstrip("/").endswith("/v1/traces") else "/v1/traces"
    return Traces(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + path), share)
