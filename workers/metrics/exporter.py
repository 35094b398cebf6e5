"""
`/metrics` for Prometheus, on one port a host: on where METRICS_PORT is set.

Each worker of the host counts in files of its own. One of them has the port and adds them all up;
the others try again every few seconds, so that one takes over when it dies.
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
EVERYWHERE = "0.0.0.0"  # noqa: S104 - Prometheus is on another host, and nothing here is secret
TRY_EVERY_S = 3.0

_log = structlog.get_logger("breakwater")


class Exporter:
    """
    One worker's counts, and its turn at the port.

    Made before a prefork, so that the children count too.
    """

    def __init__(self, settings: Settings, host: str, port: int, slot: Slot) -> None:
        from workers.metrics.counters import Counters  # noqa: PLC0415 - 8 MB, if nobody wants metrics

        self._host, self._port, self._slot = host, port, slot
        counters = Counters(settings, slot.folder, slot.name)
        sinks.installed.append(counters)
        observers.of_results.append(counters.result)
        observers.of_transitions.append(counters.transition)

    def start(self) -> None:
        """Serve, now or when whoever serves has died."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        from prometheus_client import start_http_server  # noqa: PLC0415 - as above

        registry, told, wait = self._registry(), False, threading.Event()
        while True:
            try:
                start_http_server(self._port, self._host, registry)
            except OSError as error:
                if error.errno != errno.EADDRINUSE and not told:
                    _log.error("metrics.no_port", port=self._port, error=error.strerror)
                    told = True
                wait.wait(TRY_EVERY_S)
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


def exporter(settings: Settings) -> Exporter | None:
    """
    Make what METRICS_PORT asks for; None if it is not set.

    Raises:
        ConfigError: It is no port, or the counts can be kept nowhere.
    """
    given = os.environ.get(PORT, "").strip()
    if not given:
        return None
    if not given.isdecimal() or not 0 < int(given) < 65536:
        fault = f"{PORT}: {given!r} is no port; it must be a number from 1 to 65535"
        raise ConfigError(fault, {"faults": [fault]})
    port = int(given)
    return Exporter(settings, os.environ.get(HOST) or EVERYWHERE, port, claim(folder_for(port)))
