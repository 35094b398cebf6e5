"""
How a worker starts and stops: `celery -A workers worker`.

The roles file is checked once, before the pool is made; a bad one ends the worker at once with
every fault on standard error. Connections are made later, in the process that uses them.
"""

import gc
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals
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
from tasks.ledger.drain import Drain
from tasks.providers.registry import preload
from workers.log import set_up_logging
from workers.metrics.exporter import Exporter, exporter
from workers.otel import Otel, otel
from workers.pools import fit, pool_faults
from workers.reload import Reloader
from workers.terminal.plain import plain_lines

if TYPE_CHECKING:
    from tasks.ledger.database import Database

EX_USAGE, EXIT_BAD_CONFIG = 64, 78  # EX_USAGE and EX_CONFIG of sysexits.h

_queue_filters: dict[str, list[str]] = {}  # the queues to consume, and not to
_reloader: Reloader | None = None
_drain: Drain | None = None
_exporter: Exporter | None = None
_otel: Otel | None = None


@signals.celeryd_init.connect(weak=False)
def _check_options(options: dict[str, Any], **_: Any) -> None:
    if faults := pool_faults(options):
        print(*faults, sep="\n", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(EX_USAGE)


@signals.celeryd_init.connect(weak=False)
def _configure(options: dict[str, Any], **_: Any) -> None:
    global _exporter, _otel  # noqa: PLW0603 - one worker a process
    try:
        address()
        encryption.keys()
        settings = load_settings()
        _exporter = exporter(settings)
        _otel = otel()
    except ConfigError as faults:
        print(plain_lines(faults), file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(EXIT_BAD_CONFIG)
    runtime.use_settings(settings)
    use_keeper(lambda: runtime.runtime().keeper)
    _queue_filters.update(only=_names(options, "queues"), never=_names(options, "exclude_queues"))
    _consume(settings)
    preload(settings)  # 0.3 to 0.7 s an SDK, which the first prompt should not wait for
    if getattr(options.get("pool"), "__module__", "") == "celery.concurrency.prefork":
        signals.worker_process_init.connect(_set_up)
        gc.freeze()  # the children share these pages instead of copying 40 to 66 MB an SDK
    else:
        signals.celeryd_after_setup.connect(_set_up)


@signals.worker_init.connect(weak=False)
def _fit(sender: Any, **_: Any) -> None:
    fit(sender)


@signals.worker_init.connect(weak=False)
def _disable_gossip(sender: Any, **_: Any) -> None:
    """
    Leave out what workers tell each other, of which nothing here makes use.

    Each hears every other's heartbeat, which grows with the square of their number; the greeting at
    the start is waited for a second. Who watches (Flower) asks for `--task-events`, and sees them.
    """
    sender.options.update(
        without_gossip=True, without_mingle=True, without_heartbeat=not sender.task_events
    )


def _set_up(**_: Any) -> None:
    """Make in this process, which runs tasks, what must not come from before a fork."""
    if _otel:
        _otel.start()
    runtime.runtime().registry.build()
    # 200,000 objects that stay: looking through them all held up every call in flight for 0.2 s.
    gc.freeze()


def _names(options: dict[str, Any], option: str) -> list[str]:
    """Read a list of queues as Celery does: with commas, or a list already."""
    given = options.get(option) or ()
    return given.split(",") if isinstance(given, str) else list(given)


def _consume(settings: Settings) -> None:
    """Consume the common queue and one per role; `-Q` still narrows this."""
    names = [COMMON_QUEUE, *(queue_of(role) for role in settings.roles)]
    # Each its own exchange: a binding to the default one would copy the common queue's messages.
    app.conf.task_queues = [Queue(name, Exchange(name), routing_key=name) for name in names]


@signals.setup_logging.connect(weak=False)
def _log(loglevel: int, logfile: str | None = None, **_: Any) -> None:
    set_up_logging(loglevel, logfile=logfile)


@signals.worker_ready.connect(weak=False)
def _start(sender: Any, **_: Any) -> None:
    """Start what runs beside the tasks."""
    global _reloader, _drain  # noqa: PLW0603 - one worker a process
    _reloader = Reloader(sender, **_queue_filters)
    _reloader.start()
    for name, unset in runtime.runtime().settings.left_out.items():
        structlog.get_logger("breakwater").info("provider.left_out", provider=name, unset=unset)
    _drain = Drain(client(), _open_ledger)
    _drain.start()
    if _exporter:
        _exporter.start()


def _open_ledger() -> "Database":
    from tasks.ledger.database import Database  # noqa: PLC0415 - in one worker of a fleet at a time

    return Database()


@signals.worker_shutdown.connect(weak=False)
def _stop_drainer(**_: Any) -> None:
    if _drain:
        _drain.stop()


@signals.worker_process_shutdown.connect(weak=False)
@signals.worker_shutdown.connect(weak=False)
def _close(**_: Any) -> None:
    if _otel:
        _otel.stop()
    runtime.close()


@control_command(args=[("task_ids", list)])
def cancel(state: Any, task_ids: list[str]) -> dict[str, Any]:
    """End a prefork child that runs a task which was cancelled; other pools end its call."""
    pool = state.consumer.pool
    if "prefork" in type(pool).__module__:
        for request in list(active_requests):
            if request.id in task_ids:
                request.terminate(pool, signal="SIGTERM")
    return {"ok": f"{len(task_ids)} cancelled"}


@control_command()
def reload(_state: Any) -> dict[str, Any]:
    """Read the roles file now; a bad one is refused."""
    return _reloader.reload() if _reloader else {"error": "not ready yet"}


@inspect_command()
def roles(_state: Any) -> dict[str, Any]:
    """Show which roles file this worker routes by, and whether it is draining."""
    now = runtime.runtime()
    return {
        "source": now.settings.source,
        "version": now.settings.version,
        "roles": sorted(now.settings.roles),
        "drained_by": now.keeper.drained_by,
    }


@inspect_command()
def breakers(_state: Any) -> dict[str, Any]:
    """Show this worker's own view of every breaker."""
    return {view.name: asdict(view) for view in runtime.runtime().breakers.views()}
