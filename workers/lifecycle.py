"""
Start and stop a worker: `celery -A workers worker`.

The roles file is checked once, before the pool is made. A bad file ends the worker at once, with
every fault on standard error. Connections are made later, in the process that uses them.
"""

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import structlog
from celery import Celery, signals
from celery.worker import WorkController
from celery.worker.consumer import Consumer
from celery.worker.control import control_command, inspect_command
from celery.worker.state import active_requests
from kombu.entity import Exchange, Queue

from breakwater.celery_app import app
from breakwater.errors import ConfigError
from breakwater.messaging.names import COMMON_QUEUE, queue_of
from breakwater.redis import encryption
from breakwater.redis.connection import address, client
from tasks.answering import runtime
from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from tasks.delivery.worker_transport import use_keeper
from tasks.ledger.drain import Drainer
from tasks.providers.registry import preload
from workers import shutdown
from workers.log import set_up_logging
from workers.metrics.exporter import Exporter, exporter_from_environment
from workers.otel import Otel, otel_from_environment
from workers.pools import ControlState, fit_to_pool, pool_faults
from workers.reload import Reloader
from workers.terminal.plain import plain_lines

if TYPE_CHECKING:
    from tasks.ledger.database import Database
    from tasks.operations.operator import ReloadReply

EX_USAGE, EX_CONFIG = 64, 78
"""Exit codes of sysexits.h."""


def install(celery_app: Celery) -> None:
    """Connect the worker's start and stop to Celery; `import workers` calls this once."""
    shutdown.add_grace_option(celery_app)
    Lifecycle().connect()


class Lifecycle:
    """Start what runs beside the tasks of one worker, and stop it with the worker."""

    def __init__(self) -> None:
        self._only_queues: list[str] = []
        self._excluded_queues: list[str] = []
        self._reloader: Reloader | None = None
        self._drain: Drainer | None = None
        self._exporter: Exporter | None = None
        self._otel: Otel | None = None

    def connect(self) -> None:
        """Let Celery's signals call the methods, in this order."""
        for signal, handler in (
            (signals.celeryd_init, _check_options),
            (signals.celeryd_init, self._configure),
            (signals.celeryd_init, shutdown.prepare),
            (signals.setup_logging, _set_up_logging),
            (signals.worker_init, _fit_to_pool),
            (signals.worker_init, _disable_gossip),
            (signals.worker_ready, self._start),
            (signals.worker_shutdown, self._stop_drainer),
            (signals.worker_process_shutdown, self._close),
            (signals.worker_shutdown, self._close),
        ):
            signal.connect(handler, weak=False)
        control_command(name="reload")(self._reload)

    def _configure(self, options: Mapping[str, object], **_: object) -> None:
        """Read the roles file and the environment; a fault ends the worker."""
        try:
            address()
            encryption.keys()
            settings = load_settings()
            self._exporter = exporter_from_environment(settings)
            self._otel = otel_from_environment()
        except ConfigError as faults:
            print(plain_lines(faults), file=sys.stderr)  # noqa: T201 - logging is not set up yet
            sys.exit(EX_CONFIG)
        runtime.use_settings(settings)
        use_keeper(lambda: runtime.runtime().keeper)
        self._only_queues = _queue_names(options, "queues")
        self._excluded_queues = _queue_names(options, "exclude_queues")
        _declare_queues(settings)
        preload(settings)  # 0.3 to 0.7 s per SDK, for which the first prompt should not wait
        if getattr(options.get("pool"), "__module__", "") == "celery.concurrency.prefork":
            signals.worker_process_init.connect(self._set_up_process, weak=False)
            gc.freeze()  # the children share these pages instead of copying 40 to 66 MB per SDK
        else:
            signals.celeryd_after_setup.connect(self._set_up_process, weak=False)

    def _set_up_process(self, **_: object) -> None:
        """Make what must not come from before a fork, in the process that runs tasks."""
        if self._otel:
            self._otel.start()
        runtime.runtime().registry.build()
        # 200,000 long-lived objects: scanning them all held up every call in flight for 0.2 s.
        gc.freeze()

    def _start(self, sender: Consumer, **_: object) -> None:
        """Start the threads that run beside the tasks."""
        self._reloader = Reloader(sender, only=self._only_queues, never=self._excluded_queues)
        self._reloader.start()
        for name, unset in runtime.runtime().settings.left_out.items():
            structlog.get_logger("breakwater").info("provider.left_out", provider=name, unset=unset)
        self._drain = Drainer(client(), _open_ledger)
        self._drain.start()
        if self._exporter:
            self._exporter.start()

    def _stop_drainer(self, **_: object) -> None:
        if self._drain:
            self._drain.stop()

    def _close(self, **_: object) -> None:
        if self._otel:
            self._otel.stop()
        runtime.close()

    def _reload(self, _state: ControlState) -> "ReloadReply":
        """Read the roles file now; a bad one is refused."""
        if self._reloader is None:
            return {"error": "not ready yet"}
        return self._reloader.reload()


