"""An OTLP collector on the loopback, which keeps what it is sent."""

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

KINDS = {Sent.SPAN_KIND_PRODUCER: "producer", Sent.SPAN_KIND_CONSUMER: "consumer",
         Sent.SPAN_KIND_CLIENT: "client", Sent.SPAN_KIND_INTERNAL: "internal"}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A span as it was sent."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    is_error: bool
    scope: str
    resource: dict[str, Any]


class Collector:
    """Listens on a port of its own until the context ends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, list[dict[str, Any]]] = {}
        """By name, the attributes of the points last sent."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = _table(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self.spans += [_span(span, scope.scope.name, about) for span in scope.spans]
        else:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        points = getattr(metric, metric.WhichOneof("data")).data_points
                        self.metrics[metric.name] = [_table(p.attributes) for p in points]

    def named(self, start: str) -> list[Span]:
        """Return the spans whose names begin so, in the order in which they ended."""
        return [span for span in self.spans if span.name.startswith(start)]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _span(span: Sent, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=[link.span_id.hex() for link in span.links],
        attributes=_table(span.attributes),
        events=[(event.name, _table(event.attributes)) for event in span.events],
        is_error=span.status.code == 2,
        scope=scope,
        resource=resource,
    )


def _table(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
