"""Spans to an OpenTelemetry collector, by OTLP over HTTP; sent by a thread of the SDK, dropped where the collector cannot keep up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from mainspring import __version__
from mainspring.errors import MissingExtraError
from mainspring.gateway.door.traces import Finished
from mainspring.gateway.settings import Traces

_EXPORT_SECONDS = 1.0
_FAILED = 500


class OtlpTracer:
    """One span a request, and one for each phase of the batch that answered it: features, model, log.

    The sampled flag is set before: what comes here is sent. What waits when the server ends has about a second a batch of 512 spans.

    Raises:
        MissingExtraError: the packages of OpenTelemetry are not installed.
    """

    def __init__(self, settings: Traces) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import ReadableSpan
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise MissingExtraError("Sending traces", "opentelemetry-exporter-otlp-proto-http", "otel") from error
        self.ratio = settings.ratio
        self._api = trace
        self._span = ReadableSpan
        self._resource = Resource.create({"service.name": "mainspring", "service.version": __version__})
        self._scope = InstrumentationScope("mainspring", __version__)
        self._processor: Any = BatchSpanProcessor(OTLPSpanExporter(settings.endpoint, timeout=_EXPORT_SECONDS))

    def record(self, finished: Finished, now: int) -> None:
        """Queue the spans of a request; see `Tracer.record`."""
        identity, reply = finished.identity, finished.reply
        offset = now * 1_000 - finished.ended
        own = self._context(identity.trace_id, identity.span_id, identity.state)
        parent = self._context(identity.trace_id, identity.parent, identity.state, remote=True) if identity.parent else None
        told = {
            "mainspring.system": finished.system,
            "mainspring.request_id": identity.request_id,
            "mainspring.client": finished.client,
            "mainspring.version": reply.version,
            "mainspring.variant": reply.variant,
            "mainspring.answered_by": reply.answered_by,
            "http.route": finished.route,
            "http.request.method": finished.method,
        }
        attributes: dict[str, Any] = {name: text for name, text in told.items() if text} | {"http.response.status_code": reply.status}
        if finished.marks:
            attributes["mainspring.batch_size"] = finished.marks[-1].rows
        status = self._api.Status(self._api.StatusCode.ERROR if reply.status >= _FAILED else self._api.StatusCode.UNSET)
        name, server = f"{finished.method} {finished.route}", self._api.SpanKind.SERVER
        self._end(name, own, parent, attributes, finished.began + offset, finished.ended + offset, kind=server, status=status)
        for number, (before, mark) in enumerate(pairwise(finished.marks), start=1):
            span_id = f"{int(identity.span_id, 16) ^ number:016x}"
            context = self._context(identity.trace_id, span_id, identity.state)
            self._end(mark.phase, context, own, {"mainspring.batch_size": mark.rows}, before.at_ns + offset, mark.at_ns + offset)

    def close(self) -> None:
        """Send what waits."""
        self._processor.shutdown()

    def _context(self, trace_id: str, span_id: str, state: str, *, remote: bool = False) -> Any:
        flags, members = self._api.TraceFlags(self._api.TraceFlags.SAMPLED), self._api.TraceState.from_header([state])
        return self._api.SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags, members)

    def _end(self, name: str, context: Any, parent: Any, attributes: dict[str, Any], began: int, ended: int, **more: Any) -> None:
        span = self._span(
            name, context, parent, self._resource, attributes, start_time=began, end_time=ended, instrumentation_scope=self._scope, **more
        )
        self._processor.on_end(span)
