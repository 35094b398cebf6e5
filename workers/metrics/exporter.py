"""
Serve `/metrics` for Prometheus, on one port per host, if METRICS_PORT is set.

Each worker of the host counts in its own files. One of them serves the port and adds up all files.
The others try to take the port every few seconds, so that one of them serves it when that worker
dies.
"""

import errno
import os
import threading
from typing import TYPE_CHECKING

import structlog

from breakwater.errors import ConfigError
from tasks.config import Settings
from tasks.telemetry import observers, sinks
from workers.metrics.slot import Slot, claim, folder_for

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PORT, HOST = "METRICS_PORT", "METRICS_HOST"
DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - Prometheus is on another host, and nothing here is secret
RETRY_INTERVAL_S = 3.0

_log = structlog.get_logger("breakwater")


class Exporter:
    """
    Count for one worker, and serve the host's port when it is free.

    Made before a prefork pool forks, so that the children count too.
    """

    def __init__(self, settings: Settings, host: str, port: int, slot: Slot) -> None:
        from workers.metrics.counters import Counters  # noqa: PLC0415 - costs 8 MB

        self._host, self._port, self._slot = host, port, slot
        counters = Counters(settings, slot.folder, slot.name)
        sinks.installed.append(counters)
        observers.of_results.append(counters.result)
        observers.of_transitions.append(counters.transition)

    def start(self) -> None:
        """Serve now, or when the worker that serves has died."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        from prometheus_client import start_http_server  # noqa: PLC0415 - as above

        registry = self._registry()
        wait = threading.Event().wait
        is_logged = False
        while True:
            try:
                start_http_server(self._port, self._host, registry)
            except OSError as error:
                if error.errno != errno.EADDRINUSE and not is_logged:
                    _log.error("metrics.no_port", port=self._port, error=error.strerror)
                    is_logged = True
                wait(RETRY_INTERVAL_S)
            else:
                _log.info("metrics.serving", host=self._host, port=self._port)
                return

    def _registry(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - as above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

        from workers.metrics.fleet import FleetMetrics  # noqa: PLC0415 - as above

        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._slot.folder))
        registry.register(FleetMetrics())
        return registry


def exporter_from_environment(settings: Settings) -> Exporter | None:
    """
    Make the exporter; None if METRICS_PORT is not set.

    Raises:
        ConfigError: METRICS_PORT is not a port, or the folder for the counts cannot be used.
    """
    value = os.environ.get(PORT, "").strip()
    if not value:
        return None
    if not value.isdecimal() or not 0 < int(value) < 65536:
        fault = f"{PORT}: {value!r} is not a valid port; it must be a number from 1 to 65535"
        raise ConfigError(fault, {"faults": [fault]})
    port = int(value)
    host = os.environ.get(HOST) or DEFAULT_HOST
    return Exporter(settings, host, port, claim(folder_for(port)))
