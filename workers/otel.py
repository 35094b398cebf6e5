"""
OpenTelemetry in a worker, as the OTEL_* variables have it: on where they name an exporter.

The exporters are looked for once, before any fork; what sends, and its threads, is made in the
process that runs tasks. An application that has set up providers of its own (`opentelemetry-
instrument celery …`) keeps them.
"""

import os
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from breakwater.errors import ConfigError
from breakwater.messaging.tracing import has_provider
from tasks.telemetry import sinks, tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SIGNALS = ("TRACES", "METRICS")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""OTEL_EXPORTER_OTLP_PROTOCOL, and the exporter's name; the first is the default."""
LAST_WORDS_S = 3.0
"""How long a worker that stops waits for a collector."""


class Otel:
    """
    What exports, by signal.

    Args:
        exporters: By signal, the classes; none, where the application has providers already.
    """

    def __init__(self, exporters: Mapping[str, list[Any]]) -> None:
        self._exporters = exporters
        self._providers: list[Any] = []

    def start(self) -> None:
        """Export from this process from now on."""
        from tasks.telemetry.opentelemetry import Telemetry  # noqa: PLC0415 - where it is installed

        if self._exporters:
            self._set_up()
        telemetry = Telemetry()
        tracing.use(telemetry)
        sinks.installed.append(telemetry)

    def stop(self) -> None:
        """Send what waits; not for long, since the collector may be away."""
        ends = [threading.Thread(target=each.shutdown, daemon=True) for each in self._providers]
        self._providers.clear()
        for end in ends:
            end.start()
        for end in ends:
            end.join(LAST_WORDS_S)

    def _set_up(self) -> None:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415 - as above
            PeriodicExportingMetricReader,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

        resource = _resource()
        if self._exporters["TRACES"]:
            # Ended by `stop`: at exit it would wait up to 30 s for a collector that is away.
            tracer = TracerProvider(resource=resource, shutdown_on_exit=False)
            for exporter in self._exporters["TRACES"]:
                tracer.add_span_processor(BatchSpanProcessor(exporter()))
            trace.set_tracer_provider(tracer)
            self._providers.append(tracer)
        if self._exporters["METRICS"]:
            readers = [PeriodicExportingMetricReader(each()) for each in self._exporters["METRICS"]]
            meter = MeterProvider(readers, resource, shutdown_on_exit=False)
            metrics.set_meter_provider(meter)
            self._providers.append(meter)


def otel() -> Otel | None:
    """
    Find what the variables ask for; None if that is nothing.

    Raises:
        ConfigError: There is no such exporter.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    names = {signal: _names(signal) for signal in SIGNALS}
    if has_provider():
        return Otel({})
    if not any(names.values()):
        return None
    try:
        import opentelemetry.sdk  # noqa: F401, PLC0415 - is it there?
    except ImportError:
        told = "OTEL_* names an exporter, but there is none: pip install 'breakwater-llm[otel]'"
        print(told, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return None
    return Otel({signal: [_exporter(signal, name) for name in names[signal]] for signal in SIGNALS})


def _names(signal: str) -> list[str]:
    """Name a signal's exporters: as given, or `otlp` where an endpoint is."""
    given = os.environ.get(f"OTEL_{signal}_EXPORTER", "")
    if not given and (os.environ.get(ENDPOINT) or os.environ.get(_of(signal, "ENDPOINT"))):
        given = "otlp"
    names = [name.strip() for name in given.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _exporter(signal: str, name: str) -> Any:
    variable = f"OTEL_{signal}_EXPORTER"
    if name == "otlp":
        variable = _of(signal, "PROTOCOL")
        given = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = PROTOCOLS.get(given or "http/protobuf", given or "")
    found = entry_points(group=f"opentelemetry_{signal.lower()}_exporter", name=name)
    for entry in found:
        return entry.load()
    fault = f"{variable}: no exporter {name!r} is installed; `none` does without"
    raise ConfigError(fault, {"faults": [fault]})


def _of(signal: str, what: str) -> str:
    return f"OTEL_EXPORTER_OTLP_{signal}_{what}"


def _resource() -> "Resource":
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - where it is installed

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Resource.create({} if named else {"service.name": "breakwater"})
