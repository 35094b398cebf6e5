"""
Export OpenTelemetry data from a worker, if the OTEL_* variables name an exporter.

The exporters are looked up once, before any fork. The providers and their threads are made in the
process that runs tasks. An application that has its own providers (`opentelemetry-instrument celery
…`) keeps them.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from breakwater.errors import ConfigError
from breakwater.messaging.tracing import has_provider
from tasks.telemetry import sinks, tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SIGNALS = ("TRACES", "METRICS")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
DEFAULT_PROTOCOL = "http/protobuf"
PROTOCOLS = {DEFAULT_PROTOCOL: "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""The exporter's name by the value of OTEL_EXPORTER_OTLP_PROTOCOL."""
FLUSH_TIMEOUT_S = 3.0
"""How long a worker that stops waits for a collector."""

MakeExporter = Callable[[], Any]  # the exporter classes of packages that may be missing


class Provider(Protocol):
    """A provider of the SDK."""

    def shutdown(self) -> None:
        """Send the buffered data, and stop."""


class Otel:
    """
    The exporters of one worker.

    Args:
        exporters: The exporter classes by signal; empty if the application has its own providers.
    """

    def __init__(self, exporters: Mapping[str, list[MakeExporter]]) -> None:
        self._exporters = exporters
        self._providers: list[Provider] = []

    def start(self) -> None:
        """Export from this process from now on."""
        from tasks.telemetry.opentelemetry import Telemetry  # noqa: PLC0415 - an optional package

        if self._exporters:
            self._set_up()
        telemetry = Telemetry()
        tracing.use(telemetry)
        sinks.installed.append(telemetry)

    def stop(self) -> None:
        """Send the buffered data, for a limited time: the collector may be down."""
        threads = [threading.Thread(target=each.shutdown, daemon=True) for each in self._providers]
        self._providers.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(FLUSH_TIMEOUT_S)

    def _set_up(self) -> None:
        resource = _resource()
        if self._exporters["TRACES"]:
            self._set_up_traces(resource)
        if self._exporters["METRICS"]:
            self._set_up_metrics(resource)

    def _set_up_traces(self, resource: "Resource") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an optional package
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

        # `stop` shuts it down: at exit it would wait up to 30 s for a collector that is down.
        tracer = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in self._exporters["TRACES"]:
            tracer.add_span_processor(BatchSpanProcessor(exporter()))
        trace.set_tracer_provider(tracer)
        self._providers.append(tracer)

    def _set_up_metrics(self, resource: "Resource") -> None:
        from opentelemetry import metrics  # noqa: PLC0415 - an optional package
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415 - as above
            PeriodicExportingMetricReader,
        )

        readers = [PeriodicExportingMetricReader(each()) for each in self._exporters["METRICS"]]
        meter = MeterProvider(readers, resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meter)
        self._providers.append(meter)


def otel_from_environment() -> Otel | None:
    """
    Look up the exporters that the variables name; None if they name none.

    Raises:
        ConfigError: An exporter does not exist.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    names = {signal: _exporter_names(signal) for signal in SIGNALS}
    if has_provider():
        return Otel({})
    if not any(names.values()):
        return None
    try:
        import opentelemetry.sdk  # noqa: F401, PLC0415 - only to check that it is installed
    except ImportError:
        message = "OTEL_* names an exporter, but there is none: pip install 'breakwater-llm[otel]'"
        print(message, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return None
    return Otel({signal: [_exporter(signal, name) for name in names[signal]] for signal in SIGNALS})


def _exporter_names(signal: str) -> list[str]:
    """Return the names of a signal's exporters; `otlp` if only an endpoint is set."""
    value = os.environ.get(f"OTEL_{signal}_EXPORTER", "")
    if not value and (os.environ.get(ENDPOINT) or os.environ.get(_otlp(signal, "ENDPOINT"))):
        value = "otlp"
    names = [name.strip() for name in value.split(",") if name.strip()]
    if names == ["none"]:
        return []
    return names


def _exporter(signal: str, name: str) -> MakeExporter:
    variable = f"OTEL_{signal}_EXPORTER"
    if name == "otlp":
        variable = _otlp(signal, "PROTOCOL")
        protocol = os.environ.get(variable) or os.environ.get(PROTOCOL) or DEFAULT_PROTOCOL
        name = PROTOCOLS.get(protocol, protocol)
    for entry in entry_points(group=f"opentelemetry_{signal.lower()}_exporter", name=name):
        make: MakeExporter = entry.load()
        return make
    fault = f"{variable}: no exporter {name!r} is installed; `none` turns exporting off"
    raise ConfigError(fault, {"faults": [fault]})


def _otlp(signal: str, setting: str) -> str:
    """Return the name of a signal's own OTLP variable."""
    return f"OTEL_EXPORTER_OTLP_{signal}_{setting}"


def _resource() -> "Resource":
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an optional package

    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if "OTEL_SERVICE_NAME" in os.environ or "service.name=" in attributes:
        return Resource.create({})
    return Resource.create({"service.name": "breakwater"})