def _check_options(options: Mapping[str, object], **_: object) -> None:
    """End the worker if its pool cannot honour an option."""
    if faults := pool_faults(options):
        print(*faults, sep="\n", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(EX_USAGE)


def _set_up_logging(loglevel: int, logfile: str | None = None, **_: object) -> None:
    set_up_logging(loglevel, logfile=logfile)


def _fit_to_pool(sender: WorkController, **_: object) -> None:
    fit_to_pool(sender)


def _disable_gossip(sender: WorkController, **_: object) -> None:
    """
    Disable gossip, mingle and Celery's heartbeats; nothing here uses them.

    Every worker would receive every other worker's heartbeat, which grows with the square of their
    number, and mingle delays the start by a second. A monitor (Flower) needs `--task-events`; with
    that option workers send Celery's heartbeats.
    """
    sender.options.update(
        without_gossip=True, without_mingle=True, without_heartbeat=not sender.task_events
    )


def _queue_names(options: Mapping[str, object], option: str) -> list[str]:
    """Read a list of queues as Celery does: a list, or one text with commas."""
    names = options.get(option) or ()
    if isinstance(names, str):
        return names.split(",")
    return [*cast("Sequence[str]", names)]


def _declare_queues(settings: Settings) -> None:
    """Declare the common queue and one queue per role; `-Q` still narrows what is consumed."""
    names = [COMMON_QUEUE, *(queue_of(role) for role in settings.roles)]
    # Each has its own exchange: one bound to the default exchange copies the common queue's
    # messages.
    app.conf.task_queues = [Queue(name, Exchange(name), routing_key=name) for name in names]


def _open_ledger() -> "Database":
    # One worker of a fleet drains at a time; the others need no database.
    from tasks.ledger.database import Database  # noqa: PLC0415 - see above

    return Database()


@control_command(args=[("task_ids", list)])
def cancel(state: ControlState, task_ids: list[str]) -> dict[str, str]:
    """End a prefork child that runs a cancelled task; in other pools the keeper ends the call."""
    pool = state.consumer.pool
    if "prefork" in type(pool).__module__:
        for request in list(active_requests):
            if request.id in task_ids:
                request.terminate(pool, signal="SIGTERM")
    return {"ok": f"{len(task_ids)} cancelled"}


@inspect_command()
def roles(_state: ControlState) -> dict[str, object]:
    """Show which roles file this worker routes by, and whether it is draining."""
    current = runtime.runtime()
    return {
        "source": current.settings.source,
        "version": current.settings.version,
        "roles": sorted(current.settings.roles),
        "drained_by": current.keeper.drained_by,
    }


@inspect_command()
def breakers(_state: ControlState) -> dict[str, dict[str, object]]:
    """Show this worker's own view of every breaker."""
    return {view.name: asdict(view) for view in runtime.runtime().breakers.views()}
